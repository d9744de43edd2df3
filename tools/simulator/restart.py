"""What a restart makes of a pool: for its objects it is a power cut of all hosts, and their booting.

Domains have ended, so VMs that ran are halted and suspended ones still suspended. Source: ocaml/xapi/xapi_host.ml and
dbsync_slave.ml for what a host makes of its VMs when it boots, xapi.ml for those that start with it.
"""

from __future__ import annotations

import logging

from . import errors, host_power, lifecycle, power, vdis
from .between_pools import receiver
from .machine import Host
from .model import NULL_REF
from .state import State
from .values import now

LOG = logging.getLogger("xenward.simulator.restart")

AUTO_START = "auto_poweron"
"""In other_config of the pool and of a VM: start it when the pool has booted."""


def take_over(state: State, hosts: list[Host]) -> None:
    """Let hosts that have just got power carry the pool in the database. Their references are set."""
    database = state.database
    (state.pool,) = database.refs("pool")
    state.coordinator = database.get("pool", state.pool, "master")
    state.hosts.update({host.ref: host for host in hosts})
    unfinished = receiver.unfinished(state)
    _forget_operations(state)
    for pid_file in state.settings.state.glob("guests/*/agent.pid"):
        # Of an agent that was killed together with the simulator.
        pid_file.unlink()
    for host in hosts:
        _boot(state, host)
    for vm in database.refs("VM"):
        _cut_power(state, vm)
    for sr in database.refs("SR"):
        vdis.refresh(state, sr)
        for vdi in database.get("SR", sr, "VDIs"):
            vdis.update_vdi_operations(state, vdi)
    receiver.forget(state, unfinished)


def _forget_operations(state: State) -> None:
    """Whoever was at something is gone."""
    database = state.database
    for name, cls in state.model.classes.items():
        if cls.is_stored and "current_operations" in cls.fields:
            for ref in database.refs(name):
                database.set(name, ref, current_operations={})


def _boot(state: State, host: Host) -> None:
    database = state.database
    record = database.record("host", host.ref)
    database.set("host", host.ref, address=host.address)
    database.set("host_metrics", record["metrics"], live=True, last_updated=now())
    host_power.record_boot(database, host.ref)
    host_power.update_allowed_operations(database, host.ref)
    vm = record["control_domain"]
    for vbd in database.get("VM", vm, "VBDs"):
        # Somebody's transfer has ended in the middle: xapi removes what is left of one.
        if database.get("VBD", vbd, "currently_attached"):
            database.destroy("VBD", vbd)
    for console in database.get("VM", vm, "consoles"):
        database.set("console", console, location=f"https://{host.address}/console?ref={console}")
    database.set("VM", vm, power_state="Running", domid=0, resident_on=host.ref)
    database.set("VM_metrics", database.get("VM", vm, "metrics"), start_time=now(), last_updated=now())
    power.update_allowed_operations(database, vm)
    host.hypervisor.domains.build_control_domain(database.get("VM", vm, "uuid"))


def _cut_power(state: State, vm: str) -> None:
    database = state.database
    record = database.record("VM", vm)
    if record["is_control_domain"]:
        return
    database.set("VM", vm, scheduled_to_be_resident_on=NULL_REF)
    if record["power_state"] == "Suspended":
        power.update_allowed_operations(database, vm)
    else:
        # A halted one may have been about to start: then its devices are attached already.
        lifecycle.record_halted(state, vm)


def start_automatically(state: State) -> None:
    """Start the VMs that are to run whenever their pool does. One that cannot is left as it is, and logged."""
    database = state.database
    if not _is_automatic(database.get("pool", state.pool, "other_config")):
        return
    for vm, record in database.records("VM").items():
        is_guest = not (record["is_a_template"] or record["is_a_snapshot"] or record["is_control_domain"])
        if is_guest and record["power_state"] == "Halted" and _is_automatic(record["other_config"]):
            try:
                with state.turn(vm):
                    power.assert_allowed(database, vm, "start")
                    lifecycle.boot(state, vm, None, paused=False)
            except errors.ApiError as error:
                LOG.error("VM %s does not start with its pool: %s", record["uuid"], error.code)


def _is_automatic(other_config: dict[str, str]) -> bool:
    return other_config.get(AUTO_START) == "true"
