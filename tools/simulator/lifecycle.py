"""What happens to database, XenStore and guest when a VM changes its power state.

Every function expects the caller to hold the VM's turn and to have checked that the operation is allowed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import Any, Callable

from . import errors, memory, placement, power, storage, tasks, vdis
from .domain import Disk, Domain, Interface, disk_name, disk_position
from .hypervisor import UNBUILT
from .machine import Host
from .model import NULL_REF
from .state import Context, State
from .values import now

UPDATED = {"data/updated": "1"}
"""What xapi writes when a guest finds itself in a new domain, after a migration or a resumption."""


def operate(context: Context, vm: str, operation: str) -> contextlib.AbstractContextManager[dict[str, Any]]:
    """Take the VM's turn for an operation: waits for the one before, then checks that this one is allowed.

    Gives the VM's record. ApiError with the reason when the operation is not allowed.
    """
    # A handle that is unknown must not wait, nor leave a lock behind.
    context.database.record("VM", vm)
    return _turn(context, vm, operation)


@contextlib.contextmanager
def _turn(context: Context, vm: str, operation: str) -> Iterator[dict[str, Any]]:
    with context.state.turn(vm), _current(context, vm, operation) as record:
        yield record


@contextlib.contextmanager
def operate_at_once(context: Context, vm: str, operation: str) -> Iterator[dict[str, Any]]:
    """As operate(), but a VM that is busy is refused: ApiError OTHER_OPERATION_IN_PROGRESS."""
    record = context.database.record("VM", vm)
    turn = context.state.turn(vm)
    if not turn.acquire(blocking=False):
        task, other = next(iter(record["current_operations"].items()), (NULL_REF, operation))
        raise errors.ApiError("OTHER_OPERATION_IN_PROGRESS", "VM", vm, other, task)
    try:
        with _current(context, vm, operation) as record:
            yield record
    finally:
        turn.release()


@contextlib.contextmanager
def _current(context: Context, vm: str, operation: str) -> Iterator[dict[str, Any]]:
    database, task = context.database, tasks.current()
    task.check()
    record = power.assert_allowed(database, vm, operation)
    database.add_to_map("VM", vm, "current_operations", task.ref, operation)
    power.update_allowed_operations(database, vm)
    try:
        with task.cancellable():
            yield record
    finally:
        if database.exists("VM", vm):
            database.remove_from_map("VM", vm, "current_operations", task.ref)
            power.update_allowed_operations(database, vm)


def boot(state: State, vm: str, host: str | None, paused: bool) -> None:
    """Build a new domain for a VM that has none, and let its guest run.

    host: None for whichever placement.py chooses. ApiError HOST_NOT_ENOUGH_FREE_MEMORY, NO_HOSTS_AVAILABLE,
    HOST_OFFLINE, or INTERNAL_ERROR when the store refuses a node. After any error the VM is as it was before.
    """
    database = state.database
    record = database.record("VM", vm)
    for vbd in record["VBDs"]:
        storage.assert_attachable(database, vbd)
    with placement.reserved(database, vm, host) as chosen:
        machine = state.live_host(chosen)
        starts = machine.starts
        domid = _built(
            lambda: machine.hypervisor.create(_describe(state, record, record["VIFs"], record["VBDs"]), paused)
        )
        for vif in record["VIFs"]:
            database.set("VIF", vif, currently_attached=True)
        for vbd in record["VBDs"]:
            position = disk_position(database.get("VBD", vbd, "userdevice"))
            database.set("VBD", vbd, currently_attached=True, device=disk_name(position))
        if database.exists("VM_guest_metrics", record["guest_metrics"]):
            database.destroy("VM_guest_metrics", record["guest_metrics"])
        kind = _domain_type(record)
        database.set(
            "VM_metrics",
            record["metrics"],
            start_time=now(),
            VCPUs_number=record["VCPUs_at_startup"],
            current_domain_type=kind,
            hvm=kind == "hvm",
        )
        # The format is xapi's own affair; only VM.get_boot_record reads it.
        database.set("VM", vm, last_booted_record=json.dumps({**record, "last_booted_record": ""}))
        _record_domain(state, vm, machine, starts, domid, "Paused" if paused else "Running")


def _built(build: Callable[[], int]) -> int:
    """The domid of a new domain. ApiError INTERNAL_ERROR when it could not be built."""
    try:
        return build()
    except Exception as error:
        raise errors.internal_error(f"Xenops_interface.Xenopsd_error([S(Internal_error);S({error})])") from error


def _describe(state: State, record: dict[str, Any], vifs: list[str], vbds: list[str]) -> Domain:
    kind = _domain_type(record)
    sizes = {
        "static-max": record["memory_static_max"],
        "target": record["memory_dynamic_max"],
        "initial-target": record["memory_dynamic_max"],
        "dynamic-min": record["memory_dynamic_min"],
        "dynamic-max": record["memory_dynamic_max"],
    }
    return Domain(
        domid=UNBUILT,
        uuid=record["uuid"],
        name=record["name_label"],
        kind=kind.replace("_", "-"),
        memory=sizes,
        platform=record["platform"],
        bios_strings=record["bios_strings"],
        xenstore_data=record["xenstore_data"],
        has_vendor_device=record["has_vendor_device"],
        interfaces=[interface(state, vif) for vif in vifs],
        disks=[disk(state, vbd) for vbd in vbds],
    )


def _domain_type(record: dict[str, Any]) -> str:
    if record["domain_type"] != "unspecified":
        return str(record["domain_type"])
    return "hvm" if record["HVM_boot_policy"] else "pv"


def generated_mac(seed: str, device: str) -> str:
    """The address of an interface that was given none: the same VM and device always have the same one."""
    digest = hashlib.sha256(f"{seed}/{device}".encode()).digest()[:6]
    # Locally administered (bit 1), not multicast (bit 0).
    return bytes([digest[0] & 0xFC | 0x02, *digest[1:]]).hex(":")


def interface(state: State, vif: str) -> Interface:
    """A VIF as its domain sees it."""
    record = state.database.record("VIF", vif)
    bridge = state.database.get("network", record["network"], "bridge")
    return Interface(record["device"], record["MAC"], str(record["MTU"]), bridge)


def disk(state: State, vbd: str) -> Disk:
    """A VBD as its domain sees it."""
    record = state.database.record("VBD", vbd)
    return Disk(disk_position(record["userdevice"]), record["type"], record["mode"])


def _attached(state: State, record: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The VIFs and VBDs that a VM's domain has, or had when it was suspended."""
    database = state.database
    vifs = [vif for vif in record["VIFs"] if database.get("VIF", vif, "currently_attached")]
    return vifs, [vbd for vbd in record["VBDs"] if database.get("VBD", vbd, "currently_attached")]


