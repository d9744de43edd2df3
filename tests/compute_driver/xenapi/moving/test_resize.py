"""Resize and cold migration: as asked, or as before, and whatever was interrupted goes on when it is asked for again.

One fault at each call of a resize that stays where it is: tests/contract/test_faults.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Failed, Refused, Unsuccessful
from compute_driver.driver import Progress
from compute_driver.errors import StorageFull, XenServerFailure
from compute_driver.states import PowerState
from compute_driver.xenapi.guests import power, removal
from compute_driver.xenapi.moving import disks as moves
from compute_driver.xenapi.moving import resize
from compute_driver.xenapi.moving.notes import Sizes, Step, WayBack
from compute_driver.xenapi.storage import branches, disks
from compute_driver.xenapi.storage.repositories import Repository
from tests.contract.faults import Steps, Wanted

from .support import Pair, each_fault, pair, running_at, wrong

# What a node does not see goes to where disks are usually made: the storage that both nodes share.
OLD, NEW = (64, 1, 1), (128, 4, 2)
BEFORE, AFTER = b"before the resize", b"written since then"


@pytest.fixture(scope="module")
def shared() -> Iterator[Pair]:
    with pair("--no-agent") as it:
        yield it


@pytest.fixture
def it(shared: Pair) -> Iterator[Pair]:
    """A pool that is empty, before and afterwards."""
    yield shared
    shared.empty()


def bigger(instance: Wanted) -> Wanted:
    memory_mb, vcpus, root_gb = NEW
    return replace(instance, memory_mb=memory_mb, vcpus=vcpus, root_gb=root_gb)


def begin(it: Pair, instance: Wanted, node: str | None = None, progress: Progress | None = None) -> None:
    it.driver.migrate_disk_and_power_off(instance, node=node, timeout=0, progress=progress or Steps())


def finish(it: Pair, instance: Wanted, **more: Any) -> None:
    it.driver.finish_migration(bigger(instance), progress=Steps(), **more)


def kept(it: Pair, instance: Wanted) -> list[str]:
    return list(it.server.call("VDI.get_by_name_label", f"instance-{instance.uuid} resize"))


PLACES = pytest.mark.parametrize(
    ("local", "moves_to"), [(False, None), (False, "there"), (True, None), (True, "there")]
)


@PLACES
def test_resized_and_confirmed(it: Pair, local: bool, moves_to: str | None) -> None:
    guest = it.guest(local=local)
    node = it.there if moves_to else None
    steps = Steps()
    begin(it, guest, node, steps)
    assert steps.names == ["power_off", "keep_root_disk", *(["move"] if node else [])]
    assert it.bench.state(guest) is PowerState.SHUTDOWN
    assert it.sizes(guest) == OLD
    assert len(kept(it, guest)) == 1
    finish(it, guest)
    assert it.sizes(guest) == NEW
    if node or local:
        running_at(it, guest, node or it.here)
    it.driver.confirm_migration(guest)
    assert kept(it, guest) == []
    assert it.notes(guest) == set()
    assert set(it.places(guest).values()) == {it.here if local and not node else "shared"}
    assert it.bench.state(guest) is PowerState.RUNNING
    it.driver.destroy(guest)
    it.bench.assert_nothing_left()


@PLACES
def test_reverted_it_is_as_before(it: Pair, local: bool, moves_to: str | None) -> None:
    guest = it.guest(local=local)
    it.driver.power_off(guest, timeout=0)
    it.write(guest, BEFORE)
    it.driver._parts.server.call(
        "VM.start_on", it.bench.vm(guest).ref, it.bench.server.call("host.get_by_name_label", it.here)[0], False, False
    )
    places, vm = it.places(guest), it.bench.vm(guest)
    begin(it, guest, it.there if moves_to else None)
    finish(it, guest, power_on=False)
    it.write(guest, AFTER)
    it.driver.finish_revert_migration(guest, power_on=False)
    assert it.read(guest, len(BEFORE)) == BEFORE
    assert it.sizes(guest) == OLD
    assert it.places(guest) == places
    assert it.notes(guest) == set()
    assert kept(it, guest) == []
    it.driver.finish_revert_migration(guest)
    assert it.bench.state(guest) is PowerState.RUNNING
    assert it.bench.vm(guest).uuid == vm.uuid
    assert it.server.call("VM.get_memory_static_min", vm.ref) == str(16 * 1024**2)


def test_reverted_it_runs_where_it_ran(it: Pair) -> None:
    guest = it.guest()
    begin(it, guest, it.there)
    finish(it, guest)
    running_at(it, guest, it.there)
    it.driver.finish_revert_migration(guest)
    running_at(it, guest, it.here)


def test_each_can_be_repeated(it: Pair) -> None:
    guest = it.guest(local=True)
    begin(it, guest, it.there)
    note, disk = it.bench.vm(guest).other_config, kept(it, guest)
    begin(it, guest, it.there)
    assert it.bench.vm(guest).other_config == note
    assert kept(it, guest) == disk
    finish(it, guest)
    domid = it.bench.vm(guest).domid
    finish(it, guest)
    assert it.bench.vm(guest).domid == domid
    it.driver.confirm_migration(guest)
    it.driver.confirm_migration(guest)
    it.driver.finish_revert_migration(guest)
    assert (it.sizes(guest), it.bench.vm(guest).domid) == (NEW, domid)


def test_what_was_kept_before_the_guest_ran_again_is_out_of_date(it: Pair) -> None:
    guest = it.guest(running=False)
    it.write(guest, BEFORE)
    begin(it, guest)
    it.write(guest, AFTER)
    it.driver.power_on(guest)
    begin(it, guest)
    finish(it, guest, power_on=False)
    it.driver.finish_revert_migration(guest, power_on=False)
    assert it.read(guest, len(AFTER)) == AFTER


def test_smaller_sizes(it: Pair) -> None:
    guest = it.guest()
    begin(it, guest)
    finish(it, guest)
    it.driver.confirm_migration(guest)
    begin(it, bigger(guest))
    with pytest.raises(Refused, match="cannot be made smaller"):
        it.driver.finish_migration(guest, progress=Steps())
    assert it.sizes(guest) == NEW
    # Memory and processors can go down, the disk cannot.
    it.driver.finish_migration(replace(guest, root_gb=2), progress=Steps())
    assert it.sizes(guest) == (64, 1, 2)
    it.driver.finish_revert_migration(guest)
    assert it.sizes(guest) == NEW


def test_a_smaller_disk_is_refused_before_anything_is_touched(it: Pair) -> None:
    guest = it.guest()
    begin(it, guest)
    finish(it, guest)
    it.driver.confirm_migration(guest)
    before = it.bench.vm(guest)
    with pytest.raises(Refused) as caught:
        begin(it, guest, it.there)
    assert caught.value.code == "disk_shrink_refused"
    assert it.bench.vm(guest) == before


def test_sockets_must_be_filled(it: Pair) -> None:
    guest = it.guest()
    begin(it, guest)
    platform = it.server.call("VM.get_platform", it.bench.vm(guest).ref)
    it.server.call("VM.set_platform", it.bench.vm(guest).ref, {**platform, "cores-per-socket": "3"})
    with pytest.raises(Refused) as caught:
        finish(it, guest)
    assert caught.value.code == "bad_hardware"
    assert it.sizes(guest) == OLD


@pytest.mark.parametrize(
    ("step", "verb", "code"),
    [
        (None, "finish", "resize_not_begun"),
        (Step.BEGUN, "finish", "resize_not_begun"),
        (Step.REVERTING, "finish", "resize_reverting"),
        (Step.BEGUN, "confirm", "resize_not_finished"),
        (Step.KEPT, "confirm", "resize_not_finished"),
        (Step.REVERTING, "confirm", "resize_reverting"),
        (Step.FINISHED, "begin", "resize_unconfirmed"),
        (Step.REVERTING, "begin", "resize_unconfirmed"),
        (Step.FINISHED, "migrate", "resize_unconfirmed"),
    ],
)
def test_what_does_not_follow_is_refused(it: Pair, step: Step | None, verb: str, code: str) -> None:
    guest = it.guest(running=False)
    vm = it.bench.vm(guest)
    if step is not None:
        way = WayBack(step, Sizes((1, 2, 3, 4), (1, 1)))
        it.server.call("VM.add_to_other_config", vm.ref, removal.RESIZE_KEY, way.to_text())
    before = it.bench.vm(guest)
    verbs = {
        "begin": lambda: begin(it, guest),
        "finish": lambda: finish(it, guest),
        "confirm": lambda: it.driver.confirm_migration(guest),
        "migrate": lambda: it.driver.live_migration(
            guest, it.driver.check_can_live_migrate_destination(guest, node=it.there), progress=Steps()
        ),
    }
    with pytest.raises(Refused) as caught:
        verbs[verb]()
    assert caught.value.code == code
    assert it.bench.vm(guest) == before


def test_a_node_without_room_is_refused_while_the_guest_runs(it: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = it.guest(local=True)
    monkeypatch.setattr(moves, "repositories_at", lambda parts, host: [_full(it)])
    with pytest.raises(StorageFull):
        begin(it, guest, it.there)
    assert it.bench.state(guest) is PowerState.RUNNING
    assert it.notes(guest) == set()


def _full(it: Pair) -> Any:
    return Repository(it.local[it.there], "", "full", 0, True)


def test_a_guest_that_cannot_start_with_its_sizes_can_go_back(it: Pair) -> None:
    guest = it.guest()
    begin(it, guest)
    with pytest.raises(XenServerFailure) as caught:
        it.driver.finish_migration(replace(guest, memory_mb=1024**2), progress=Steps())
    assert caught.value.details[0] == "HOST_NOT_ENOUGH_FREE_MEMORY"
    assert it.bench.state(guest) is PowerState.SHUTDOWN
    it.driver.finish_revert_migration(guest)
    assert it.sizes(guest) == OLD
    assert it.bench.state(guest) is PowerState.RUNNING


INTERRUPTIONS = {
    "begin": [
        (power, "shut_down"),
        (branches, "clone"),
        (disks, "claim"),
        (moves, "move"),
        (moves, "eject"),
        (moves, "settle"),
    ],
    "finish": [(resize, "_set_sizes"), (disks, "resize"), (power, "start")],
    "confirm": [(disks, "destroy"), (resize, "_remove_kept")],
    "revert": [
        (resize, "_exchange"),
        (disks, "detach"),
        (disks, "attach"),
        (disks, "claim"),
        (moves, "move"),
        (moves, "eject"),
        (resize, "_set_sizes"),
        (resize, "_remove_kept"),
    ],
}
"""Where the process dies, before or after: nothing of ours runs any more then, not even what would undo."""

DEATHS = [pytest.param(verb, *each, id=f"{verb}-{each[1]}") for verb, all_ in INTERRUPTIONS.items() for each in all_]


def prepared(it: Pair, guest: Wanted, verb: str) -> Callable[[], None]:
    """A verb, after all that comes before it was done."""
    if verb != "begin":
        begin(it, guest, it.there)
    if verb in ("confirm", "revert"):
        finish(it, guest, power_on=False)
    verbs: dict[str, Callable[[], None]] = {
        "begin": lambda: begin(it, guest, it.there),
        "finish": lambda: finish(it, guest),
        "confirm": lambda: it.driver.confirm_migration(guest),
        "revert": lambda: it.driver.finish_revert_migration(guest),
    }
    return verbs[verb]


class Died(BaseException):
    """Raised in the place of everything after the process's death."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("verb", "module", "name"), DEATHS)
