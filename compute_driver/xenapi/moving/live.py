"""Live migration: a running guest goes to another host of its pool, or to another pool, with what disks it must take.

Refusals come before anything moves. Afterwards the guest runs where it was, or where it was to go.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent_protocol.outcomes import Failed, Refused

from ...driver import Instance, Progress
from ...errors import InstanceNotFound, ObjectGone
from ...resources import MigrationTarget
from ...states import PowerState
from ..connection.session import XenServer
from ..guests import removal, rescue, vms
from ..guests.vms import NULL, VM
from ..hosts import nodes
from ..parts import Parts
from ..storage import marks
from ..storage.volumes import VOLUME_KEY
from ..undo import Undo
from . import disks as moves
from . import sending
from .disks import MOVE_KEY, Kept, MoveNote


def check_destination(parts: Parts, instance: Instance, node: str) -> MigrationTarget:
    """What whoever has the guest needs to send it to a node of this pool.

    Refused with `node_not_found`, `node_disabled`, and for a guest of this pool as of moves.plan().
    """
    server = parts.server
    host = nodes.find(server, node)
    record = server.call("host.get_record", host)
    if not record["enabled"] or not server.call("host_metrics.get_live", record["metrics"]):
        raise Refused("node_disabled", f"the node {node} takes no guests now")
    receive = {}
    try:
        vm = vms.find(server, instance)
    except InstanceNotFound:
        receive = sending.receive(server, host)
    else:
        moves.plan(parts, moves.settle(parts, vm), host)
    return MigrationTarget(
        pool=_pool(server),
        node=node,
        host=host,
        repositories=tuple(it.ref for it in moves.repositories_at(parts, host)),
        networks=_networks(server),
        receive=receive,
    )


def _pool(server: XenServer) -> str:
    return str(server.call("pool.get_uuid", server.call("pool.get_all")[0]))


def _networks(server: XenServer) -> dict[str, str]:
    """All networks by their bridge, and by their name if that is one network's alone."""
    bridges: dict[str, str] = {}
    names: dict[str, list[str]] = {}
    for ref, record in server.call("network.get_all_records").items():
        bridges[str(record["bridge"])] = str(ref)
        names.setdefault(str(record["name_label"]), []).append(str(ref))
    return bridges | {name: refs[0] for name, refs in names.items() if name and len(refs) == 1}


def live_migration(parts: Parts, instance: Instance, target: MigrationTarget, progress: Progress) -> None:
    """Move the running guest to where check_destination() led; nothing happens when it is there.

    After an error it runs where it was, unless the outcome is unknown. Refused with `disk_not_at_node`,
    `volume_in_pool`, `network_not_at_destination`; XenServerFailure with XenServer's own reasons.
    """
    with sending.lent(parts.server, lambda: vms.find(parts.server, instance), target.receive):
        _migrate(parts, instance, target, progress)


def _migrate(parts: Parts, instance: Instance, target: MigrationTarget, progress: Progress) -> None:
    server = parts.server
    vm = moves.settle(parts, vms.find(server, instance))
    if removal.RESIZE_KEY in vm.other_config:
        raise Refused("resize_unconfirmed", "the guest was resized; confirm or revert that first")
    if vm.power_state is not PowerState.RUNNING:
        raise Refused("instance_not_running", f"the guest is {vm.power_state.word}, not running")
    if target.pool != _pool(server):
        _leave_pool(parts, instance, vm, target, progress)
        return
    host = nodes.find(server, target.node)
    if vm.host == host:
        return
    with progress.step("check"):
        plan = moves.plan(parts, vm, host)
    with progress.step("migrate"):
        moves.move(parts, vm, plan, live=True)


def arrived(parts: Parts, instance: Instance) -> None:
    """Put right what is different of a guest that came from another pool; nothing happens otherwise."""
    moves.settle(parts, vms.find(parts.server, instance))


@dataclass(frozen=True)
class _Leaving:
    """How a VM leaves its pool. disks: its VDIs, and the repository there for each. networks: likewise, by VIF.

    note: for whoever finds it there. drives: those with a disc, which does not go along. left: networks that it used.
    """

    disks: dict[str, str]
    networks: dict[str, str]
    note: MoveNote
    drives: tuple[str, ...]
    left: frozenset[str]


def _leave_pool(parts: Parts, instance: Instance, vm: VM, target: MigrationTarget, progress: Progress) -> None:
    server = parts.server
    rescue.refuse_rescued(vm)
    with progress.step("check"):
        it = _leaving(parts, vm, target)
    with progress.step("migrate"), Undo() as undo:
        undo.add("what was prepared for a move", lambda: _stay(parts, instance))
        moves.write(server, vm, MOVE_KEY, it.note.to_text())
        moves.eject(server, it.drives)
        sending.send(server, vm, target.receive, live=True, disks=it.disks, networks=it.networks, reached=_never)
        _assert_gone(server, vm)
    with progress.step("clean_up"):
        removal.cleanup(parts, instance)
        for network in it.left:
            parts.networks.release(network)


def _never(now: VM) -> bool:
    """A VM that went to another pool is not there any more."""
    del now
    return False


def _stay(parts: Parts, instance: Instance) -> None:
    try:
        moves.settle(parts, vms.find(parts.server, instance), has_arrived=False)
    except InstanceNotFound:
        # It did leave.
        return


def _assert_gone(server: XenServer, vm: VM) -> None:
    try:
        server.call("VM.get_uuid", vm.ref)
    except ObjectGone:
        vms.await_told_gone(server, vm)
        return
    raise Failed("guest_still_here", "XenServer says that it sent the guest to the other pool, and still has it")


def _leaving(parts: Parts, vm: VM, target: MigrationTarget) -> _Leaving:
    server = parts.server
    if not target.receive or not target.repositories:
        raise Refused("bad_migration_target", "the other pool did not say how it receives a guest")
    kept: dict[str, Kept] = {}
    wanted: dict[str, str] = {}
    discs: dict[str, tuple[str, str]] = {}
    drives = []
    for ref in vm.vbds:
        vbd = server.call("VBD.get_record", ref)
        if vbd["empty"] or vbd["VDI"] == NULL:
            continue
        vdi = server.call("VDI.get_record", vbd["VDI"])
        if VOLUME_KEY in vbd["other_config"] or marks.instance_of(vdi) != vm.instance:
            raise Refused("volume_in_pool", "volumes, and disks of others, cannot go to another pool; detach them")
        device = str(vbd["userdevice"])
        if vbd["type"] == "CD":
            drives.append(ref)
            discs[device] = (str(vdi["uuid"]), "")
        else:
            kept[device] = moves.what_it_bears(server, vbd["VDI"])
            wanted[vbd["VDI"]] = target.repositories[0]
    interfaces = parts.interfaces.of_vm(vm)
    networks = {it.ref: _counterpart(server, it.network, target) for it in interfaces}
    host = target.receive.get("host", target.host)
    left = frozenset(it.network for it in interfaces)
    return _Leaving(wanted, networks, MoveNote(host, kept, discs), tuple(drives), left)


def _counterpart(server: XenServer, network: str, target: MigrationTarget) -> str:
    record = server.call("network.get_record", network)
    for name in (record["name_label"], record["bridge"]):
        if name in target.networks:
            return target.networks[name]
    raise Refused("network_not_at_destination", f"the other pool has no network {record['name_label']!r}")
