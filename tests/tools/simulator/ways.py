"""What the tests of VMs share that go to another pool."""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from agent_protocol.xenstore import connect

from .pools import Pool
from .support import MIB, NULL, Vm, until

__all__ = [
    "CONTENT",
    "UNREACHABLE",
    "Vm",
    "Way",
    "content",
    "digest",
    "empty",
    "filled",
    "nothing_left",
    "runs_here",
    "status",
]

CONTENT = os.urandom(MIB) + bytes(MIB) + os.urandom(2 * MIB + 5)
"""What the disk begins with."""

UNREACHABLE = ["VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED"]


def transfer(pool: Pool, method: str, path: str, vdi: str, body: bytes | None = None) -> bytes:
    parts = urlsplit(pool.simulator.plain_url)
    task = pool.api.task.create(path, "")
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    query = urlencode({"session_id": pool.session.handle, "vdi": vdi, "format": "raw", "task_id": task})
    connection.request(method, f"/{path}?{query}", body=body)
    response = connection.getresponse()
    found = response.read()
    if response.status == 302:
        address = urlsplit(response.headers["location"])
        connection.close()
        connection = http.client.HTTPSConnection(address.netloc, timeout=20, context=ssl._create_unverified_context())
        connection.request(method, f"{address.path}?{address.query}", body=body)
        response = connection.getresponse()
        found = response.read()
    assert response.status == 200, pool.api.task.get_error_info(task)
    connection.close()
    until(lambda: pool.api.task.get_status(task) == "success")
    until(lambda: not any(pool.api.VBD.get_currently_attached(vbd) for vbd in pool.api.VDI.get_VBDs(vdi)))
    return found


def digest(pool: Pool, vdi: str) -> str:
    """SHA-256 of what a disk holds."""
    return hashlib.sha256(transfer(pool, "GET", "export_raw_vdi", vdi)).hexdigest()


def content(pool: Pool, vdi: str) -> str:
    """The digest that a disk must have that holds CONTENT."""
    return hashlib.sha256(CONTENT.ljust(int(pool.api.VDI.get_virtual_size(vdi)), b"\0")).hexdigest()


def filled(pool: Pool) -> Vm:
    """A halted VM with a disk that holds CONTENT, and an interface."""
    vm = pool.make()
    transfer(pool, "PUT", "import_raw_vdi", pool.disk(vm, pool.shared), CONTENT)
    pool.interface(vm)
    return vm


def empty(pool: Pool) -> None:
    """Remove the VMs of a test, with their disks."""
    for ref in pool.api.VM.get_by_name_label("test"):
        disks = [pool.api.VBD.get_VDI(vbd) for vbd in pool.api.VM.get_VBDs(ref)]
        Vm(pool.session, ref).destroy()
        for vdi in disks:
            if vdi != NULL:
                pool.api.VDI.destroy(vdi)


def nothing_left(pool: Pool) -> None:
    """But for the sessions that migrate_receive makes, which end by themselves."""
    until(lambda: {it.cls for it in pool.simulator.control.leftovers()} <= {"session"})


class Way:
    """How a VM goes to the other pool: arguments of VM.migrate_send."""

    def __init__(self, here: Pool, there: Pool, vm: Vm, host: int = 1) -> None:
        self.disk = here.api.VBD.get_VDI(vm.get_VBDs()[0])
        self.vif = vm.get_VIFs()[0]
        self.destination = there.receive(host)
        self.repository = there.local(host)
        self.network = there.api.network.get_all()[0]

    def arguments(self, **changes: Any) -> list[Any]:
        it = {
            "destination": self.destination,
            "live": True,
            "disks": {self.disk: self.repository},
            "networks": {self.vif: self.network},
            "options": {},
        }
        return list({**it, **changes}.values())


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def runs_here(here: Pool, there: Pool, vm: Vm, disk: str) -> None:
    """It goes on as if nothing had been, and nothing of it is in the other pool."""
    assert (vm.get_power_state(), vm.get_current_operations()) == ("Running", {})
    assert here.api.VBD.get_VDI(vm.get_VBDs()[0]) == disk
    assert here.api.VDI.get_current_operations(disk) == {}
    pid = here.simulator.agent_pid(vm.uuid)
    until(lambda: status(pid) == "S")
    with connect(str(here.simulator.xenstore_socket), timeout=5.0) as store:
        store.write(f"/local/domain/{vm.get_domid()}/vm-data/word", b"heard")
    until(lambda: vm.get_xenstore_data().get("vm-data/word") == "heard")
    assert not there.api.VM.get_by_name_label("test")
    nothing_left(there)
    assert not (there.simulator.state / "guests" / vm.uuid).exists()
