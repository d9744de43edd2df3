"""Disks: VDIs in the pool's default SR, and the VBDs that attach them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from agent_protocol.outcomes import Unsuccessful

from ..driver import Instance
from ..errors import XenServerAnswerLost, XenServerFailure
from .session import XenServer

GIB = 1024**3

_NULL = "OpaqueRef:NULL"


def create_root(server: XenServer, vm: str, instance: Instance) -> None:
    """An empty disk of the instance's root size, attached to the VM (a ref) as its first, bootable one."""
    vdi = _create(server, instance)
    try:
        server.call(
            "VBD.create",
            {
                "VM": vm,
                "VDI": vdi,
                "userdevice": "0",
                "bootable": True,
                "mode": "RW",
                "type": "Disk",
                "unpluggable": False,
                "empty": False,
                "other_config": {},
                "qos_algorithm_type": "",
                "qos_algorithm_params": {},
            },
        )
    except BaseException:
        _try_to_destroy(server, vdi)
        raise


def _create(server: XenServer, instance: Instance) -> str:
    name = f"instance-{instance.uuid} root"
    record = {
        "name_label": name,
        "name_description": instance.display_name,
        "SR": _default_repository(server),
        "virtual_size": str(instance.root_gb * GIB),
        "type": "system",
        "sharable": False,
        "read_only": False,
        "other_config": {},
    }
    try:
        return str(server.call("VDI.create", record))
    except XenServerAnswerLost:
        # It may be there, and no VM leads to it. Nobody else can have one of this name yet.
        with suppress(Unsuccessful):
            for vdi in server.call("VDI.get_by_name_label", name):
                _try_to_destroy(server, vdi)
        raise


def _try_to_destroy(server: XenServer, vdi: str) -> None:
    # The error that led here is the one to report.
    with suppress(Unsuccessful):
        server.call("VDI.destroy", vdi)


def _default_repository(server: XenServer) -> str:
    pool = server.call("pool.get_all")[0]
    repository = str(server.call("pool.get_default_SR", pool))
    if repository == _NULL:
        raise XenServerFailure(["DEFAULT_SR_NOT_FOUND"])
    return repository


def of_vm(server: XenServer, vbds: Iterable[str]) -> list[str]:
    """The VDIs behind a VM's VBDs, without CD drives, whose images belong to others."""
    records = [server.call("VBD.get_record", vbd) for vbd in vbds]
    return [str(record["VDI"]) for record in records if record["type"] == "Disk" and record["VDI"] != _NULL]