def _record_domain(state: State, vm: str, host: Host, starts: int, domid: int, power_state: str) -> None:
    """Write down that a VM is now in a domain that was built for it, when its host had this number of starts.

    ApiError INTERNAL_ERROR, and the VM is halted as all others there, when the host has lost its power since.
    """
    try:
        _enter(state, vm, host, domid, power_state)
    except Exception:
        if host.is_up and host.starts == starts:
            raise
    else:
        if host.starts == starts:
            return
    record_halted(state, vm)
    raise errors.internal_error(f"Xenops_interface.Xenopsd_error([S(Does_not_exist);[S(domain);S({domid})]])")


def _enter(state: State, vm: str, host: Host, domid: int, power_state: str) -> None:
    database = state.database
    host.guests.follow(domid, vm)
    record = database.record("VM", vm)
    guest_metrics = record["guest_metrics"]
    if not database.exists("VM_guest_metrics", guest_metrics):
        # xapi makes this object at once, with or without an agent.
        guest_metrics = database.create("VM_guest_metrics", last_updated=now(), live=True)
    database.set("VM_metrics", record["metrics"], last_updated=now(), memory_actual=record["memory_dynamic_max"])
    address = database.get("host", host.ref, "address")
    for console in record["consoles"] or [database.create("console", VM=vm, protocol="rfb")]:
        uuid = database.get("console", console, "uuid")
        database.set("console", console, location=f"https://{address}/console?uuid={uuid}")
    database.set(
        "VM",
        vm,
        power_state=power_state,
        domid=domid,
        resident_on=host.ref,
        scheduled_to_be_resident_on=NULL_REF,
        guest_metrics=guest_metrics,
        memory_overhead=memory.vm_overhead(record),
        memory_target=record["memory_dynamic_max"],
    )
    host.guests.refresh(domid)
    power.update_allowed_operations(database, vm)
    vdis.update_disks_of(state, vm)


