"""Resize and cold migration: other sizes, perhaps at another host, until somebody confirms or goes back.

The root disk as it was is kept as a clone, named for it. What else leads back is written into VM.other_config before
the first change. Each function can be called again after it was interrupted anywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from agent_protocol.outcomes import Failed, Refused, Unsuccessful

from ...driver import Instance, Progress
from ...errors import ObjectGone
from ...fencing import LeaseLost
from ...states import PowerState
from ..connection.cache import INSTANCE_KEY
from ..connection.session import XenServer
from ..guests import power, rescue, vms
from ..guests.removal import RESIZE, RESIZE_KEY, half_kept, unattached
from ..guests.vms import VM
from ..hosts import nodes
from ..parts import Parts
from ..storage import branches, disks, marks, repositories, root_disks
from ..storage.disks import Disk, NewDisk
from ..storage.marks import Purpose
from . import disks as moves
from .notes import Sizes, Step, WayBack

LOG = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT = 60.0
"""Seconds that a guest has to shut down before its resize is finished or taken back."""

_ATTEMPTS = 2
"""How often the way back is gone: an answer may be lost on it."""


def _way_back(vm: VM) -> WayBack | None:
    return WayBack.from_text(vm.other_config[RESIZE_KEY]) if RESIZE_KEY in vm.other_config else None


def _write(parts: Parts, vm: VM, way: WayBack) -> WayBack:
    moves.write(parts.server, vm, RESIZE_KEY, way.to_text())
    return way


# Begin


def begin(parts: Parts, instance: Instance, node: str | None, timeout: float | None, progress: Progress) -> None:
    """Power the guest off, keep what leads back, and bring its disks to where the node sees them.

    Whatever is raised, the guest is as it was, powered off. Refused with `resize_unconfirmed` when an earlier one was
    finished and neither confirmed nor reverted, `disk_shrink_refused`, and as of moves.plan().
    """
    server = parts.server
    vm = moves.settle(parts, vms.find(server, instance))
    rescue.refuse_rescued(vm)
    way = _way_back(vm)
    if way is not None and way.step not in (Step.BEGUN, Step.KEPT):
        raise Refused("resize_unconfirmed", "the guest was resized before; confirm or revert that first")
    _refuse_smaller(_root(parts, vm), instance)
    host = None if node is None else nodes.find(server, node)
    if host is not None:
        moves.plan(parts, vm, host)
    try:
        with progress.step("power_off"):
            if way is None or vm.power_state is not PowerState.SHUTDOWN:
                # What was kept before the guest ran again is out of date.
                way = _write(parts, vm, _noted(parts, vm, node, way))
            vm = power.shut_down(server, vm, timeout=timeout)
        with progress.step("keep_root_disk"):
            way = _keep(parts, instance, vm, replace(way, node=node or ""))
        if host is not None:
            with progress.step("move"):
                vm = vms.again(server, vm)
                moves.move(parts, vm, moves.plan(parts, vm, host), live=False)
    except LeaseLost:
        raise
    except BaseException:
        _undo(parts, instance, progress)
        raise


def _noted(parts: Parts, vm: VM, node: str | None, before: WayBack | None) -> WayBack:
    """The way back to what the VM is now, or to what it was when an earlier attempt began."""
    if before is not None:
        return replace(before, step=Step.BEGUN, kept="", node=node or "")
    server = parts.server
    root = _root(parts, vm)
    origin = str(server.call("host.get_hostname", vm.host)) if vm.host != vms.NULL else ""
    sizes = Sizes.of(server.call("VM.get_record", vm.ref))
    way = WayBack(Step.BEGUN, sizes, node=node or "", origin=origin, begun=marks.now())
    places = {}
    for ref in vm.vbds:
        vbd = server.call("VBD.get_record", ref)
        if not vbd["empty"]:
            places[vbd["userdevice"]] = server.call("SR.get_uuid", server.call("VDI.get_SR", vbd["VDI"]))
    way = replace(way, places=places)
    return way if root is None else replace(way, root=root.disk.uuid, device=root.device, size=root.disk.size)


@dataclass(frozen=True)
class _Root:
    disk: Disk
    device: str


def _root(parts: Parts, vm: VM) -> _Root | None:
    """The guest's own root disk; None for one that boots from a volume."""
    try:
        _, vbd = root_disks.find(parts.server, vm)
    except Refused:
        return None
    if parts.server.call("VDI.get_other_config", vbd["VDI"]).get(INSTANCE_KEY) != vm.instance:
        return None
    return _Root(disks.find(parts.server, vbd["VDI"]), str(vbd["userdevice"]))


def _refuse_smaller(root: _Root | None, instance: Instance) -> None:
    # Repositories round sizes up, so that whole GiB are compared.
    if root is not None and instance.root_gb < root.disk.size // disks.GIB:
        raise Refused("disk_shrink_refused", f"the root disk has {root.disk.size} bytes and cannot be made smaller")


