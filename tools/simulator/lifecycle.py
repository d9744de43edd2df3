"""What happens to database, XenStore and guest when a VM changes its power state.

Every function expects the caller to hold the VM's turn and to have checked that the operation is allowed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from . import errors, memory, power, storage, tasks, vdis
from .domain import Disk, Domain, Interface, disk_name, disk_position
from .hypervisor import UNBUILT
from .model import NULL_REF
from .state import Context, State
from .values import now


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


def boot(state: State, vm: str, paused: bool) -> None:
    """Build a new domain for a VM that has none, and let its guest run.

    ApiError HOST_NOT_ENOUGH_FREE_MEMORY, or INTERNAL_ERROR when the store refuses a node. After any error the VM is as
    it was before.
    """
    database = state.database
    record = database.record("VM", vm)
    needed, available = memory.vm_need(record), memory.host_free(database, state.host)
    if needed > available:
        raise errors.ApiError("HOST_NOT_ENOUGH_FREE_MEMORY", str(needed), str(available))
    for vbd in record["VBDs"]:
        storage.assert_attachable(database, vbd)
    try:
        domid = state.hypervisor.create(_describe(state, record), paused)
    except Exception as error:
        raise errors.internal_error(f"Xenops_interface.Xenopsd_error([S(Internal_error);S({error})])") from error
    _record_boot(state, vm, record, domid, "Paused" if paused else "Running")


def _describe(state: State, record: dict[str, Any]) -> Domain:
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
        interfaces=[interface(state, vif) for vif in record["VIFs"]],
        disks=[disk(state, vbd) for vbd in record["VBDs"]],
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


def _record_boot(state: State, vm: str, record: dict[str, Any], domid: int, power_state: str) -> None:
    database = state.database
    if database.exists("VM_guest_metrics", record["guest_metrics"]):
        database.destroy("VM_guest_metrics", record["guest_metrics"])
    state.guests.follow(domid, vm)
    # xapi makes this object at once, with or without an agent.
    guest_metrics = database.create("VM_guest_metrics", last_updated=now(), live=True)
    kind = _domain_type(record)
    database.set(
        "VM_metrics",
        record["metrics"],
        start_time=now(),
        last_updated=now(),
        memory_actual=record["memory_dynamic_max"],
        VCPUs_number=record["VCPUs_at_startup"],
        current_domain_type=kind,
        hvm=kind == "hvm",
    )
    address = database.get("host", state.host, "address")
    console = database.create("console", VM=vm, protocol="rfb")
    console_uuid = database.get("console", console, "uuid")
    database.set("console", console, location=f"https://{address}/console?uuid={console_uuid}")
    for vif in record["VIFs"]:
        database.set("VIF", vif, currently_attached=True)
    for vbd in record["VBDs"]:
        position = disk_position(database.get("VBD", vbd, "userdevice"))
        database.set("VBD", vbd, currently_attached=True, device=disk_name(position))
    database.set(
        "VM",
        vm,
        power_state=power_state,
        domid=domid,
        resident_on=state.host,
        guest_metrics=guest_metrics,
        memory_overhead=memory.vm_overhead(record),
        memory_target=record["memory_dynamic_max"],
        # The format is xapi's own affair; only VM.get_boot_record reads it.
        last_booted_record=json.dumps({**record, "last_booted_record": ""}),
    )
    state.guests.refresh(domid)
    power.update_allowed_operations(database, vm)
    vdis.update_disks_of(state, vm)


def halt(state: State, vm: str, clean: bool, power_state: str = "Halted") -> None:
    """End a VM's domain, if it has one.

    clean: whether the guest shuts down in its own way, or loses its power in the middle of what it does.
    power_state: what the VM is afterwards.

    ApiError TASK_CANCELLED when the guest was to shut down and somebody has changed his mind.
    """
    database = state.database
    record = database.record("VM", vm)
    if clean and power_state == "Halted":
        # The guest has been asked, but may still go on.
        tasks.current().check()
    if record["domid"] >= 0:
        state.guests.forget(record["domid"])
        state.hypervisor.destroy(record["domid"], record["uuid"], clean)
    for console in record["consoles"]:
        database.destroy("console", console)
    for vif in record["VIFs"]:
        database.set("VIF", vif, currently_attached=False)
    for vbd in record["VBDs"]:
        # A suspended VM keeps its disks: nothing else may attach them.
        database.set("VBD", vbd, currently_attached=power_state == "Suspended")
    if power_state == "Halted":
        drop_image(state, record)
    database.set("VM", vm, power_state=power_state, domid=-1, resident_on=NULL_REF, memory_overhead=0)
    power.update_allowed_operations(database, vm)
    vdis.update_disks_of(state, vm)


def drop_image(state: State, record: dict[str, Any]) -> None:
    """Remove the memory image of a VM, whose record this is, if it has one. One that is out of reach is left."""
    if state.database.exists("VDI", record["suspend_VDI"]):
        with contextlib.suppress(errors.ApiError):
            vdis.destroy(state, record["suspend_VDI"])


def suspend(state: State, vm: str) -> None:
    """End a VM's domain, its memory kept in a VDI of type `suspend`.

    The guest's processes cannot be kept so: they are ended, and begin anew at the resumption. ApiError
    VM_NO_SUSPEND_SR when there is no SR for the image.
    """
    database = state.database
    record = database.record("VM", vm)
    candidates = (record["suspend_SR"], database.get("pool", state.pool, "suspend_image_SR"))
    sr = next((ref for ref in candidates if database.exists("SR", ref)), None)
    if sr is None:
        raise errors.ApiError("VM_NO_SUSPEND_SR", vm)
    state.domains.ask(record["domid"], "suspend")
    image = vdis.create(state, sr, record["memory_static_max"], name_label="Suspend image", type="suspend")
    database.set("VM", vm, suspend_VDI=image)
    halt(state, vm, clean=True, power_state="Suspended")


def resume(state: State, vm: str, paused: bool) -> None:
    """Bring a suspended VM back, in a new domain. Errors as of boot()."""
    record = state.database.record("VM", vm)
    boot(state, vm, paused)
    drop_image(state, record)
    state.database.set("VM", vm, suspend_VDI=NULL_REF)


def pause(state: State, vm: str) -> None:
    """Freeze the guest."""
    record = state.database.record("VM", vm)
    state.hypervisor.pause(record["domid"], record["uuid"])
    state.database.set("VM", vm, power_state="Paused")
    power.update_allowed_operations(state.database, vm)


def unpause(state: State, vm: str) -> None:
    """Let a frozen guest go on, or one begin that was started paused."""
    record = state.database.record("VM", vm)
    state.hypervisor.unpause(record["domid"], record["uuid"])
    state.database.set("VM", vm, power_state="Running")
    power.update_allowed_operations(state.database, vm)
