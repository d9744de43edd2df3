"""Whether a host can run a VM, and which one does. Source: ocaml/xapi/xapi_vm_helpers.ml, with its order of checks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from . import errors, memory
from .database import Database, Row
from .model import NULL_REF


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
        assert_sees_network(database, vm, host, database.get("VIF", vif, "network"))
    assert_enough_processors(database, vm, host)
    if with_memory:
        assert_enough_memory(database, vm, host)


def assert_enough_memory(database: Database, vm: str, host: str) -> None:
    """ApiError HOST_NOT_ENOUGH_FREE_MEMORY when the host has too little for the VM."""
    assert_memory(database, memory.vm_need(database.snapshot("VM", vm)), host)


def assert_memory(database: Database, needed: int, host: str) -> None:
    """ApiError HOST_NOT_ENOUGH_FREE_MEMORY when the host has less than that, in bytes."""
    available = memory.host_free(database, host)
    if needed > available:
        raise errors.ApiError("HOST_NOT_ENOUGH_FREE_MEMORY", str(needed), str(available))


def possible_hosts(database: Database, vm: str, with_memory: bool = True) -> list[str]:
    """The hosts that can run a VM now."""
    found = []
    for host in database.refs("host"):
        with contextlib.suppress(errors.ApiError):
            assert_can_boot(database, vm, host, with_memory)
            found.append(host)
    return found


def choose(database: Database, vm: str) -> str:
    """The host that a VM starts on: the one of its `affinity` if that can run it, else the one with most free memory.

    When none has the memory, one that could run it otherwise: the start itself then fails and says so. ApiError
    NO_HOSTS_AVAILABLE when none can run it at all.
    """
    candidates = possible_hosts(database, vm) or possible_hosts(database, vm, with_memory=False)
    if not candidates:
        raise errors.ApiError("NO_HOSTS_AVAILABLE")
    affinity: str = database.get("VM", vm, "affinity")
    return affinity if affinity in candidates else max(candidates, key=lambda host: memory.host_free(database, host))


@contextlib.contextmanager
def reserved(database: Database, vm: str, host: str | None) -> Iterator[str]:
    """While it is entered, a host keeps the memory that a VM needs which is not there yet; gives that host.

    host: None for whichever choose() gives. ApiError HOST_NOT_ENOUGH_FREE_MEMORY, or as of choose().
    """
    with database.exclusively():
        chosen = host or choose(database, vm)
        assert_enough_memory(database, vm, chosen)
        database.set("VM", vm, scheduled_to_be_resident_on=chosen)
    try:
        yield chosen
    finally:
        database.set("VM", vm, scheduled_to_be_resident_on=NULL_REF)


def assert_sees_storage(database: Database, vm: str, host: str) -> None:
    """ApiError VM_REQUIRES_SR when a disk's SR is not plugged into the host."""
    for vbd in database.get("VM", vm, "VBDs"):
        vdi = database.get("VBD", vbd, "VDI")
        if not database.exists("VDI", vdi):
            continue
        sr = database.get("VDI", vdi, "SR")
        if not sees(database, host, sr):
            raise errors.ApiError("VM_REQUIRES_SR", vm, sr)


def sees(database: Database, host: str, sr: str) -> bool:
    """Whether a host is connected with a repository."""
    pbds = [database.snapshot("PBD", pbd) for pbd in database.get("SR", sr, "PBDs")]
    return any(pbd["host"] == host and pbd["currently_attached"] for pbd in pbds)


def assert_sees_network(database: Database, vm: str, host: str, network: str) -> None:
    """ApiError VM_REQUIRES_NETWORK when a network of a VM does not reach the host."""
    pifs = database.get("network", network, "PIFs") if database.exists("network", network) else []
    # A network without any PIF is internal to whichever host its VMs run on.
    if pifs and all(database.get("PIF", pif, "host") != host for pif in pifs):
        raise errors.ApiError("VM_REQUIRES_NETWORK", vm, network)


def assert_enough_processors(database: Database, vm: str, host: str) -> None:
    """ApiError HOST_NOT_ENOUGH_PCPUS when the VM has more vCPUs than the host has processors."""
    assert_processors(database, database.snapshot("VM", vm), host)


def assert_processors(database: Database, record: Row, host: str) -> None:
    """The same for a VM that has such a record."""
    processors = int(database.get("host", host, "cpu_info")["cpu_count"])
    if record["VCPUs_max"] > processors and record["platform"].get("vcpu-unrestricted") != "true":
        raise errors.ApiError("HOST_NOT_ENOUGH_PCPUS", str(record["VCPUs_max"]), str(processors))
