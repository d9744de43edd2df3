"""What happens to database, XenStore and guest when a VM changes its power state.

Every function expects the caller to hold the VM's turn and to have checked that the operation is allowed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from . import errors, memory, power, storage
from .domain import Disk, Domain, Interface, disk_name, disk_position
from .model import NULL_REF
from .state import State
from .values import now


def operate(state: State, vm: str, operation: str) -> contextlib.AbstractContextManager[dict[str, Any]]:
    """Take the VM's turn for an operation: waits for the one before, then checks that this one is allowed.

    Gives the VM's record. ApiError with the reason when the operation is not allowed.
    """
    # A handle that is unknown must not wait, nor leave a lock behind.
    state.database.record("VM", vm)
    return _turn(state, vm, operation)


@contextlib.contextmanager
def _turn(state: State, vm: str, operation: str) -> Iterator[dict[str, Any]]:
    with state.turn(vm):
        yield power.assert_allowed(state.database, vm, operation)


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
    domid = next(state.domids)
    introduced = False
    try:
        state.domains.build(_describe(state, record, domid))
        socket = state.xenstore.introduce(domid)
        introduced = True
        state.guest(record["uuid"]).start(socket, paused)
    except Exception as error:
        _remove_domain(state, domid, record["uuid"], introduced)
        raise errors.internal_error(f"Xenops_interface.Xenopsd_error([S(Internal_error);S({error})])") from error
    _record_boot(state, vm, record, domid, "Paused" if paused else "Running")


def _describe(state: State, record: dict[str, Any], domid: int) -> Domain:
    kind = _domain_type(record)
    sizes = {
        "static-max": record["memory_static_max"],
        "target": record["memory_dynamic_max"],
        "initial-target": record["memory_dynamic_max"],
        "dynamic-min": record["memory_dynamic_min"],
        "dynamic-max": record["memory_dynamic_max"],
    }
    return Domain(
        domid=domid,
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
    # xapi makes this object at once, with or without an agent: back ends in state 4 are proof of drivers.
    guest_metrics = database.create(
        "VM_guest_metrics",
        PV_drivers_detected=True,
        PV_drivers_up_to_date=True,
        last_updated=now(),
        live=True,
        other={"feature-poweroff": "1", "feature-reboot": "1", "feature-suspend": "1"},
    )
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
    )
    power.update_allowed_operations(database, vm)


def halt(state: State, vm: str, clean: bool, power_state: str = "Halted") -> None:
    """End a VM's domain, if it has one.

    clean: whether the guest shuts down in its own way, or loses its power in the middle of what it does.
    power_state: what the VM is afterwards.
    """
    database = state.database
    record = database.record("VM", vm)
    if record["domid"] >= 0:
        guest = state.guest(record["uuid"])
        if clean:
            guest.shut_down()
        else:
            guest.cut_power()
        _remove_domain(state, record["domid"], record["uuid"], introduced=True)
    for console in record["consoles"]:
        database.destroy("console", console)
    for vif in record["VIFs"]:
        database.set("VIF", vif, currently_attached=False)
    for vbd in record["VBDs"]:
        # A suspended VM keeps its disks: nothing else may attach them.
        database.set("VBD", vbd, currently_attached=power_state == "Suspended")
    if power_state == "Halted":
        _drop_image(state, record)
    database.set("VM", vm, power_state=power_state, domid=-1, resident_on=NULL_REF, memory_overhead=0)
    power.update_allowed_operations(database, vm)


def _remove_domain(state: State, domid: int, uuid: str, introduced: bool) -> None:
    # Nodes first: when the domain is gone, nobody may find a trace that claims it lives.
    state.domains.remove(domid, uuid)
    if introduced:
        state.xenstore.release(domid)


def _drop_image(state: State, record: dict[str, Any]) -> None:
    image = record["suspend_VDI"]
    if state.database.exists("VDI", image):
        state.database.destroy("VDI", image)


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
    image = database.create(
        "VDI",
        SR=sr,
        name_label="Suspend image",
        type="suspend",
        virtual_size=record["memory_static_max"],
        managed=True,
    )
    database.set("VDI", image, location=database.get("VDI", image, "uuid"))
    state.domains.ask(record["domid"], "suspend")
    database.set("VM", vm, suspend_VDI=image)
    halt(state, vm, clean=True, power_state="Suspended")


def resume(state: State, vm: str, paused: bool) -> None:
    """Bring a suspended VM back, in a new domain. Errors as of boot()."""
    record = state.database.record("VM", vm)
    boot(state, vm, paused)
    _drop_image(state, record)
    state.database.set("VM", vm, suspend_VDI=NULL_REF)


def pause(state: State, vm: str) -> None:
    """Freeze the guest."""
    state.guest(state.database.get("VM", vm, "uuid")).pause()
    state.database.set("VM", vm, power_state="Paused")
    power.update_allowed_operations(state.database, vm)


def unpause(state: State, vm: str) -> None:
    """Let a frozen guest go on, or one begin that was started paused."""
    state.guest(state.database.get("VM", vm, "uuid")).unpause()
    state.database.set("VM", vm, power_state="Running")
    power.update_allowed_operations(state.database, vm)