def test_a_dead_process_leaves_what_another_one_finishes(
    it: Pair, monkeypatch: pytest.MonkeyPatch, verb: str, module: Any, name: str, when: str
) -> None:
    guest = it.guest(local=True, running=verb == "begin")
    run = prepared(it, guest, verb)
    _die_at(it, monkeypatch, module, name, when, run)
    run()
    if verb == "begin":
        finish(it, guest)
    if verb in ("begin", "finish"):
        it.driver.confirm_migration(guest)
    assert it.sizes(guest) == (OLD if verb == "revert" else NEW)
    place = it.here if verb == "revert" else "shared"
    assert it.places(guest) == {"0": place, "3": place}
    assert it.notes(guest) == set()
    assert kept(it, guest) == []


@pytest.mark.parametrize(("verb", "module", "name"), DEATHS)
def test_destroy_in_the_middle_leaves_nothing(
    it: Pair, monkeypatch: pytest.MonkeyPatch, verb: str, module: Any, name: str
) -> None:
    guest = it.guest(local=True, running=False)
    verbs = prepared(it, guest, verb)
    _die_at(it, monkeypatch, module, name, "after", verbs)
    it.driver.destroy(guest)
    it.bench.assert_nothing_left()


def test_destroy_finds_a_clone_that_bears_no_marks_yet(it: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = it.guest(running=False)
    _die_at(it, monkeypatch, disks, "claim", "before", lambda: begin(it, guest))
    assert len(it.server.call("VDI.get_by_name_label", f"instance-{guest.uuid} root")) == 2
    it.driver.destroy(guest)
    it.bench.assert_nothing_left()


def _die_at(it: Pair, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, when: str, verb: Any) -> None:
    """Do something until a function is called, and nothing after that."""
    real, call = getattr(module, name), it.server.call

    def dead(*arguments: Any, **named: Any) -> Any:
        raise Died

    def dying(*arguments: Any, **named: Any) -> Any:
        if when == "after":
            real(*arguments, **named)
        patch.setattr(it.server, "call", dead)
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(module, name, dying)
        # A verb that never comes there ends well.
        try:
            verb()
        except Died:
            pass
    assert it.server.call == call


def test_a_copy_of_the_disk_that_somebody_made_stays(it: Pair) -> None:
    guest = it.guest(running=False)
    disk = it.bench.disks(guest)["0"]
    # As after a crash long ago.
    it.server.call("VDI.add_to_other_config", disk, "xenward:branch:stray", "1000")
    copy = it.server.call("VDI.clone", disk, {})
    begin(it, guest)
    finish(it, guest, power_on=False)
    it.driver.confirm_migration(guest)
    it.driver.destroy(guest)
    it.server.call("VDI.destroy", copy)


def test_cleanup_spares_what_leads_back(it: Pair) -> None:
    guest = it.guest()
    begin(it, guest)
    it.driver.cleanup(guest)
    assert len(kept(it, guest)) == 1
    finish(it, guest)
    it.driver.finish_revert_migration(guest)
    assert it.sizes(guest) == OLD


@pytest.mark.parametrize("fault", ["fails", "loses its answer"])
def test_one_fault_at_each_call_of_a_cold_migration(it: Pair, fault: str) -> None:
    def check(guest: Wanted, error: Unsuccessful | None) -> None:
        if error is not None:
            assert it.notes(guest) == set()
            assert it.sizes(guest) == OLD
            assert it.places(guest) == {"0": it.here, "3": it.here}
            assert kept(it, guest) == []
            begin(it, guest, it.there)
        assert it.places(guest) == {"0": "shared", "3": "shared"}
        finish(it, guest)
        running_at(it, guest, it.there)

    rows = each_fault(
        it, lambda: it.guest(local=True, running=False), lambda guest: begin(it, guest, it.there), check, fault=fault
    )
    assert wrong(rows) == []
    assert any("VM.migrate_send" in row.call for row in rows)


@pytest.mark.parametrize("fault", ["fails", "loses its answer"])
def test_one_fault_at_each_call_on_the_way_back(it: Pair, fault: str) -> None:
    def prepare() -> Wanted:
        guest = it.guest(local=True, running=False)
        begin(it, guest, it.there)
        finish(it, guest, power_on=False)
        return guest

    def check(guest: Wanted, error: Unsuccessful | None) -> None:
        if error is not None:
            it.driver.finish_revert_migration(guest)
        assert it.notes(guest) == set()
        assert it.sizes(guest) == OLD
        assert it.places(guest) == {"0": it.here, "3": it.here}
        assert kept(it, guest) == []
        running_at(it, guest, it.here)

    rows = each_fault(it, prepare, lambda guest: it.driver.finish_revert_migration(guest), check, fault=fault)
    assert wrong(rows) == []


TEXT = st.text(max_size=20)


@given(
    st.builds(
        WayBack,
        step=st.sampled_from(Step),
        sizes=st.builds(Sizes, st.tuples(*[st.integers(0, 2**45)] * 4), st.tuples(*[st.integers(1, 64)] * 2)),
        root=TEXT,
        device=TEXT,
        size=st.integers(0, 2**45),
        kept=TEXT,
        places=st.dictionaries(TEXT, TEXT, max_size=3),
        origin=TEXT,
        node=TEXT,
        begun=TEXT,
    )
)
def test_a_way_back_survives_being_written_down(way: WayBack) -> None:
    assert WayBack.from_text(way.to_text()) == way


JSON = st.recursive(
    st.none() | st.integers() | TEXT,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXT, each, max_size=2),
    max_leaves=4,
)
NAMES = [
    "step",
    "sizes",
    "root",
    "device",
    "size",
    "kept",
    "places",
    "origin",
    "node",
    "begun",
    "host",
    "disks",
    "discs",
]


@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=9) | JSON, st.sampled_from([WayBack, moves.MoveNote]))
def test_notes_that_somebody_changed(untrusted: object, kind: Any) -> None:
    try:
        kind.from_text(json.dumps(untrusted))
    except Failed as error:
        assert error.code in ("bad_resize_note", "bad_move_note")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "{}", '{"step": "begun"}'])
def test_notes_that_are_none(text: str) -> None:
    for kind in (WayBack, moves.MoveNote):
        with pytest.raises(Failed):
            kind.from_text(text)
