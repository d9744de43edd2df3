"""The lab itself: a host that boots, with the other daemon than the contract's, and one that dies."""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_protocol.messages import ADVERT
from agent_protocol.xenstore import StoreError, connect
from tools.labs.cache import LabError
from tools.labs.xen.host import XenHost
from tools.labs.xen.lab import XenLab, attached
from tools.simulator.domain import GUEST_DIRECTORIES, Domain
from tools.simulator.plugins import PLUGIN_PATH
from tools.simulator.xmlrpc import decode_response, encode_call

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def lab() -> Iterator[XenLab]:
    with tempfile.TemporaryDirectory(prefix="xl-") as directory, XenLab(Path(directory), "oxenstored") as it:
        yield it


def domain() -> Domain:
    """A VM as xapi describes it."""
    return Domain(
        domid=-1,
        uuid=str(uuid.uuid4()),
        name="a VM",
        kind="pv",
        memory={"static-max": 1 << 30},
        platform={"acpi": "1"},
        bios_strings={},
        xenstore_data={"vm-data/hostname": "web"},
        has_vendor_device=False,
    )


def await_advert(host: XenHost, lab: XenLab, domid: int) -> None:
    with connect(str(lab.socket), timeout=20) as store:
        path = f"/local/domain/{domid}/{ADVERT}"
        store.watch(path, "advert")
        while store.next_event(200):
            try:
                store.read(path)
                return
            except StoreError:
                continue
    raise AssertionError("no advert")


def test_a_host_without_guests(lab: XenLab) -> None:
    assert set(lab.host.list()) == {0}
    assert lab.host.run(["pidof", "oxenstored"]).status == 0
    assert lab.host.store.read("/local/domain/0/name") == b"Domain-0"
    # Nothing but this machine's loopback is reached from within.
    assert lab.host.run(["nc", "-w", "3", "10.0.2.2", "22"]).status != 0


def test_the_plugin_runs_as_under_xapi(lab: XenLab) -> None:
    assert "xenward" in lab.host.plugin_names()
    document = encode_call("status", "OpaqueRef:session", {})
    done = lab.host.plugin("xenward", document, 60, {"PATH": PLUGIN_PATH})
    answer = decode_response(done.output)
    assert (done.status, done.errors) == (0, b"")
    assert isinstance(answer, dict)
    assert answer["Status"] == "Success"


@dataclass
class Resident:
    """A VM that the tests share, and the domain that it has at the moment."""

    vm: Domain
    domid: int


@pytest.fixture(scope="module")
def resident(lab: XenLab) -> Resident:
    vm = domain()
    return Resident(vm, lab.host.create(vm, paused=True))


def life(lab: XenLab, domid: int) -> str:
    """What is another one after each boot of the kernel, and after each start of the agent."""
    return lab.host.guest_run(domid, "cat /proc/sys/kernel/random/boot_id /run/agent.pid")


def assert_laid_out(lab: XenLab, domid: int) -> None:
    """xapi's nodes are there, and writable where they are the guest's."""
    path, store = f"/local/domain/{domid}", lab.host.store
    assert store.read(f"{path}/name") == b"a VM"
    assert store.read(f"{path}/vm-data/hostname") == b"web"
    assert store.get_permissions(path) == ["n0", f"r{domid}"]
    for name in GUEST_DIRECTORIES:
        assert store.get_permissions(f"{path}/{name}")[0] == f"n{domid}", name


def test_a_guest_lives(lab: XenLab, resident: Resident) -> None:
    host, domid = lab.host, resident.domid
    assert host.list()[domid] == "--p---"
    assert_laid_out(lab, domid)
    host.unpause(domid)
    await_advert(host, lab, domid)
    with attached(lab.directory) as elsewhere:
        assert elsewhere.guest_run(domid, "cat /sys/hypervisor/uuid").strip() == resident.vm.uuid
    with pytest.raises(LabError, match="ended with 3: said"):
        host.guest_run(domid, "echo said; exit 3")
    assert "the guest is up" in host.guest_log(resident.vm.uuid)
    host.pause(domid)
    assert "p" in host.list()[domid]
    with pytest.raises(LabError, match="console does not answer"):
        host.guest_run(domid, "true", timeout=0.5)
    host.unpause(domid)


