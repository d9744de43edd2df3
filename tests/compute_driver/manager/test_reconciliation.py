"""A service that ended in the middle of an order, at each moment at which it can, and the next one that ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compute_driver.context import RequestContext
from compute_driver.db.records import Action
from compute_driver.db.repository import Repository
from compute_driver.errors import InstanceNotFound
from compute_driver.manager.operations import Interrupted
from compute_driver.states import PowerState, VmState

from ..bench import INTERFACE, POWER, UUID, VOLUME, Bench
from ..cases import CASES, Case, every_case
from .services import Service, count_moments, dying, snapshot

ENDS = {
    Interrupted.REMOVE: {("failed", "interrupted")},
    Interrupted.COMPLETE: {("succeeded", "found_done")},
    Interrupted.COMPARE_POWER: {("succeeded", "found_done"), ("failed", "interrupted")},
    Interrupted.COMPARE_NODE: {("succeeded", "found_done"), ("failed", "interrupted")},
    Interrupted.UNDO: {("failed", "interrupted")},
    Interrupted.MARK_ERROR: {("failed", "interrupted")},
    Interrupted.UNKNOWN: {("unknown", "service_ended")},
}
"""Outcome and code of an order that had its turn."""

CHANGED = [case for case in CASES if case.operation.interrupted is not Interrupted.UNKNOWN]
"""Those about which more is done than to look."""

NEVER_BEGAN = ("unreachable", "service_ended")


def orders(repository: Repository) -> list[Action]:
    return [row for row in repository.list_actions() if row.step is None]


def at_peace(service: Bench) -> None:
    """Nothing is in flight, and what is recorded is what there is."""
    repository = service.repository
    assert repository.unfinished_actions("here") == []
    for instance in repository.list_instances():
        assert (instance.task_state, instance.task_action) == (None, None)
        try:
            info, guest = service.driver.get_info(instance), service.driver.guest(instance)
        except InstanceNotFound:
            assert (instance.vm_state, instance.power_state, instance.node) == ("error", PowerState.NOSTATE, "")
            continue
        assert (instance.power_state, instance.node) == (info.state, info.node)
        if instance.vm_state in POWER:
            assert POWER[VmState(instance.vm_state)] is info.state
        assert (instance.memory_mb, instance.vcpus, instance.root_gb) == (
            guest.memory_mb,
            guest.vcpus,
            guest.system.size_gb,
        )
        assert instance.instance_metadata == guest.metadata
        assert {it.volume.id for it in repository.list_volumes(instance.uuid)} == set(guest.volumes)
        assert {it.id for it in repository.list_interfaces(instance.uuid)} == {it.id for it in guest.interfaces}
        assert (instance.vm_state == "rescued") == (guest.rescued is not None)
        assert (instance.vm_state == "resized") == (guest.kept is not None)
        assert (repository.open_migration(instance.uuid) is not None) == (instance.vm_state == "resized")


def decided(service: Service, case: Case) -> tuple[str, str]:
    """The order's end, which nothing changes any more."""
    row = orders(service.repository)[-1]
    assert row.action == case.operation.action
    before = snapshot(service)
    assert service.manager.reconcile() == {}
    assert snapshot(service) == before
    at_peace(service)
    assert row.seconds is not None
    assert row.seconds >= 0
    return str(row.outcome), row.code


@every_case
def test_every_moment(fresh: Callable[[], Repository], case: Case) -> None:
    service = Service.first(fresh())
    case.begin(service)
    moments = count_moments(service, lambda: case.carry_out(service))
    after = service.repository.get_instance(UUID, include_deleted=True)
    assert moments >= 4
    seen = set()
    for moment in range(moments):
        service = Service.first(fresh())
        case.begin(service)
        before = snapshot(service)
        with dying(service, moment):
            case.carry_out(service, RequestContext("req-1", "ada", "order-1"))
        service = service.next()
        codes = service.manager.reconcile()
        if moment == 0:
            # Not even its row was there.
            assert (codes, snapshot(service)) == ({}, before)
            continue
        end = decided(service, case)
        assert codes == {end[1]: 1}
        assert orders(service.repository)[-1].order_id == "order-1"
        if moment == 1:
            assert end == NEVER_BEGAN
            assert snapshot(service)[1:] == before[1:]
            continue
        seen.add(end)
        _as_the_table_says(service, case, end, after)
    assert seen <= ENDS[case.operation.interrupted] | _not_noted(case)
    if case.operation.interrupted in (Interrupted.COMPARE_POWER, Interrupted.COMPARE_NODE):
        # Before its work was done, and after that.
        assert seen == ENDS[case.operation.interrupted]


@pytest.mark.parametrize("case", CHANGED, ids=[case.name for case in CHANGED])
def test_a_reconciliation_that_is_interrupted_itself(fresh: Callable[[], Repository], case: Case) -> None:
    service = Service.first(fresh())
    case.begin(service)
    moment = count_moments(service, lambda: case.carry_out(service)) - 1

    def reconciling() -> Service:
        """The next service, when the work of the order was done, and its end was not recorded."""
        first = Service.first(fresh())
        case.begin(first)
        with dying(first, moment):
            case.carry_out(first)
        return first.next()

    service = reconciling()
    moments = count_moments(service, service.manager.reconcile)
    expected = decided(service, case)
    assert expected in ENDS[case.operation.interrupted]
    assert moments >= 1
    for ends_at in range(moments):
        service = reconciling()
        with dying(service, ends_at):
            service.manager.reconcile()
        service = service.next()
        service.manager.reconcile()
        assert decided(service, case) == expected


def _not_noted(case: Case) -> set[tuple[str, str]]:
    """It was not written down yet which device is meant, so nothing was begun."""
    return {("failed", "interrupted")} if case.operation.action.startswith("detach_") else set()


def _as_the_table_says(service: Service, case: Case, end: tuple[str, str], after: Any) -> None:
    way = case.operation.interrupted
    instance = service.repository.get_instance(UUID, include_deleted=True)
    if end[0] == "succeeded":
        expected = {name: getattr(after, name) for name in case.after}
        assert {name: getattr(instance, name) for name in case.after} == expected
    if case.operation.action == "detach_volume":
        assert (VOLUME.id in service.guest.volumes) == (end[0] == "failed")
    if case.operation.action == "detach_interface":
        assert (INTERFACE in service.guest.interfaces) == (end[0] == "failed")
    if way is Interrupted.REMOVE:
        assert service.driver.guests == []
    if way in (Interrupted.REMOVE, Interrupted.MARK_ERROR):
        assert instance.vm_state == "error"
        assert [fault.code for fault in service.repository.list_faults(UUID)] == ["interrupted"]
    if way is Interrupted.UNDO:
        guest = service.guest
        assert (guest.memory_mb, guest.node, guest.rescued, guest.frozen) == (64, "node-1", None, False)
        assert (guest.volumes, guest.interfaces) == ({}, [])
