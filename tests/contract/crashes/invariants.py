"""What must hold after any crash. Each function gives what does not, in words; nothing when all is well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from agent_protocol.outcomes import Outcome
from compute_driver.db.records import ENDED_MIGRATIONS, Action, Instance, Lease
from compute_driver.states import PowerState, VmState
from compute_driver.xenapi.connection.session import ORIGINATOR
from tools.simulator.faults.call_log import LoggedCall

from .effects import NewRoot, Power, Rebooted
from .orders import KINDS, Order
from .seen import INSTANCE_KEY, Guest, Seen
from .world import World

NOT_DONE = (Outcome.FAILED, Outcome.REFUSED, Outcome.UNSUPPORTED, Outcome.BUSY, Outcome.UNREACHABLE)
"""Outcomes that say that an order has not had its effect."""

IN_DOUBT = frozenset(
    {
        "service_no_answer",
        "service_unreachable",
        "service_stopping",
        "bus_unreachable",
        "database_unavailable",
        "lease_lost",
        "not_recorded",
        "order_in_flight",
    }
)
"""Codes of answers after which a caller asks again."""

_AT_REST = frozenset({VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED})


def one_row_each(world: World, orders: Sequence[Order]) -> Iterator[str]:
    """Every order that was sent has exactly one row, with a final outcome."""
    wanted = {it.order_id: it for it in orders}
    requests = Counter(
        it.order_id
        for order in orders
        for it in world.repository.list_actions(request_id=order.context.request_id)
        if it.step is None
    )
    for order_id, order in wanted.items():
        if requests[order_id] != 1:
            yield f"{order} has {requests[order_id]} rows"
    for order_id in requests.keys() - wanted.keys():
        yield f"there is a row of an order that nobody sent: {order_id}"


def answers_are_kept(orders: Sequence[Order], rows: Mapping[str, Action]) -> Iterator[str]:
    """What a caller was told is what is recorded."""
    for order in orders:
        row = rows[order.order_id]
        for outcome, code in order.answers:
            if code in IN_DOUBT or outcome == Outcome.UNKNOWN.value:
                continue
            told = ("succeeded", "") if code == "order_succeeded" else (outcome, code)
            recorded = (str(row.outcome), "" if row.outcome is Outcome.SUCCEEDED else row.code)
            if told != recorded:
                yield f"{order} was answered {outcome} ({code}), and is recorded as {row.outcome} ({row.code})"


def claims_are_true(
    world: World, orders: Sequence[Order], rows: Mapping[str, Action], seen: Seen, *, guests_died: bool
) -> Iterator[str]:
    """Success means effect; an outcome that says that nothing happened means none.

    guests_died: whether guests may have ended by themselves after, or before, what was ordered.
    """
    for order in orders:
        row = rows[order.order_id]
        after = seen.guest(order.instance)
        happened = order.wanted.effect.has_happened(order.before, after)
        if guests_died and _may_have_died(order, after):
            continue
        if row.outcome is Outcome.SUCCEEDED and happened is False:
            yield f"{order} is reported as succeeded ({row.code}), and did not happen"
        if row.outcome in NOT_DONE and happened and not _is_in_error(world, order):
            yield f"{order} is reported as {row.outcome} ({row.code}: {row.message}), and happened"


def _may_have_died(order: Order, after: Guest | None) -> bool:
    """Whether the end of a guest may hide what the order did. One that was off, and is, may have run in between."""
    if order.before is None or after is None or order.before.power != after.power:
        return True
    return isinstance(order.wanted.effect, (Power, Rebooted)) and after.power is PowerState.SHUTDOWN


def _is_in_error(world: World, order: Order) -> bool:
    """Whether an order that replaces a disk left the instance in error, as it says it does."""
    if not isinstance(order.wanted.effect, NewRoot):
        return False
    return world.repository.get_instance(order.instance).vm_state == VmState.ERROR


def passwords_are_whole(orders: Sequence[Order], rows: Mapping[str, Action], seen: Seen) -> Iterator[str]:
    """A password is the new one or the one before, and the one before unless the new one may have been set."""
    for order in orders:
        after = seen.guest(order.instance)
        if "password" not in order.kind or order.before is None or after is None:
            continue
        changed = after.shadow != order.before.shadow
        if changed and not order.wanted.effect.has_happened(order.before, after):
            yield f"{order} left a password that nobody chose"


def done_once(orders: Sequence[Order], calls: Sequence[LoggedCall], seen: Seen) -> Iterator[str]:
    """Nothing that an order does was done twice: by the pool's log of calls, and the agents' of commands."""
    done = [it for it in calls if it.originator == ORIGINATOR and it.outcome == "SUCCESS"]
    for order in orders:
        before, after = order.before, seen.guest(order.instance)
        if before is None:
            continue
        kind = KINDS[order.kind]
        mine = [it.name for it in done if it.name in kind.once and before.ref in it.references]
        if len(mine) > (2 if isinstance(order.wanted.effect, Rebooted) and before.domid < 0 else 1):
            yield f"{order} was carried out more than once: {', '.join(mine)}"
        if kind.command and after is not None:
            ran = Counter(after.commands) - Counter(before.commands)
            if ran[f"{kind.command} succeeded"] > 1:
                yield f"{order}: the agent carried it out {ran[f'{kind.command} succeeded']} times"


def instances_are_whole(world: World, seen: Seen) -> Iterator[str]:
    """Each instance has the one guest that is recorded, and no guest is without an instance."""
    rows = {it.uuid: it for it in world.instances()}
    for uuid, guests in seen.guests.items():
        if uuid not in rows:
            yield f"guest {guests[0].record['name_label']} belongs to no instance"
        elif len(guests) != 1:
            yield f"instance {uuid} has {len(guests)} guests"
    for row in rows.values():
        guest = seen.guest(row.uuid)
        if guest is not None:
            yield from _differences(row, guest)
            yield from _device_differences(world, row, guest)
        elif row.vm_state != VmState.ERROR:
            yield f"instance {row.uuid} is {row.vm_state}, and has no guest"
        elif row.node:
            yield f"instance {row.uuid} has no guest, and is on {row.node}"


def _differences(row: Instance, guest: Guest) -> Iterator[str]:
    name = f"instance {row.uuid} ({row.vm_state})"
    words = {1: VmState.ACTIVE, 3: VmState.PAUSED, 4: VmState.STOPPED, 7: VmState.SUSPENDED}
    if row.power_state != guest.power:
        yield f"{name} is recorded as {row.power_state}, and its guest is {guest.power!r}"
    if row.vm_state in _AT_REST and row.vm_state != words[guest.power]:
        yield f"{name} has a guest that is {guest.power!r}"
    if row.node != guest.node:
        yield f"{name} is recorded on {row.node!r}, and its guest is on {guest.node!r}"
    if row.vm_state == VmState.ERROR:
        return
    roots = [it["uuid"] for it in guest.disks.values() if it["name_label"].endswith(" root")]
    if len(roots) != 1:
        yield f"{name} has {len(roots)} root disks: {', '.join(roots)}"
    if (row.memory_mb, row.vcpus, row.root_gb) != guest.sizes:
        yield f"{name} has {(row.memory_mb, row.vcpus, row.root_gb)}, and its guest {guest.sizes}"
    if (row.vm_state == VmState.RESCUED) != guest.is_rescued:
        yield f"{name}: its guest is {'' if guest.is_rescued else 'not '}rescued"
    if (row.vm_state == VmState.RESIZED) != guest.is_resized:
        yield f"{name}: its guest has {'a' if guest.is_resized else 'no'} way back"


def _device_differences(world: World, row: Instance, guest: Guest) -> Iterator[str]:
    volumes = {it.volume.connection.to_dict(secrets=False)["uuid"] for it in world.repository.list_volumes(row.uuid)}
    if volumes != guest.volumes:
        yield f"instance {row.uuid} has volumes {sorted(volumes)}, and its guest {sorted(guest.volumes)}"
    known = {it.mac for it in world.repository.list_interfaces(row.uuid)}
    if not known <= guest.macs:
        yield f"instance {row.uuid} has interfaces {sorted(known)}, and its guest {sorted(guest.macs)}"
    migration = world.repository.open_migration(row.uuid)
    is_open = migration is not None and migration.status not in ENDED_MIGRATIONS
    if is_open != (row.vm_state == VmState.RESIZED) and row.vm_state != VmState.ERROR:
        yield f"instance {row.uuid} is {row.vm_state}, and its move is {migration.status if migration else 'over'}"


def nothing_is_left(world: World, seen: Seen) -> Iterator[str]:
    """There is nothing in the pool that nobody needs: no disk, device, VM, task or image that is half done."""
    for ref, vm in seen.vms.items():
        if not vm["is_default_template"] and INSTANCE_KEY not in vm["other_config"]:
            yield f"VM {vm['uuid']} ({vm['name_label']!r}) is left"
        del ref
    attached = {it["VDI"] for it in seen.vbds.values()}
    suspended = {it["suspend_VDI"] for it in seen.vms.values()}
    resized = {uuid for uuid, guests in seen.guests.items() if guests[0].is_resized}
    for ref, vdi in seen.vdis.items():
        if ref in attached | suspended or vdi["uuid"] in world.volumes or vdi["name_label"] == "base copy":
            continue
        marks = vdi["other_config"]
        if marks.get("xenward:image_state") == "ready" or not vdi["managed"]:
            continue
        if marks.get(INSTANCE_KEY) in resized and vdi["name_label"].endswith("resize"):
            continue
        yield f"VDI {vdi['uuid']} ({vdi['name_label']!r}, {marks.get('xenward:purpose')}) is left"
    for cls, found in (("VBD", seen.vbds), ("VIF", seen.vifs)):
        for it in found.values():
            if it["VM"] not in seen.vms:
                yield f"{cls} {it['uuid']} is left, without a VM"
            if it["current_operations"]:
                yield f"{cls} {it['uuid']} is being worked on: {sorted(it['current_operations'].values())}"
    for vm in seen.vms.values():
        if vm["current_operations"]:
            yield f"VM {vm['uuid']} is being worked on: {sorted(vm['current_operations'].values())}"
    for task in seen.tasks.values():
        if task["status"] == "pending":
            yield f"task {task['name_label']} is pending"


def images_are_whole(world: World) -> Iterator[str]:
    """There is nothing in the directory of images that is no image."""
    names = {it.name for it in world.images.iterdir()}
    for name in sorted(names):
        stem = name.rsplit(".", 1)[0]
        if not name.endswith(".json") and f"{stem}.json" not in names:
            yield f"the directory of images has {name}, which belongs to no image"


def sessions_are_ended(world: World) -> Iterator[str]:
    """XenServer knows no session that a killed service ever used: it is recorded before that."""
    epoch = next(it.epoch for it in world.repository.list_hosts() if it.name == world.host)
    older = world.repository.sessions_before(Lease(world.host, "", epoch))
    if older:
        yield f"{len(older)} sessions of former services are not known to have ended"
    for it in world.control.leftovers():
        if it.cls == "session" and it.uuid in world.former_sessions:
            yield f"session {it.uuid} of a former service is open"