def halt(state: State, vm: str, clean: bool) -> None:
    """End a VM's domain, or drop what a suspended one has kept.

    clean: whether the guest shuts down in its own way, or loses its power in the middle of what it does.

    ApiError TASK_CANCELLED when the guest was to shut down and somebody has changed his mind, HOST_OFFLINE when the
    host has no power where it runs.
    """
    record = state.database.record("VM", vm)
    if clean:
        # The guest has been asked, but may still go on.
        tasks.current().check()
    host = state.host_of(vm)
    if record["domid"] >= 0:
        host.guests.forget(record["domid"])
        host.hypervisor.destroy(record["domid"], record["uuid"], clean)
    else:
        host.hypervisor.discard(record["uuid"])
    record_halted(state, vm)


def reset(state: State, vm: str) -> None:
    """Make a VM halted, whatever became of its domain and of its host."""
    resident = state.hosts.get(state.database.get("VM", vm, "resident_on"))
    if resident is None or resident.is_up:
        halt(state, vm, clean=False)
    else:
        record_halted(state, vm)


def record_halted(state: State, vm: str) -> None:
    """Write down that a VM has no domain any more, and no memory that was kept."""
    database = state.database
    record = database.record("VM", vm)
    for vif in record["VIFs"]:
        database.set("VIF", vif, currently_attached=False)
    for vbd in record["VBDs"]:
        database.set("VBD", vbd, currently_attached=False)
    drop_image(state, record)
    _record_gone(state, vm, "Halted")


def _record_gone(state: State, vm: str, power_state: str) -> None:
    database = state.database
    for console in database.get("VM", vm, "consoles"):
        database.destroy("console", console)
    database.set("VM", vm, power_state=power_state, domid=-1, resident_on=NULL_REF, memory_overhead=0)
    power.update_allowed_operations(database, vm)
    vdis.update_disks_of(state, vm)


def drop_image(state: State, record: dict[str, Any]) -> None:
    """Remove the memory image of a VM, whose record this is, if it has one. One that is out of reach is left."""
    if state.database.exists("VDI", record["suspend_VDI"]):
        with contextlib.suppress(errors.ApiError):
            vdis.destroy(state, record["suspend_VDI"])


def suspend(state: State, vm: str) -> None:
    """End a VM's domain and keep its memory. Its devices stay: nothing else may attach its disks.

    The memory is the guest's frozen processes; a VDI of type `suspend` takes the room that it has on a real host.
    ApiError VM_NO_SUSPEND_SR when there is no SR for that, and as of vdis.create().
    """
    database = state.database
    record = database.record("VM", vm)
    candidates = (record["suspend_SR"], database.get("pool", state.pool, "suspend_image_SR"))
    sr = next((ref for ref in candidates if database.exists("SR", ref)), None)
    if sr is None:
        raise errors.ApiError("VM_NO_SUSPEND_SR", vm)
    host = state.host_of(vm)
    image = vdis.create(state, sr, record["memory_static_max"], name_label="Suspend image", type="suspend")
    try:
        host.hypervisor.domains.ask(record["domid"], "suspend")
        host.guests.refresh(record["domid"])
        host.guests.forget(record["domid"])
        host.hypervisor.suspend(record["domid"], record["uuid"])
    except BaseException:
        vdis.destroy(state, image)
        raise
    database.set("VM", vm, suspend_VDI=image)
    _record_gone(state, vm, "Suspended")