def test_a_guest_is_suspended_and_resumed(lab: XenLab, resident: Resident) -> None:
    host, before = lab.host, life(lab, resident.domid)
    host.suspend(resident.domid, resident.vm.uuid)
    assert set(host.list()) == {0}
    assert host.store.directory("/local/domain") == ["0"]
    after = host.resume(resident.vm, paused=True)
    assert after > resident.domid
    resident.domid = after
    assert host.list()[after] == "--p---"
    assert_laid_out(lab, after)
    host.unpause(after)
    await_advert(host, lab, after)
    assert life(lab, after) == before
    # No image is left, so there is nothing that could be resumed twice.
    with pytest.raises(LabError, match="xl restore"):
        host.resume(resident.vm)
    assert set(host.list()) == {0, after}


def test_a_guest_moves_into_a_new_domain(lab: XenLab, resident: Resident) -> None:
    host, before = lab.host, life(lab, resident.domid)
    after = host.migrate(resident.domid, resident.vm)
    assert after > resident.domid
    resident.domid = after
    assert set(host.list()) == {0, after}
    assert sorted(host.store.directory("/local/domain")) == ["0", str(after)]
    assert_laid_out(lab, after)
    await_advert(host, lab, after)
    assert life(lab, after) == before


def test_a_guest_that_cannot_be_suspended_or_moved_goes_on(lab: XenLab, resident: Resident) -> None:
    host, vm, before = lab.host, resident.vm, life(lab, resident.domid)
    host.run(["umount", "/images"])
    host.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", "/images"])
    try:
        with pytest.raises(LabError, match="xl save"):
            host.suspend(resident.domid, vm.uuid)
        assert host.run(["ls", "/images"]).output == b""
    finally:
        host.run(["umount", "/images"])
        host.run(["mount", "-t", "ext4", "/dev/sdb", "/images"])
    host.run(["mv", f"/guests/{vm.uuid}/configuration", "/guests/elsewhere"])
    try:
        with pytest.raises(LabError, match="cannot be moved"):
            host.migrate(resident.domid, vm)
    finally:
        host.run(["mv", "/guests/elsewhere", f"/guests/{vm.uuid}/configuration"])
    assert set(host.list()) == {0, resident.domid}
    assert life(lab, resident.domid) == before


def test_a_guest_goes(lab: XenLab, resident: Resident) -> None:
    host, vm = lab.host, resident.vm
    assert host.shut_down(resident.domid, vm.uuid)
    assert set(host.list()) == {0}
    assert host.store.directory("/local/domain") == ["0"]
    host.forget(vm.uuid)
    assert vm.uuid not in host.run(["ls", "/guests", "/images"]).output.decode()


def test_a_domain_that_cannot_be_created_leaves_nothing(lab: XenLab) -> None:
    vm = domain()
    lab.host.run(["mv", "/lab/guest.cpio", "/lab/elsewhere"])
    try:
        with pytest.raises(LabError, match="xl create"):
            lab.host.create(vm)
    finally:
        lab.host.run(["mv", "/lab/elsewhere", "/lab/guest.cpio"])
    assert set(lab.host.list()) == {0}
    assert lab.host.store.directory("/local/domain") == ["0"]


def test_a_machine_that_dies_is_told_with_its_last_words(lab: XenLab) -> None:
    os.kill(lab.qemu_pid, signal.SIGKILL)
    with pytest.raises(LabError, match=r"(?s)QEMU ended with -9; the last lines.*dom0 is up"):
        lab.host.list()
    lab.stop()
    assert not lab.socket.exists()