def _keep(parts: Parts, instance: Instance, vm: VM, way: WayBack) -> WayBack:
    if way.step is Step.KEPT:
        return _write(parts, vm, way)
    _remove_kept(parts, instance)
    if not way.root:
        return _write(parts, vm, replace(way, step=Step.KEPT))
    server = parts.server
    # Not by way.root: an earlier attempt may have moved it.
    root = _root(parts, vm)
    if root is None:
        raise Failed("root_disk_gone", "somebody took the root disk from the VM while it was resized")
    repository = repositories.choose(server, str(server.call("SR.get_uuid", root.disk.repository)))
    new = NewDisk(
        vms.part_name(instance.uuid, RESIZE), instance.display_name, root.disk.size, Purpose.ROOT, instance.uuid
    )
    name = str(server.call("VDI.get_name_label", root.disk.ref))
    kept = branches.clone(server, repository, root.disk, name, new)
    try:
        return _write(parts, vm, replace(way, step=Step.KEPT, kept=kept.uuid))
    except LeaseLost:
        raise
    except BaseException:
        with suppress(Unsuccessful):
            disks.destroy(server, kept.ref)
        raise


def _remove_kept(parts: Parts, instance: Instance) -> None:
    """Remove every disk that a resize kept, also one that is half made."""
    vm = vms.find(parts.server, instance)
    kept = unattached(parts, instance, (str(Purpose.ROOT), RESIZE))
    disks.destroy_all(parts.server, dict.fromkeys([*kept, *half_kept(parts, vm)]))


# Finish, confirm


def finish(parts: Parts, instance: Instance, *, power_on: bool, progress: Progress) -> None:
    """Give the guest its new sizes and start it; nothing happens when it runs with them.

    After an error it is powered off, and this can be asked for again, or revert(). Refused with `resize_not_begun`,
    `resize_reverting`, `disk_shrink_refused` and `bad_hardware`: then nothing was touched.
    """
    server = parts.server
    vm = moves.settle(parts, vms.find(server, instance))
    way = _way_back(vm)
    if way is None or way.step is Step.BEGUN:
        raise Refused("resize_not_begun", "no resize of the guest was begun")
    _refuse_reverting(way)
    record = server.call("VM.get_record", vm.ref)
    root, sizes, size = _root(parts, vm), Sizes.of(record).resized(instance), instance.root_gb * disks.GIB
    _refuse_smaller(root, instance)
    _refuse_uneven(record["platform"], instance)
    is_done = Sizes.of(record) == sizes and (root is None or root.disk.size >= size)
    with progress.step("resize"):
        if not is_done or vm.power_state not in (PowerState.RUNNING, PowerState.SHUTDOWN):
            vm = power.shut_down(server, vm, timeout=SHUTDOWN_TIMEOUT)
        if way.step is not Step.FINISHED:
            _write(parts, vm, replace(way, step=Step.FINISHED))
        if not is_done:
            _set_sizes(server, vm, sizes)
            if root is not None and root.disk.size < size:
                disks.resize(server, root.disk, size)
    if power_on:
        with progress.step("boot"):
            host = nodes.find(server, way.node) if way.node else None
            power.start(server, vm, host=host)


def _refuse_reverting(way: WayBack) -> None:
    if way.step is Step.REVERTING:
        raise Refused("resize_reverting", "the guest is on its way back from a resize; revert it to the end")


def _refuse_uneven(untrusted_platform: Mapping[str, str], instance: Instance) -> None:
    cores = untrusted_platform.get("cores-per-socket", "1")
    if cores.isascii() and cores.isdigit() and int(cores) > 0 and instance.vcpus % int(cores):
        raise Refused("bad_hardware", f"{instance.vcpus} processors do not fill sockets of {cores} cores")


def _set_sizes(server: XenServer, vm: VM, wanted: Sizes) -> None:
    """Sizes of a halted VM, in an order in which no limit is ever above another that it must not be above."""
    now = Sizes.of(server.call("VM.get_record", vm.ref))
    if now.memory != wanted.memory:
        static_min, dynamic_min, dynamic_max, static_max = map(str, wanted.memory)
        server.call("VM.set_memory_limits", vm.ref, static_min, static_max, dynamic_min, dynamic_max)
    at_startup, at_most = wanted.vcpus
    if now.vcpus[1] < at_most:
        server.call("VM.set_VCPUs_max", vm.ref, str(at_most))
    if now.vcpus[0] != at_startup:
        server.call("VM.set_VCPUs_at_startup", vm.ref, str(at_startup))
    if now.vcpus[1] > at_most:
        server.call("VM.set_VCPUs_max", vm.ref, str(at_most))


