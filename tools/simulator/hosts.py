"""What happens to a pool when its hosts lose their power, come back, or change their roles.

Every function may be called by any thread. A host that has no power answers nothing at its ports, and nothing is left
of its guests but their disks; the database, which a real pool's coordinator keeps, stays as it was, so VMs are recorded
as running there until somebody says otherwise (host.declare_dead, VM.power_state_reset) or the host is back.
"""

from __future__ import annotations

import contextlib

from . import errors, host_power, lifecycle
from .machine import Host
from .model import NULL_REF
from .state import State
from .values import now


def crash_host(state: State, ref: str) -> None:
    """Cut a host's power. If it was the coordinator, the others find themselves without one: emergency mode.

    ApiError HANDLE_INVALID, HOST_OFFLINE when it has no power.
    """
    with state.changing_hosts:
        _switch_off(state, ref, clean=False)


def shut_down_host(state: State, ref: str) -> None:
    """Switch a host off in order, after its guests. Errors as of crash_host()."""
    with state.changing_hosts:
        _switch_off(state, ref, clean=True)


def _switch_off(state: State, ref: str, clean: bool) -> None:
    host = state.live_host(ref)
    host.stop(clean)
    _record_life(state, ref, live=False)
    if ref == state.coordinator:
        for other in state.hosts.values():
            other.is_lost = other is not host and other.is_up
        _forget_clients(state)


def start_host(state: State, ref: str) -> None:
    """Switch a host on that has no power. It comes back at its old ports, enabled, and none of its guests run.

    As the coordinator it takes the others back into its pool. ApiError HANDLE_INVALID, HOST_IS_LIVE when it has power;
    OSError when somebody else has its ports now: then it stays off.
    """
    with state.changing_hosts:
        state.database.record("host", ref)
        host = state.hosts[ref]
        if host.is_up:
            raise errors.ApiError("HOST_IS_LIVE", ref)
        try:
            host.start(state.database)
        except BaseException:
            host.stop()
            raise
        dom0 = state.database.get("host", ref, "control_domain")
        host.hypervisor.domains.build_control_domain(state.database.get("VM", dom0, "uuid"))
        halt_residents(state, ref)
        _record_life(state, ref, live=True)
        # Without its coordinator it is as lost as the others are.
        host.is_lost = ref != state.coordinator and not state.hosts[state.coordinator].is_up
        if ref == state.coordinator:
            for other in state.hosts.values():
                other.is_lost = False
        host.listen()


def change_coordinator(state: State, ref: str) -> None:
    """Make another host the coordinator. All sessions end, as they do when xapi restarts in its new role.

    Nothing happens when it is the coordinator. ApiError HANDLE_INVALID, HOST_OFFLINE when it has no power.
    """
    with state.changing_hosts:
        host = state.live_host(ref)
        if ref == state.coordinator:
            return
        state.coordinator = ref
        state.database.set("pool", state.pool, master=ref)
        host.is_lost = False
        _forget_clients(state)


def halt_residents(state: State, ref: str) -> list[str]:
    """Write down that no VM runs on a host any more; gives those that were recorded there."""
    database = state.database
    vms = [vm for vm in database.get("host", ref, "resident_VMs") if not database.get("VM", vm, "is_control_domain")]
    for vm in vms:
        lifecycle.record_halted(state, vm)
    return vms


def remove_host(state: State, ref: str) -> None:
    """Take a host out of the pool for good, with what only it could reach: its local storage and the disks there.

    Its power is off afterwards. ApiError HANDLE_INVALID.
    """
    database = state.database
    with state.changing_hosts:
        record = database.record("host", ref)
        host = state.hosts[ref]
        if host.is_up:
            host.stop()
        del state.hosts[ref]
        for pbd in record["PBDs"]:
            sr = database.get("PBD", pbd, "SR")
            database.destroy("PBD", pbd)
            if not database.get("SR", sr, "PBDs"):
                _remove_storage(state, sr)
        for pif in record["PIFs"]:
            metrics = database.get("PIF", pif, "metrics")
            database.destroy("PIF", pif)
            if database.exists("PIF_metrics", metrics):
                database.destroy("PIF_metrics", metrics)
        for processor in record["host_CPUs"]:
            database.destroy("host_cpu", processor)
        for console in database.get("VM", record["control_domain"], "consoles"):
            database.destroy("console", console)
        database.destroy("VM_metrics", database.get("VM", record["control_domain"], "metrics"))
        database.destroy("VM", record["control_domain"])
        database.destroy("host_metrics", record["metrics"])
        for vm in database.find("VM", "affinity", ref):
            database.set("VM", vm, affinity=NULL_REF)
        database.destroy("host", ref)


def _remove_storage(state: State, sr: str) -> None:
    database = state.database
    for vdi in database.get("SR", sr, "VDIs"):
        record = database.record("VDI", vdi)
        for vbd in record["VBDs"]:
            database.destroy("VBD", vbd)
        database.destroy("VDI", vdi)
        if state.disks.exists(record["location"]):
            state.disks.remove(record["location"])
    database.destroy("SR", sr)


def _record_life(state: State, ref: str, live: bool) -> None:
    database = state.database
    database.set("host_metrics", database.get("host", ref, "metrics"), live=live, last_updated=now())
    if live:
        database.set("host", ref, enabled=True)
        host_power.record_boot(database, ref)
    host_power.update_allowed_operations(database, ref)


def _forget_clients(state: State) -> None:
    """Sessions and tasks are in the memory of the coordinator only, and end with it."""
    database = state.database
    for ref, row in database.snapshots("task").items():
        if row["status"] == "pending":
            state.tasks.give_up(ref)
            with contextlib.suppress(errors.ApiError):
                state.tasks.cancel(ref, ref)
    for ref in database.refs("session"):
        with contextlib.suppress(errors.ApiError):
            database.destroy("session", ref)


def lost(state: State) -> list[Host]:
    """The hosts that have power and no coordinator."""
    return [host for host in state.hosts.values() if host.is_up and host.is_lost]