def resume(state: State, vm: str, host: str | None, paused: bool) -> None:
    """Bring a suspended VM back, in a new domain. host, errors: as of boot()."""
    database = state.database
    record = database.record("VM", vm)
    with placement.reserved(database, vm, host) as chosen:
        machine = state.live_host(chosen)
        starts = machine.starts
        domid = _built(lambda: machine.hypervisor.resume(_describe(state, record, *_attached(state, record)), paused))
        _record_domain(state, vm, machine, starts, domid, "Paused" if paused else "Running")
    machine.hypervisor.domains.tell(domid, UPDATED)
    drop_image(state, record)
    database.set("VM", vm, suspend_VDI=NULL_REF)


def arrive(state: State, vm: str, host: str) -> None:
    """Build a domain, paused, for a guest that ran in another pool and is about to go on here. Errors: as of boot()."""
    database = state.database
    with placement.reserved(database, vm, host) as chosen:
        machine, record = state.live_host(chosen), database.record("VM", vm)
        starts = machine.starts
        domain = _describe(state, record, *_attached(state, record))
        domid = _built(lambda: machine.hypervisor.create(domain, paused=True))
        _record_domain(state, vm, machine, starts, domid, "Paused")


def remove(state: State, vm: str) -> None:
    """Remove a VM that has no domain, with its devices, its metrics, its memory image and its guest; never its VDIs."""
    database = state.database
    record = database.record("VM", vm)
    for cls, field in (("VBD", "VBDs"), ("VIF", "VIFs"), ("console", "consoles")):
        for ref in record[field]:
            database.destroy(cls, ref)
    for cls, field in (("VM_metrics", "metrics"), ("VM_guest_metrics", "guest_metrics")):
        if database.exists(cls, record[field]):
            database.destroy(cls, record[field])
    drop_image(state, record)
    hypervisor = state.hypervisor_of(vm)
    database.destroy("VM", vm)
    hypervisor.forget(record["uuid"])


def migrate(state: State, vm: str, host: str) -> None:
    """Move a running VM's guest into a new domain, on another host or on its own.

    ApiError VM_MIGRATE_FAILED, HOST_OFFLINE, HOST_NOT_ENOUGH_FREE_MEMORY: the VM goes on where it was.
    """
    database = state.database
    source, destination = state.host_of(vm), state.live_host(host)
    starts = destination.starts
    with contextlib.ExitStack() as stack:
        if source is not destination:
            stack.enter_context(placement.reserved(database, vm, host))
        domid = database.get("VM", vm, "domid")
        # What the guest has written until now goes with it.
        source.guests.refresh(domid)
        source.guests.forget(domid)
        record = database.record("VM", vm)
        domain = _describe(state, record, *_attached(state, record))
        try:
            there = source.hypervisor.migrate(domid, record["uuid"], domain, destination.hypervisor)
        except Exception as error:
            source.guests.follow(domid, vm)
            raise errors.ApiError("VM_MIGRATE_FAILED", vm, source.ref, host, type(error).__name__) from error
        _record_domain(state, vm, destination, starts, there, "Running")
    destination.hypervisor.domains.tell(there, UPDATED)


def pause(state: State, vm: str) -> None:
    """Freeze the guest."""
    record = state.database.record("VM", vm)
    state.hypervisor_of(vm).pause(record["domid"], record["uuid"])
    state.database.set("VM", vm, power_state="Paused")
    power.update_allowed_operations(state.database, vm)


def unpause(state: State, vm: str) -> None:
    """Let a frozen guest go on, or one begin that was started paused."""
    record = state.database.record("VM", vm)
    state.hypervisor_of(vm).unpause(record["domid"], record["uuid"])
    state.database.set("VM", vm, power_state="Running")
    power.update_allowed_operations(state.database, vm)
