"""Removing guests, in whatever state they are, and what is left of them: disks without a VM, half-made copies.

What belongs to an instance bears its uuid in other_config. Everything else, volumes first of all, stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from agent_protocol.outcomes import Failed, Outcome, Unknown, Unsuccessful

from ...driver import Instance
from ...errors import InstanceNotFound, ObjectGone
from ...fencing import LeaseLost
from ...volumes import Volume
from ..moving import disks as moves
from ..moving.disks import BadMoveNote
from ..parts import Parts
from ..storage import disks, marks, transfer_tasks
from ..storage.marks import Purpose
from . import power, vms
from .vms import VM

RESCUE = "rescue"
"""In the place of a purpose, in the name of a rescue disk."""

RESIZE = "resize"
"""Likewise, in the name of the root disk as it was before a resize."""

_NAMES = (*map(str, Purpose), RESCUE, RESIZE)

RESIZE_KEY = "xenward:resize"
"""Key in VM.other_config while a resize is neither confirmed nor reverted: the way back, as JSON (resize.py)."""

_ATTEMPTS = 2
"""How often everything is gone through: an answer may be lost, and what it was about is then not there any more."""


@dataclass(frozen=True)
class _Left:
    cls: str
    uuid: str
    error: Unsuccessful

    def __str__(self) -> str:
        return f"{self.cls} {self.uuid} ({self.error.code})"


def destroy(parts: Parts, instance: Instance, volumes: Sequence[Volume] = ()) -> None:
    """Remove the instance's VM with all that is its own; nothing happens when there is nothing.

    When something cannot be removed, Failed with `left_behind` names it by class and uuid; Unknown, likewise, if it may
    be gone, or XenServer could not be asked.
    The VM goes last: while anything is left, it leads there. LeaseLost leaves the rest to another service.
    """
    _repeatedly(lambda: _destroy(parts, instance, volumes))
    parts.agents.forget(instance.uuid)


def cleanup(parts: Parts, instance: Instance) -> None:
    """Remove the instance's disks that no VM has, but for what an unconfirmed resize keeps. Errors as of destroy()."""
    _repeatedly(lambda: _remove_disks(parts, (), _not_needed(parts, instance)))


def _not_needed(parts: Parts, instance: Instance) -> list[str]:
    try:
        vm = moves.settle(parts, vms.find(parts.server, instance))
    except InstanceNotFound:
        return unattached(parts, instance)
    return unattached(parts, instance, [name for name in _NAMES if name != RESIZE or RESIZE_KEY not in vm.other_config])


def _repeatedly(attempt: Callable[[], list[_Left]]) -> None:
    left: list[_Left] = []
    for _ in range(_ATTEMPTS):
        left = attempt()
        if not left:
            return
    message = f"could not be removed: {', '.join(map(str, left))}"
    if any(it.error.outcome in (Outcome.UNKNOWN, Outcome.UNREACHABLE) for it in left):
        raise Unknown("left_behind", message)
    raise Failed("left_behind", message)


def _destroy(parts: Parts, instance: Instance, volumes: Sequence[Volume]) -> list[_Left]:
    try:
        vm = vms.find(parts.server, instance)
    except InstanceNotFound:
        return _remove_disks(parts, (), unattached(parts, instance))
    try:
        vm = power.shut_down(parts.server, vm, timeout=0)
        with suppress(BadMoveNote):
            # Disks that were copied on the way need not bear their marks yet.
            vm = moves.settle(parts, vm)
        _let_go(parts, vm, volumes)
        vm = vms.again(parts.server, vm)
        own = disks.of_vm(parts.server, instance.uuid, vm.vbds)
        left = _remove_disks(parts, [*own, *half_kept(parts, vm)], unattached(parts, instance))
        if not left:
            parts.server.run("VM.destroy", vm.ref, timeout=power.START_TIMEOUT)
            vms.await_told_gone(parts.server, vm)
    except LeaseLost:
        raise
    except Unsuccessful as error:
        # Also when something is gone that was there a moment ago: the next look tells.
        return [_Left("VM", vm.uuid, error)]
    return left


def _let_go(parts: Parts, vm: VM, volumes: Sequence[Volume]) -> None:
    """Take volumes and interfaces from a halted VM, with what was made in the pool for them alone."""
    for volume in volumes:
        parts.volumes.detach(vm, volume)
    parts.volumes.detach_all(vm)
    for interface in parts.interfaces.of_vm(vm):
        parts.server.call("VIF.destroy", interface.ref)
        parts.networks.release(interface.network)


def unattached(parts: Parts, instance: Instance, purposes: Sequence[str] = _NAMES) -> list[str]:
    """The instance's own disks that no VM has, with one of these in their names.

    Copies that other tools made of them are not its own.
    """
    found = []
    for purpose in purposes:
        for ref in parts.server.call("VDI.get_by_name_label", vms.part_name(instance.uuid, purpose)):
            try:
                record = parts.server.call("VDI.get_record", ref)
            except ObjectGone:
                continue
            is_ours = marks.is_own(record) or marks.is_unfinished(record)
            if is_ours and marks.instance_of(record) == instance.uuid and not record["VBDs"]:
                found.append(ref)
    return found


def half_kept(parts: Parts, vm: VM) -> list[str]:
    """Clones of a VM's root disk that an interrupted resize made and did not come to mark.

    Only while the VM's note says so: later a clone with a branch key may be somebody's own.
    """
    try:
        note = json.loads(vm.other_config[RESIZE_KEY])
        step, begun = note["step"], float(note["begun"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return []
    found = []
    names = [vms.part_name(vm.instance, name) for name in (Purpose.ROOT, RESIZE)]
    # A clone is named before it is marked.
    for ref in [ref for name in names for ref in parts.server.call("VDI.get_by_name_label", name)]:
        with suppress(ObjectGone):
            record = parts.server.call("VDI.get_record", ref)
            is_ours = marks.instance_of(record) == vm.instance and not marks.is_own(record)
            is_late = any(moment >= begun for moment in marks.branches(record["other_config"]).values())
            if step == "begun" and is_ours and is_late and not record["VBDs"]:
                found.append(str(ref))
    return found


def _remove_disks(parts: Parts, refs: Sequence[str], unattached: Sequence[str]) -> list[_Left]:
    """unattached: those that no VM has, so that they may be of an order whose process died."""
    left = []
    for ref in dict.fromkeys([*refs, *unattached]):
        try:
            if ref in unattached:
                transfer_tasks.end_left(parts.server, ref)
            disks.destroy(parts.server, ref)
        except LeaseLost:
            raise
        except Unsuccessful as error:
            left.append(_Left("VDI", _uuid(parts, ref), error))
    return left


def _uuid(parts: Parts, vdi: str) -> str:
    try:
        return str(parts.server.call("VDI.get_uuid", vdi))
    except Unsuccessful:
        return vdi
