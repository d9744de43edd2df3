"""All of xenward over real Xen: real domains, a real XenStore, agents in real kernels with a real /etc/shadow.

What a command says is never believed here: each effect is read in the guest through its console, in which neither the
agent nor XenStore has a part.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_protocol.messages import ADVERT
from agent_protocol.xenstore import StoreError
from tools.labs.xen.host import XenHost
from tools.labs.xen.lab import attached
from tools.simulator.process import SimulatorProcess

from .house import FIRST_PASSWORD, SECOND_PASSWORD, Done, House

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

THIRD_PASSWORD = "third Pass-word 3"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f operator@desk"

START_SECONDS = 420.0
"""For the simulator: packages that have to be fetched, images that have to be made, and the machine's boot."""

COMMAND_SECONDS = 240.0
"""For a command. A guest takes 20 s until its agent serves, and twice that on a machine that has other things to do."""

SIZE = 100 * 1024 + 1


@dataclass
class RealHouse(House):
    """A house over real Xen. `host`: what is below its simulated API."""

    host: XenHost | None = None

    def end(self, process: subprocess.Popen[str]) -> Done:
        """As in House, with the patience that emulation needs."""
        output, errors = process.communicate(timeout=COMMAND_SECONDS)
        return Done(process.returncode, json.loads(output) if output.strip() else None, errors)

    def domid(self, instance: str) -> int:
        """Of the instance's domain."""
        return int(self.vm(instance)["domid"])

    def inside(self, instance: str, command: str) -> str:
        """What a command prints that the guest runs for its console."""
        assert self.host is not None
        return self.host.guest_run(self.domid(instance), command).strip()

    def opens(self, instance: str, password: str) -> bool:
        """Whether the administrator's hash in the guest's own /etc/shadow is one of this password."""
        stored = self.inside(instance, "grep ^root: /etc/shadow").split(":")[1]
        return crypt(password, stored) == stored

    def account(self, instance: str) -> str:
        """What a failed test shows: the administrator's hash, and what the agent last did."""
        return self.inside(instance, "grep ^root: /etc/shadow; tail -n 6 /var/log/xenward-agent.log")

    def await_agent(self, domid: int) -> None:
        """Wait until an agent's advert stands in the domain's XenStore."""
        assert self.host is not None
        with self.store() as store:
            path = f"/local/domain/{domid}/{ADVERT}"
            store.watch(path, "advert")
            while store.next_event(COMMAND_SECONDS):
                try:
                    store.read(path)
                    return
                except StoreError:
                    continue
        raise AssertionError("the agent does not advertise itself")


def crypt(password: str, stored: str) -> str:
    """The C library's crypt(3), which knows every kind of hash that Debian has."""
    library = ctypes.CDLL(ctypes.util.find_library("crypt"))
    library.crypt.restype = ctypes.c_char_p
    hashed = library.crypt(password.encode(), stored.encode())
    return hashed.decode() if hashed else ""


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="xw-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def home(directory: Path) -> Iterator[RealHouse]:
    simulator = SimulatorProcess(["--login-failure-delay", "0", "--hypervisor", "xen"], START_SECONDS)
    with simulator, attached(simulator.state / "xen") as host:
        it = RealHouse(directory, simulator, host=host)
        it.configure(agent={"timeout": "60", "boot_timeout": "200"})
        yield it


@pytest.fixture(scope="module")
def web(home: RealHouse, directory: Path) -> str:
    """An instance, with a key."""
    (directory / "key.pub").write_text(KEY + "\n")
    return home.create("web", "--key-file", str(directory / "key.pub"))


def test_an_instance_is_a_domain_of_its_own(home: RealHouse, web: str) -> None:
    assert home.host is not None
    assert home.domid(web) in home.host.list()
    assert home.inside(web, "cat /sys/hypervisor/uuid") == home.vm(web)["uuid"]
    assert "Linux" in home.inside(web, "uname -a")
    assert home.opens(web, FIRST_PASSWORD), home.account(web)
    assert home.inside(web, "cat /root/.ssh/authorized_keys").splitlines() == [KEY]
    assert home.inside(web, "stat -c %a:%u:%g /root/.ssh/authorized_keys") == "600:0:0"


def test_a_sealed_reset_changes_the_real_shadow_file(home: RealHouse, web: str) -> None:
    done = home.set_password(SECOND_PASSWORD)
    assert done.status == 0, done
    assert home.last_action() == ("set_admin_password", "succeeded", "")
    assert home.opens(web, SECOND_PASSWORD), home.account(web)
    assert not home.opens(web, FIRST_PASSWORD)


