"""Whether a host can run a VM. Source: ocaml/xapi/xapi_vm_helpers.ml, with its order of checks."""

from __future__ import annotations

from . import errors, memory
from .database import Database


def assert_usable(database: Database, host: str) -> None:
    """ApiError HOST_NOT_LIVE or HOST_DISABLED when nothing may be started on the host."""
    record = database.snapshot("host", host)
    if not database.get("host_metrics", record["metrics"], "live"):
        raise errors.ApiError("HOST_NOT_LIVE")
    if not record["enabled"]:
        raise errors.ApiError("HOST_DISABLED", host)


def assert_can_boot(database: Database, vm: str, host: str, with_memory: bool = True) -> None:
    """Nothing, or the ApiError that says why the host cannot run the VM now.

    with_memory: whether there must be memory for it, too.
    """
    record = database.record("VM", vm)
    assert_usable(database, host)
    assert_sees_storage(database, vm, host)
    for vif in record["VIFs"]:
        network = database.get("VIF", vif, "network")
        pifs = database.get("network", network, "PIFs") if database.exists("network", network) else []
        # A network without any PIF is internal to whichever host its VMs run on.
        if pifs and all(database.get("PIF", pif, "host") != host for pif in pifs):
            raise errors.ApiError("VM_REQUIRES_NETWORK", vm, network)
    assert_enough_processors(database, vm, host)
    if with_memory:
        needed, available = memory.vm_need(record), memory.host_free(database, host)
        if needed > available:
            raise errors.ApiError("HOST_NOT_ENOUGH_FREE_MEMORY", str(needed), str(available))


def assert_sees_storage(database: Database, vm: str, host: str) -> None:
    """ApiError VM_REQUIRES_SR when a disk's SR is not plugged into the host."""
    for vbd in database.get("VM", vm, "VBDs"):
        vdi = database.get("VBD", vbd, "VDI")
        if not database.exists("VDI", vdi):
            continue
        sr = database.get("VDI", vdi, "SR")
        pbds = [database.snapshot("PBD", pbd) for pbd in database.get("SR", sr, "PBDs")]
        if not any(pbd["host"] == host and pbd["currently_attached"] for pbd in pbds):
            raise errors.ApiError("VM_REQUIRES_SR", vm, sr)


def assert_enough_processors(database: Database, vm: str, host: str) -> None:
    """ApiError HOST_NOT_ENOUGH_PCPUS when the VM has more vCPUs than the host has processors."""
    record = database.record("VM", vm)
    processors = int(database.get("host", host, "cpu_info")["cpu_count"])
    if record["VCPUs_max"] > processors and record["platform"].get("vcpu-unrestricted") != "true":
        raise errors.ApiError("HOST_NOT_ENOUGH_PCPUS", str(record["VCPUs_max"]), str(processors))