def confirm(parts: Parts, instance: Instance) -> None:
    """Throw away what revert() would need; nothing happens when there is nothing.

    Refused with `resize_not_finished`, `resize_reverting`.
    """
    vm = moves.settle(parts, vms.find(parts.server, instance))
    way = _way_back(vm)
    if way is None:
        return
    _refuse_reverting(way)
    if way.step is not Step.FINISHED:
        raise Refused("resize_not_finished", "the guest has not got its new sizes yet")
    _remove_kept(parts, instance)
    # Last: until then this can be done once more.
    parts.server.call("VM.remove_from_other_config", vm.ref, RESIZE_KEY)


# Back


def revert(parts: Parts, instance: Instance, *, power_on: bool) -> None:
    """Have the guest as it was: sizes, disk contents and place. Nothing but its start happens without a resize.

    After an error it is powered off, and this can be asked for again.
    """
    vm = moves.settle(parts, vms.find(parts.server, instance))
    way = _way_back(vm)
    if way is not None:
        vm = _restored(parts, instance, vm, way)
    if power_on:
        moved = way is not None and way.node and way.origin
        host = nodes.names(parts.server).get(way.origin) if way is not None and moved else None
        power.start(parts.server, vm, host=host)


def _undo(parts: Parts, instance: Instance, progress: Progress) -> None:
    is_done = False
    try:
        with progress.step("undo"):
            is_done = True
            _back(parts, instance)
    except LeaseLost:
        raise
    except Unsuccessful as error:
        if not is_done:
            # The step could not even be recorded; the guest is to be as it was all the same.
            with suppress(Unsuccessful):
                _back(parts, instance)
        # The error that led here is the one to report; a later revert goes the same way.
        LOG.error("instance %s: its resize could not be undone: %s", instance.uuid, error)


def _back(parts: Parts, instance: Instance) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            vm = moves.settle(parts, vms.find(parts.server, instance))
            way = _way_back(vm)
            if way is not None:
                _restored(parts, instance, vm, way)
            return
        except LeaseLost:
            raise
        except Unsuccessful:
            if attempt + 1 == _ATTEMPTS:
                raise


def _restored(parts: Parts, instance: Instance, vm: VM, way: WayBack) -> VM:
    """The VM as it was before, shut down unless nothing was changed about it."""
    server = parts.server
    if way.step is not Step.BEGUN:
        vm = power.shut_down(server, vm, timeout=SHUTDOWN_TIMEOUT)
        root = _root(parts, vm)
        is_same = root is not None and root.disk.uuid == way.root and way.step is Step.KEPT
        if way.kept and not is_same:
            if way.step is not Step.REVERTING:
                way = _write(parts, vm, replace(way, step=Step.REVERTING))
            vm = _exchange(parts, instance, vm, way, root)
        vm = _at_home(parts, vm, way)
        _set_sizes(server, vm, way.sizes)
    _remove_kept(parts, instance)
    # Last: until then everything can be done once more.
    server.call("VM.remove_from_other_config", vm.ref, RESIZE_KEY)
    return vms.again(server, vm)


def _exchange(parts: Parts, instance: Instance, vm: VM, way: WayBack, root: _Root | None) -> VM:
    """Have the kept disk in the root disk's place."""
    server = parts.server
    try:
        kept = disks.find(server, str(server.call("VDI.get_by_uuid", way.kept)))
    except ObjectGone:
        raise Failed("kept_disk_gone", "the root disk as it was before the resize does not exist any more") from None
    if root is None or root.disk.uuid != kept.uuid:
        if root is not None:
            disks.detach(server, vm.ref, root.disk.ref)
            disks.destroy(server, root.disk.ref)
        disks.attach(server, vm.ref, kept.ref, device=way.device, bootable=True, unpluggable=False)
    disks.claim(server, kept.ref, disks.of_instance(instance, Purpose.ROOT, kept.size))
    return vms.again(server, vm)


def _at_home(parts: Parts, vm: VM, way: WayBack) -> VM:
    """Have all disks of its own in the repositories where they were."""
    server, home = parts.server, {}
    for ref in vm.vbds:
        vbd = server.call("VBD.get_record", ref)
        if vbd["empty"] or vbd["userdevice"] not in way.places:
            continue
        vdi = server.call("VDI.get_record", vbd["VDI"])
        place = str(server.call("SR.get_by_uuid", way.places[vbd["userdevice"]]))
        if vdi["SR"] != place and marks.instance_of(vdi) == vm.instance:
            home[str(vbd["userdevice"])] = place
    if not home:
        return vm
    host = _host_of(parts, set(home.values()), way.origin)
    return moves.move(parts, vm, moves.plan(parts, vm, host, home), live=False)


def _host_of(parts: Parts, places: set[str], origin: str) -> str:
    hosts = nodes.names(parts.server)
    for name in sorted(hosts, key=lambda it: it != origin):
        if places <= moves.seen_from(parts.server, hosts[name]):
            return hosts[name]
    raise Refused("disk_not_at_node", "no node is connected with the storage where the guest's disks were")