def test_a_file_of_many_frames_arrives_whole(home: RealHouse, web: str, directory: Path) -> None:
    content = os.urandom(SIZE)
    (directory / "blob").write_bytes(content)
    put = ("server", "file", "put", "web", str(directory / "blob"), "/opt/new/blob")
    done = home.xenward(*put, "--mode", "0640", "--owner", "root:root")
    assert done.status == 0, done
    assert home.inside(web, "sha256sum /opt/new/blob").split()[0] == hashlib.sha256(content).hexdigest()
    assert home.inside(web, "stat -c %a:%u:%g /opt/new/blob") == "640:0:0"


WATCHES = """\
from agent_protocol.xenstore import StoreError, connect
store = connect("/dev/xen/xenbus")
try:
    for number in range(1000):
        store.watch("data/%d" % number, "token")
except StoreError as error:
    print(error.code, store.read("name").decode())
"""


def test_one_watch_too_many_does_not_cost_the_connection(home: RealHouse, web: str) -> None:
    """The kernel refuses it in the write itself."""
    told = home.inside(web, f"cd / && python3.11 -c '{WATCHES}'")
    code, name = told.split()
    assert code in ("E2BIG", "EINVAL", "ENOSPC")
    assert name == f"instance-{web}"


def test_an_agent_that_was_killed_is_followed_by_another(home: RealHouse, web: str) -> None:
    before = home.inside(web, "cat /run/agent.pid")
    home.inside(web, f"kill -9 {before}")
    done = home.set_password(FIRST_PASSWORD)
    # The dead agent's advert may still stand: whoever waits for it in vain must not claim anything.
    if done.status != 0:
        assert done.shown["outcome"] in ("unreachable", "unknown"), done
        done = home.set_password(FIRST_PASSWORD)
    assert done.status == 0, done
    assert home.inside(web, "cat /run/agent.pid") != before
    assert home.opens(web, FIRST_PASSWORD), home.account(web)


def test_a_reboot_brings_a_new_domain_with_the_same_disk_and_identity(home: RealHouse, web: str) -> None:
    before, known = home.domid(web), home.xenward("agent", "show", "web").shown["fingerprint"]
    boot = home.inside(web, "cat /proc/sys/kernel/random/boot_id")
    done = home.xenward("server", "reboot", "web")
    assert done.status == 0, done
    after = home.domid(web)
    assert after > before
    assert home.host is not None
    assert set(home.host.list()) == {0, after}
    home.await_agent(after)
    assert home.inside(web, "cat /proc/sys/kernel/random/boot_id") != boot
    assert home.opens(web, FIRST_PASSWORD), home.account(web)
    done = home.set_password(SECOND_PASSWORD)
    assert done.status == 0, done
    assert home.opens(web, SECOND_PASSWORD), home.account(web)
    assert home.xenward("agent", "show", "web").shown["fingerprint"] == known


@pytest.fixture(scope="module")
def other(home: RealHouse, web: str) -> Iterator[str]:
    """A second instance, which is only ever spoken to in the old protocol."""
    del web
    home.configure(agent={"protocol": "legacy"})
    yield home.create("other")
    home.configure(agent={"protocol": "prefer-sealed"})


def test_a_legacy_reset_changes_the_real_shadow_file(home: RealHouse, other: str) -> None:
    assert home.last_action("other") == ("set_admin_password", "succeeded", "legacy_protocol")
    assert home.opens(other, FIRST_PASSWORD), home.account(other)
    done = home.set_password(THIRD_PASSWORD, "other")
    assert done.status == 0, done
    assert home.last_action("other") == ("set_admin_password", "succeeded", "legacy_protocol")
    assert home.opens(other, THIRD_PASSWORD), home.account(other)


def test_a_second_guest_sees_nothing_of_the_first_and_leaves_nothing_behind(
    home: RealHouse, web: str, other: str
) -> None:
    assert home.host is not None
    first, second = home.domid(web), home.domid(other)
    peek = (
        "from agent_protocol.xenstore import connect, StoreError\n"
        "store = connect('/dev/xen/xenbus')\n"
        f"for path in ('/local/domain/{first}/{ADVERT}', '/local/domain/{first}/name', '/local/domain/0/name'):\n"
        "    for attempt in (store.read, lambda path: store.write(path, b'x')):\n"
        "        try:\n"
        "            print(attempt(path))\n"
        "        except StoreError as error:\n"
        "            print(error.code)\n"
        "print(store.read('domid').decode())\n"
    )
    said = home.inside(other, f'python3.11 -c "{peek}"')
    assert said.split() == ["EACCES"] * 6 + [str(second)]

    vm = home.vm(other)["uuid"]
    assert home.xenward("server", "delete", "other").status == 0
    assert set(home.host.list()) == {0, first}
    with home.store() as store:
        assert sorted(store.directory("/local/domain")) == sorted(["0", str(first)])
        assert vm not in store.directory("/vm")
        assert str(second) not in store.directory("/local/domain/0/backend/vbd")
    assert vm not in home.host.run(["ls", "/guests"]).output.decode()
