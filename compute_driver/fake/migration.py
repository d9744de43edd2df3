"""Fake guests with other sizes, at other nodes, and at other hypervisors."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from agent_protocol.outcomes import Refused, Unsuccessful

from ..driver import Instance, Progress
from ..fencing import LeaseLost
from ..resources import MigrationTarget
from ..states import PowerState
from .guest import Guest, Kept
from .hypervisor import Hypervisor
from .nodes import Node


def begin(it: Hypervisor, instance: Instance, node: str | None, progress: Progress) -> None:
    """Power the guest off, and keep what it was. After an error it is that, powered off."""
    guest = it.find(instance)
    guest.refuse_rescued()
    if guest.kept is not None and guest.kept.finished:
        raise Refused("resize_unconfirmed", "the guest was resized before; confirm or revert that first")
    _refuse_smaller(guest, instance)
    target = guest.node if node is None else it.taking(node).name
    origin = guest.node if guest.kept is None else guest.kept.origin
    try:
        with it.step(progress, "power_off"), it.lock:
            guest.stop()
        with it.step(progress, "keep_root_disk"), it.lock:
            guest.kept = Kept(guest.system.copy(), guest.memory_mb, guest.vcpus, origin)
        if node is not None:
            with it.step(progress, "move"), it.lock:
                guest.node = target
    except BaseException:
        with suppress(Unsuccessful), it.step(progress, "undo"):
            _restore(it, guest)
        with suppress(LeaseLost):
            it.access.admit()
            _restore(it, guest)
        raise


def _refuse_smaller(guest: Guest, instance: Instance) -> None:
    if instance.root_gb < guest.system.size_gb:
        raise Refused("disk_shrink_refused", f"the root disk has {guest.system.size_gb} GiB and cannot be made smaller")


def finish(it: Hypervisor, instance: Instance, *, power_on: bool, progress: Progress) -> None:
    """Give the guest its new sizes; nothing happens when it has them and runs."""
    guest = it.find(instance)
    if guest.kept is None:
        raise Refused("resize_not_begun", "no resize of the guest was begun")
    _refuse_smaller(guest, instance)
    with it.step(progress, "resize"), it.lock:
        size = guest.system.size_gb if guest.system.is_volume else instance.root_gb
        is_done = (guest.memory_mb, guest.vcpus, guest.system.size_gb) == (instance.memory_mb, instance.vcpus, size)
        if not is_done or guest.state not in (PowerState.RUNNING, PowerState.SHUTDOWN):
            guest.stop()
        guest.kept = replace(guest.kept, finished=True)
        guest.memory_mb, guest.vcpus, guest.system.size_gb = instance.memory_mb, instance.vcpus, size
    if power_on:
        with it.step(progress, "boot"), it.lock:
            guest.start()


def confirm(it: Hypervisor, instance: Instance) -> None:
    """Forget what the guest was."""
    guest = it.find(instance)
    with it.lock:
        if guest.kept is not None and not guest.kept.finished:
            raise Refused("resize_not_finished", "the guest has not got its new sizes yet")
        guest.kept = None


def revert(it: Hypervisor, instance: Instance, *, power_on: bool) -> None:
    """Have the guest as it was."""
    guest = it.find(instance)
    with it.lock:
        _restore(it, guest)
        if power_on:
            guest.start()


def _restore(it: Hypervisor, guest: Guest) -> None:
    with it.lock:
        if guest.kept is None:
            return
        guest.stop()
        kept, guest.kept = guest.kept, None
        guest.system, guest.memory_mb, guest.vcpus, guest.node = kept.system, kept.memory_mb, kept.vcpus, kept.origin


# Live


def check_destination(it: Hypervisor, instance: Instance, node: str) -> MigrationTarget:
    """What whoever has the guest needs to send it here."""
    target = it.taking(node)
    receive = {} if it.has(instance) else {"pool": it.pool}
    return MigrationTarget(pool=it.pool, node=target.name, host=target.name, receive=receive)


def live_migration(it: Hypervisor, instance: Instance, target: MigrationTarget, progress: Progress) -> None:
    """Have the running guest at another node, or at a neighbour."""
    guest = it.find(instance)
    if guest.kept is not None:
        raise Refused("resize_unconfirmed", "the guest was resized; confirm or revert that first")
    guest.require(PowerState.RUNNING)
    if target.pool == it.pool:
        _move(it, guest, it.node(target.node), progress)
    else:
        _send(it, guest, target, progress)


def _move(it: Hypervisor, guest: Guest, node: Node, progress: Progress) -> None:
    if guest.node == node.name:
        return
    with it.step(progress, "check"):
        it.taking(node.name)
    with it.step(progress, "migrate"), it.lock:
        guest.node = node.name


def _send(it: Hypervisor, guest: Guest, target: MigrationTarget, progress: Progress) -> None:
    guest.refuse_rescued()
    with it.step(progress, "check"):
        other = next((each for each in it.neighbours if each.pool == target.receive.get("pool")), None)
        if other is None:
            raise Refused("bad_migration_target", "no other hypervisor said how it receives a guest")
        if guest.volumes:
            raise Refused("volume_in_pool", "volumes cannot go to another pool; detach them")
        node = other.taking(target.node)
    with it.step(progress, "migrate"):
        # Never both locks at once: the other one may be sending a guest here.
        it.remove(guest.uuid)
        guest.node = node.name
        other.add(guest)
    other.shared.note()


# Nodes


def enter_maintenance(it: Hypervisor, name: str) -> None:
    """Let the node take no guests, and move away those that run there. All stay when one cannot be moved."""
    node = it.node(name)
    with it.lock:
        was_enabled, node.enabled = node.enabled, False
        try:
            active = [guest for guest in it.guests(name) if guest.state in (PowerState.RUNNING, PowerState.PAUSED)]
            for guest in active:
                if guest.state is not PowerState.RUNNING:
                    raise _not_moved(guest, f"it is {guest.state.word}")
                try:
                    it.choose()
                except Refused as error:
                    raise _not_moved(guest, error.message) from None
        except Refused:
            node.enabled = was_enabled
            raise
        for guest in active:
            guest.node = it.choose().name


def _not_moved(guest: Guest, reason: str) -> Refused:
    return Refused("guest_not_moved", f"instance {guest.uuid} was not moved: {reason}")
