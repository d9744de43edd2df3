"""xenward's main job in each environment: the same commands, the same proofs, over another XenStore daemon."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute_driver.driver import InjectedFile
from tools.commands import proof

from . import environments
from .environments import Environment
from .house import FIRST_PASSWORD, SECOND_PASSWORD, House

KEYS = [
    f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4{last} operator@desk"
    for last in "fg"
]

pytestmark = pytest.mark.services  # the simulator's own part of this is what test_life tries, in less time

LARGE = bytes(range(256)) * 4096
"""1 MiB, the largest file that must pass: several hundred frames."""


@pytest.fixture(params=environments.parameters())
def environment(request: pytest.FixtureRequest) -> Environment:
    return request.param


@pytest.fixture
def home(environment: Environment, directory: Path) -> Iterator[House]:
    with environment.house(directory) as home:
        yield home


def test_a_guest_is_steered_over_this_xenstore(home: House, directory: Path) -> None:
    (directory / "keys").write_text(KEYS[0] + "\n")
    instance = home.create("web", "--key-file", str(directory / "keys"))
    guest = home.guest(instance)
    assert home.opens(instance, FIRST_PASSWORD)
    assert proof.key_is_authorized(guest, "root", KEYS[0])

    assert home.set_password(SECOND_PASSWORD).status == 0
    assert home.opens(instance, SECOND_PASSWORD)

    (directory / "large").write_bytes(LARGE)
    put = home.xenward("server", "file", "put", "web", str(directory / "large"), "/opt/large", "--mode", "0600")
    assert put.status == 0, put.stderr
    assert proof.file_is(guest, InjectedFile("/opt/large", LARGE, 0o600))
    assert stat.S_IMODE((guest / "opt/large").stat().st_mode) == 0o600

    domid = home.vm(instance)["domid"]
    assert home.xenward("server", "reboot", "web", "--hard").status == 0
    assert int(home.vm(instance)["domid"]) > int(domid)
    assert home.set_password(FIRST_PASSWORD).status == 0
    assert home.opens(instance, FIRST_PASSWORD)

    # Nothing of the conversations is left, nor of the domain that is gone.
    with home.store() as store:
        domains = store.directory("/local/domain")
        assert sorted(domains) == ["0", home.vm(instance)["domid"]]
        own = f"/local/domain/{home.vm(instance)['domid']}/data"
        for name in ("host", "guest", "xenward/frames", "xenward/claims"):
            assert environments.children(store, f"{own}/{name}") == []

    assert home.xenward("server", "delete", "web").status == 0
    with home.store() as store:
        assert store.directory("/local/domain") == ["0"]


def test_the_legacy_protocol_over_this_xenstore(home: House) -> None:
    home.configure(agent={"protocol": "legacy"})
    instance = home.create()
    assert home.set_password(SECOND_PASSWORD).status == 0
    assert home.opens(instance, SECOND_PASSWORD)
    assert home.last_action() == ("set_admin_password", "succeeded", "legacy_protocol")


def test_a_guest_without_its_agent_is_unreachable(home: House) -> None:
    instance = home.create()
    home.configure(agent={"timeout": "3"})
    os.kill(home.agent_pid(instance), signal.SIGKILL)
    assert home.set_password(SECOND_PASSWORD).status != 0
    assert home.last_action()[:2] == ("set_admin_password", "unreachable")
    assert home.opens(instance, FIRST_PASSWORD)
    # The request was withdrawn: an agent that comes later finds nothing to carry out.
    with home.store() as store:
        assert environments.children(store, f"/local/domain/{home.vm(instance)['domid']}/data/host") == []
