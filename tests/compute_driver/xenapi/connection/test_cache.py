from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from compute_driver.xenapi.connection import cache
from compute_driver.xenapi.connection.batches import Event, freeze_record
from compute_driver.xenapi.connection.cache import INSTANCE_KEY, View


def vm(uuid: str, name: str = "", instance: str | None = None, **fields: Any) -> Any:
    other_config = {} if instance is None else {INSTANCE_KEY: instance}
    return freeze_record({"uuid": uuid, "name_label": name, "other_config": other_config, **fields})


def view_of(*events: Event) -> View:
    return cache.changed(cache.EMPTY, events, 1)[0]


def test_an_object_is_found_by_reference_and_by_uuid_until_it_is_gone() -> None:
    view = view_of(Event("VM", "r1", vm("u1")), Event("VDI", "r2", vm("u2")))
    assert view.by_uuid("VM", "u1") == ("r1", vm("u1"))
    assert view.by_uuid("VDI", "u1") is None
    later, changes = cache.changed(view, [Event("VM", "r1", None)], 2)
    assert (later.record("VM", "r1"), later.by_uuid("VM", "u1"), later.generation) == (None, None, 2)
    assert changes == [("VM", "r1", vm("u1"), None)]
    # Whoever read the view before still has it as it was.
    assert view.record("VM", "r1") == vm("u1")


def test_what_did_not_change_is_no_change() -> None:
    view = view_of(Event("VM", "r1", vm("u1")))
    later, changes = cache.changed(view, [Event("VM", "r1", vm("u1")), Event("VM", "r9", None)], 3)
    assert changes == []
    assert (later.tables, later.generation) == (view.tables, 3)


def test_a_listing_replaces_all_and_tells_the_differences() -> None:
    view = view_of(Event("VM", "r1", vm("u1")), Event("VM", "r2", vm("u2")), Event("VDI", "r3", vm("u3")))
    later, changes = cache.replaced(view, [Event("VM", "r1", vm("u1")), Event("VM", "r2", vm("u2", "renamed"))], 9)
    assert set(later.records("VM")) == {"r1", "r2"}
    assert not later.records("VDI")
    assert {(it.ref, it.after is None) for it in changes} == {("r2", False), ("r3", True)}


def test_an_instance_is_found_by_its_mark_or_its_name() -> None:
    view = view_of(
        Event("VM", "marked", vm("u1", "renamed", "i1")),
        Event("VM", "named", vm("u2", "instance-i2")),
        Event("VM", "other", vm("u3", "something")),
    )
    found = [view.vm_of(instance) for instance in ("i1", "i2", "i3")]
    assert [it and it.ref for it in found] == ["marked", "named", None]


def test_snapshots_templates_and_control_domains_are_no_instances() -> None:
    kinds = ("is_a_snapshot", "is_a_template", "is_control_domain")
    view = view_of(*(Event("VM", kind, vm(kind, "instance-i1", "i1", **{kind: True})) for kind in kinds))
    assert view.vm_of("i1") is None


def test_of_copies_the_one_with_mark_and_name_is_the_instance() -> None:
    rows = {"a": vm("u1", "copy", "i1"), "b": vm("u2", "instance-i1", "i1"), "c": vm("u3", "instance-i1")}
    view = view_of(*(Event("VM", ref, row) for ref, row in rows.items()))
    for expected in ("b", "a", "c"):
        found = view.vm_of("i1")
        assert found is not None and found.ref == expected
        view, _ = cache.changed(view, [Event("VM", expected, None)], 2)
    assert view.vm_of("i1") is None


@st.composite
def any_event(draw: st.DrawFn) -> Event:
    ref = draw(st.sampled_from("abc"))
    name, instance = draw(st.sampled_from(["", "instance-i1"])), draw(st.sampled_from([None, "i1", "i2"]))
    return Event("VM", ref, draw(st.sampled_from([None, vm(f"uuid-{ref}", name, instance)])))


@given(st.lists(any_event(), max_size=12), st.integers(1, 4))
def test_however_changes_come_the_indexes_are_those_of_the_rows(events: list[Event], size: int) -> None:
    view = cache.EMPTY
    for at in range(0, len(events), size):
        view, _ = cache.changed(view, events[at : at + size], at)
    rows = view.records("VM")
    latest = {event.ref: event.row for event in events}
    assert dict(rows) == {ref: row for ref, row in latest.items() if row is not None}
    for ref in "abc":
        assert view.by_uuid("VM", f"uuid-{ref}") == ((ref, rows[ref]) if ref in rows else None)
    for instance in ("i1", "i2"):
        claimants = {ref for ref, row in rows.items() if instance in cache.instances_of(row)}
        assert set(view.instances.get(instance, ())) == claimants
