"""The source's side: sends a VM to another pool, and lets go of it when it is there.

Until the other pool is told to let the guest go on, everything can be taken back: the VM is as it was. When no answer
comes to that, the other pool is asked what became of it. If it does not say so in time, the VM stays paused: to let it
go on could have two of it run. So could starting it here when this pool was killed at that moment: that is blocked.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
import uuid as uuids
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from .. import errors, migration, power, tasks, vdis
from ..formats.streams import PIECE
from ..state import State
from . import guest_files, receiver
from .connection import Connection, Destination, Unreachable
from .description import Description, Device, Disk, told

LOG = logging.getLogger("xenward.simulator.migration")

FIND_OUT_TIMEOUT = 30.0
"""Seconds for the other pool to say what became of a VM."""

_FIND_OUT_PERIOD = 0.1

_STARTS = ("start", "start_on", "resume", "resume_on")
_MAY_BE_THERE = "it was being sent to another pool, and may be there"

_DISKS_SHARE = 0.9
"""Of the progress of the whole."""


@dataclass(frozen=True)
class Plan:
    """What is to be sent where. vm: a reference; disks: the VM's own, networks: of its VIFs, with references there.

    copy_uuid, copy_seed: for a copy, what it is called, and what its addresses are made from; empty for the VM itself.
    """

    vm: str
    host: str
    disks: dict[str, str]
    networks: dict[str, str]
    copy_uuid: str = ""
    copy_seed: str = ""


def plan(
    state: State, vm: str, host: str, vdi_map: dict[str, str], vif_map: dict[str, str], *, is_copy: bool = False
) -> Plan:
    """Check on this side what a caller wants. Source: ocaml/xapi/xapi_vm_migrate.ml.

    ApiError VM_HAS_TOO_MANY_SNAPSHOTS for a VM with any: they would stay behind; VDI_NOT_IN_MAP, VIF_NOT_IN_MAP,
    VDI_CBT_ENABLED; VM_MIGRATE_FAILED when guests are not this simulator's own.
    """
    database = state.database
    record = database.snapshot("VM", vm)
    if state.settings.hypervisor != "simulated":
        raise errors.ApiError("VM_MIGRATE_FAILED", vm, record["resident_on"], host, "guests of a real Xen stay in it")
    if record["snapshots"] and not is_copy:
        raise errors.ApiError("VM_HAS_TOO_MANY_SNAPSHOTS", vm)
    disks = {}
    for vdi in migration.disks_of(state, vm):
        if vdi not in vdi_map:
            raise errors.ApiError("VDI_NOT_IN_MAP", vdi)
        if database.get("VDI", vdi, "cbt_enabled"):
            raise errors.ApiError("VDI_CBT_ENABLED", vdi)
        disks[vdi] = vdi_map[vdi]
    for vif in record["VIFs"]:
        if vif not in vif_map:
            raise errors.ApiError("VIF_NOT_IN_MAP", vif)
    networks = {vif: vif_map[vif] for vif in record["VIFs"]}
    uuid, seed = (str(uuids.uuid4()), str(uuids.uuid4())) if is_copy else ("", "")
    return Plan(vm, host, disks, networks, uuid, seed)


def check(state: State, plan: Plan, destination: Destination) -> None:
    """Nothing, or the ApiError that says why the other pool would not take the VM."""
    with Connection.opened(destination.urls[0], destination.session) as connection, connection.cancellable():
        connection.ask({"command": "check", "vm": _described(state, plan).to_dict()})


def send(state: State, plan: Plan, destination: Destination) -> str:
    """Do it; gives the VM's reference there. The caller has the VM's turn.

    ApiError as of check(); TASK_CANCELLED; VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED; VM_MIGRATE_FAILED when a guest's
    files cannot be read, and when nobody knows whether the VM is there.
    """
    way = str(uuids.uuid4())
    with Connection.opened(destination.urls[0], destination.session) as connection:
        with _marked(state, plan.disks):
            with connection.cancellable():
                connection.ask({"command": "begin", "way": way, "vm": _described(state, plan).to_dict()})
                _send_disks(state, plan, connection)
            with _frozen(state, plan) as freezer:
                with connection.cancellable():
                    _send_files(state, plan, connection)
                    connection.ask({"command": "build", "vm": _described(state, plan).to_dict()})
                tasks.current().check()
                there = _let_go_on(state, plan, connection, destination, way, freezer)
        if not plan.copy_uuid:
            _leave(state, plan)
    return there


def _described(state: State, plan: Plan) -> Description:
    """The VM as it is now."""
    database, model = state.database, state.model
    record = database.record("VM", plan.vm)
    fields = told(model, "VM", record)
    if plan.copy_uuid:
        fields["uuid"] = plan.copy_uuid
        fields["other_config"] = {**record["other_config"], "mac_seed": plan.copy_seed}
    guest_metrics = None
    if database.exists("VM_guest_metrics", record["guest_metrics"]):
        guest_metrics = told(model, "VM_guest_metrics", database.record("VM_guest_metrics", record["guest_metrics"]))
    vbds = [database.record("VBD", vbd) for vbd in record["VBDs"]]
    vifs = {vif: database.record("VIF", vif) for vif in record["VIFs"]}
    return Description(
        host=plan.host,
        vm=plan.vm,
        power_state=record["power_state"],
        image=record["suspend_VDI"] if record["suspend_VDI"] in plan.disks else "",
        is_copy=bool(plan.copy_uuid),
        fields=fields,
        metrics=told(model, "VM_metrics", database.record("VM_metrics", record["metrics"])),
        guest_metrics=guest_metrics,
        disks=tuple(
            Disk(vdi, repository, told(model, "VDI", database.record("VDI", vdi)))
            for vdi, repository in plan.disks.items()
        ),
        vbds=tuple(Device(it["VDI"] if it["VDI"] in plan.disks else "", told(model, "VBD", it)) for it in vbds),
        vifs=tuple(Device(plan.networks[vif], told(model, "VIF", it)) for vif, it in vifs.items()),
    )


# What is sent


@contextlib.contextmanager
def _marked(state: State, disks: dict[str, str]) -> Iterator[None]:
    """While it is entered, others see what happens to the disks."""
    task = tasks.current().ref
    with contextlib.ExitStack() as stack:
        for vdi in disks:
            state.database.add_to_map("VDI", vdi, "current_operations", task, "mirror")
            stack.callback(migration.end_operation, state, vdi, task)
        yield


def _send_disks(state: State, plan: Plan, connection: Connection) -> None:
    task = tasks.current()
    for number, vdi in enumerate(plan.disks):
        disk = state.database.get("VDI", vdi, "location")
        pieces = state.disks.allocated(disk, PIECE)
        for done, piece in enumerate(pieces, 1):
            task.check()
            message = {"command": "block", "disk": vdi, "offset": piece * PIECE}
            connection.ask(message, state.disks.read(disk, piece * PIECE, PIECE))
            task.progress(_DISKS_SHARE * (number + done / len(pieces)) / len(plan.disks))


def _send_files(state: State, plan: Plan, connection: Connection) -> None:
    root = state.guest(state.database.get("VM", plan.vm, "uuid")).root
    # A copy is another machine: it boots with a root directory of its own. So does one that never booted.
    if plan.copy_uuid or not root.exists():
        return
    with tempfile.TemporaryFile(dir=state.settings.state) as archive:
        try:
            guest_files.pack(root, archive)
        except OSError as error:
            raise _failed(state, plan, f"the guest's files: {type(error).__name__}") from error
        archive.seek(0)
        for piece in _pieces(archive):
            connection.ask({"command": "files"}, piece)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece


def _failed(state: State, plan: Plan, text: str) -> errors.ApiError:
    here = state.database.get("VM", plan.vm, "resident_on")
    return errors.ApiError("VM_MIGRATE_FAILED", plan.vm, here, plan.host, text)


# Who has it


class _Freezer:
    """How a frozen guest goes on, if it does. paused: it stays as it is, until somebody unpauses its VM."""

    paused = False


@contextlib.contextmanager
def _frozen(state: State, plan: Plan) -> Iterator[_Freezer]:
    """Freeze the guest of a running VM; it goes on when this ends in an error."""
    freezer, record = _Freezer(), state.database.record("VM", plan.vm)
    if record["power_state"] != "Running":
        yield freezer
        return
    host, domid, guest = state.host_of(plan.vm), record["domid"], state.guest(record["uuid"])
    # What the guest has written until now goes with it.
    host.guests.refresh(domid)
    host.guests.forget(domid)
    socket = guest.keep()
    try:
        yield freezer
    except BaseException:
        # A host without power has no guests, and its VM is another one's affair by now.
        if host.is_up and state.database.get("VM", plan.vm, "domid") == domid:
            guest.go_on(socket, paused=freezer.paused)
            host.guests.follow(domid, plan.vm)
            host.guests.refresh(domid)
            if freezer.paused:
                state.database.set("VM", plan.vm, power_state="Paused")
                power.update_allowed_operations(state.database, plan.vm)
        raise


def _let_go_on(
    state: State, plan: Plan, connection: Connection, destination: Destination, way: str, freezer: _Freezer
) -> str:
    """Tell the other pool to let the VM go on; gives its reference there. After an error it is not there."""
    with _blocked(state, plan):
        try:
            return str(connection.ask({"command": "go"}))
        except Unreachable as lost:
            found = _find_out(destination, way)
            if found is None:
                raise
            if found == receiver.UNDER_WAY:
                freezer.paused = True
                raise _failed(state, plan, "the other pool does not say whether the VM is there") from lost
            return found


@contextlib.contextmanager
def _blocked(state: State, plan: Plan) -> Iterator[None]:
    """Until the VM has left, or stays for certain, nobody can start it here, even if this pool is killed meanwhile."""
    if plan.copy_uuid:
        yield
        return
    database = state.database
    before = database.get("VM", plan.vm, "blocked_operations")
    database.set("VM", plan.vm, blocked_operations={**before, **dict.fromkeys(_STARTS, _MAY_BE_THERE)})
    state.flush()
    try:
        yield
    except BaseException:
        database.set("VM", plan.vm, blocked_operations=before)
        power.update_allowed_operations(database, plan.vm)
        raise


def _find_out(destination: Destination, way: str) -> str | None:
    """What became of a VM, as of receiver.find_out; UNDER_WAY when nobody says so in time."""
    deadline = time.monotonic() + FIND_OUT_TIMEOUT
    while True:
        for url in destination.urls:
            try:
                with Connection.opened(url, destination.session) as connection:
                    found = connection.ask({"command": "find_out", "way": way})
                if found != receiver.UNDER_WAY:
                    return None if found is None else str(found)
            except errors.ApiError:
                # Nobody listens, which may be over soon, or the session has ended.
                continue
        if time.monotonic() >= deadline:
            return receiver.UNDER_WAY
        time.sleep(_FIND_OUT_PERIOD)


def _leave(state: State, plan: Plan) -> None:
    """The VM is there: let go of the one here, and of its disks."""
    receiver.remove(state, plan.vm)
    for vdi in plan.disks:
        try:
            if state.database.exists("VDI", vdi):
                vdis.destroy(state, vdi)
        except errors.ApiError as error:
            LOG.error("a VM has left, but a disk of it is left: %s", error.code)
