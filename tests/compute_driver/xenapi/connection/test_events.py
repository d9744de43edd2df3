from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from compute_driver.errors import ObjectGone, XenServerUnreachable
from compute_driver.xenapi.connection.cache import INSTANCE_KEY, Change, View
from compute_driver.xenapi.connection.events import Events
from compute_driver.xenapi.connection.session import Connection, XenServer
from tools.simulator.process import SimulatorProcess

from ..bad_server import DEADLINE, BadServer, Drop, Failure, client
from ..waiting import eventually, vm_record


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(["--no-agent", "--login-failure-delay", "0"]) as it:
        it.control.log_calls()
        yield it


@pytest.fixture
def xenserver(simulator: SimulatorProcess) -> Iterator[XenServer]:
    server = XenServer(Connection(simulator.url, simulator.username, simulator.password))
    assert server.events.await_change(lambda view: True, DEADLINE)
    yield server
    simulator.control.clear_rules()
    server.close()


def calls_of(simulator: SimulatorProcess, name: str) -> int:
    """How many of them arrived until now."""
    return sum(call.name == name for call in simulator.control.read_calls())


def make(xenserver: XenServer, **changes: Any) -> str:
    return str(xenserver.call("VM.create", vm_record(f"instance-{uuid.uuid4()}", **changes)))


def test_what_changes_is_read_without_calls(xenserver: XenServer, simulator: SimulatorProcess) -> None:
    instance = str(uuid.uuid4())
    vm = make(xenserver, other_config={INSTANCE_KEY: instance})
    xenserver.events.barrier()
    simulator.control.clear_calls()
    row = xenserver.events.record("VM", vm)
    assert xenserver.events.by_uuid("VM", row["uuid"]) == (vm, row)
    assert xenserver.events.vm_of(instance) == (vm, row)
    assert vm in xenserver.events.records("VM")
    assert xenserver.events.record("VM_metrics", row["metrics"])["VCPUs_number"]
    assert 0 <= xenserver.events.age < 40
    assert [call.name for call in simulator.control.read_calls() if call.name != "event.from"] == []


def test_after_a_barrier_all_that_happened_is_read(xenserver: XenServer) -> None:
    vm = make(xenserver)
    for number in range(5):
        xenserver.call("VM.set_name_description", vm, str(number))
        xenserver.events.barrier()
        assert xenserver.events.record("VM", vm)["name_description"] == str(number)


def test_an_object_made_a_moment_ago_is_there_and_one_that_never_was_is_not(xenserver: XenServer) -> None:
    for _ in range(3):
        vm = make(xenserver)
        assert xenserver.events.record("VM", vm)["power_state"] == "Halted"
        found = xenserver.events.by_uuid("VM", xenserver.call("VM.get_uuid", vm))
        assert found.ref == vm
    for read in (xenserver.events.record, xenserver.events.by_uuid):
        with pytest.raises(ObjectGone):
            read("VM", "OpaqueRef:never")
    assert xenserver.events.vm_of("never") is None


def test_what_may_be_too_old_is_asked_for(xenserver: XenServer, simulator: SimulatorProcess) -> None:
    simulator.control.clear_calls()
    assert xenserver.events.records("VM", max_age=0.0)
    assert calls_of(simulator, "VM.get_all_records") == 1


def test_a_waiter_sees_the_state_it_waits_for_and_asks_nobody(
    xenserver: XenServer, simulator: SimulatorProcess
) -> None:
    vm = make(xenserver)
    xenserver.events.barrier()
    simulator.control.clear_calls()
    rows: list[Any] = []

    def wait() -> None:
        rows.append(xenserver.events.wait_for("VM", vm, lambda row: row["power_state"] == "Running", DEADLINE))

    waiter = threading.Thread(target=wait)
    waiter.start()
    xenserver.call("VM.start", vm, False, False)
    waiter.join(DEADLINE)
    assert rows[0]["power_state"] == "Running"
    assert calls_of(simulator, "VM.get_record") == 0
    assert xenserver.events.wait_for("VM", vm, lambda row: row["power_state"] == "Halted", 0.2) is None
    xenserver.call("VM.hard_shutdown", vm)


def test_a_waiter_learns_that_its_object_is_gone(xenserver: XenServer) -> None:
    vm = make(xenserver)
    xenserver.events.barrier()
    threading.Timer(0.1, lambda: xenserver.call("VM.destroy", vm)).start()
    with pytest.raises(ObjectGone):
        xenserver.events.wait_for("VM", vm, lambda row: row["power_state"] == "Running", DEADLINE)


def test_tasks_of_others_are_not_kept(xenserver: XenServer) -> None:
    mine, other = (xenserver.call("task.create", name, "") for name in ("mine", "other"))
    xenserver.events.keep(mine)
    for task in (mine, other):
        xenserver.call("task.set_progress", task, 0.5)
    xenserver.events.barrier()
    assert set(xenserver.events.records("task")) == {mine}
    xenserver.events.let_go(mine)
    assert not xenserver.events.records("task")


def test_subscribers_are_told_of_changes_and_none_of_them_stops_the_others(xenserver: XenServer) -> None:
    told: list[Change] = []

    def fail(change: Change) -> None:
        raise RuntimeError(change.ref)

    xenserver.events.subscribe(fail)
    unsubscribe = xenserver.events.subscribe(told.append)
    vm = make(xenserver)
    xenserver.call("VM.start", vm, False, False)
    eventually(lambda: [it for it in told if it.ref == vm and it.after and it.after["power_state"] == "Running"])
    unsubscribe()
    later: list[Change] = []
    xenserver.events.subscribe(later.append)
    told.clear()
    xenserver.call("VM.hard_shutdown", vm)
    eventually(lambda: [it for it in later if it.after and it.after.get("power_state") == "Halted"])
    assert told == []
    assert xenserver.events.is_live


# Interruptions


@pytest.mark.parametrize("what", ["expire_sessions", "reset_event_tokens", "restart_toolstack", "lose_events"])
def test_after_an_interruption_all_is_listed_anew_and_differences_are_told(
    xenserver: XenServer, simulator: SimulatorProcess, what: str
) -> None:
    vm = make(xenserver)
    xenserver.events.barrier()
    told: list[Change] = []
    xenserver.events.subscribe(told.append)
    simulator.control.clear_calls()
    getattr(simulator.control, what)()
    xenserver.call("VM.set_name_description", vm, what)
    eventually(lambda: [it for it in told if it.after is not None and it.after.get("name_description") == what])
    assert xenserver.events.await_change(lambda view: True, DEADLINE)
    xenserver.events.barrier()
    assert xenserver.events.record("VM", vm)["name_description"] == what


@pytest.mark.parametrize("what", ["expire_sessions", "restart_toolstack", "lose_events"])
def test_after_an_interruption_alone_subscribers_are_told_that_there_was_one(
    xenserver: XenServer, simulator: SimulatorProcess, what: str
) -> None:
    vm = make(xenserver)
    xenserver.events.barrier()
    told: list[Change] = []
    listed: list[View] = []
    xenserver.events.subscribe(told.append, listed.append)
    xenserver.call("VM.set_name_label", vm, "no interruption")
    eventually(lambda: told)
    assert listed == []
    getattr(simulator.control, what)()
    # The rule that loses events waits for the next change.
    xenserver.call("VM.set_name_label", vm, what)
    eventually(lambda: listed)
    assert listed[-1].records("VM")[vm]["name_label"] == what


def test_while_the_stream_is_down_reads_are_calls(xenserver: XenServer, simulator: SimulatorProcess) -> None:
    instance = str(uuid.uuid4())
    vm = make(xenserver, other_config={INSTANCE_KEY: instance})
    simulator.control.add_rule("event.from", "fail", error=["INTERNAL_ERROR", "no events"])
    simulator.control.expire_sessions()
    eventually(lambda: not xenserver.events.is_live)
    simulator.control.clear_calls()
    assert xenserver.events.record("VM", vm)["power_state"] == "Halted"
    xenserver.call("VM.set_name_description", vm, "changed meanwhile")
    assert xenserver.events.record("VM", vm)["name_description"] == "changed meanwhile"
    assert xenserver.events.records("VM")[vm]["name_description"] == "changed meanwhile"
    found = xenserver.events.vm_of(instance)
    assert found is not None and found.ref == vm
    assert xenserver.events.age == 0.0
    xenserver.events.barrier()
    xenserver.call("VM.set_name_label", vm, "not by its name")
    found = xenserver.events.vm_of(instance)
    assert found is not None and found.ref == vm
    waited = xenserver.events.wait_for("VM", vm, lambda row: row["name_label"] == "not by its name", DEADLINE)
    assert waited is not None
    assert calls_of(simulator, "VM.get_record") >= 3
    simulator.control.clear_rules()
    assert xenserver.events.await_change(lambda view: vm in view.records("VM"), DEADLINE)


def test_the_stream_ends_with_its_client(simulator: SimulatorProcess) -> None:
    server = XenServer(Connection(simulator.url, simulator.username, simulator.password))
    assert server.events.await_change(lambda view: True, DEADLINE)
    thread = server.events._thread
    simulator.control.clear_calls()
    server.close()
    assert not thread.is_alive()
    assert calls_of(simulator, "session.logout") >= 1


# Answers that are none

TOKEN = "00000000000000000001,00000000000000000000"
CLASSES = ("vm", "vm_metrics", "vm_guest_metrics", "vbd", "vdi", "vif", "sr", "pbd", "sm", "network", "pif", "host")


def batch(*refs: str, token: str = TOKEN, count: int | None = None) -> Any:
    """A behaviour: tells of these VMs."""
    events = [
        {"class": "vm", "operation": "add", "ref": ref, "snapshot": {"uuid": f"uuid-{ref}", "name_label": ref}}
        for ref in refs
    ]
    counts = {**dict.fromkeys(CLASSES, 0), "vm": len(refs) if count is None else count}
    return lambda *_: {"events": events, "valid_ref_counts": counts, "token": token}


def quiet(server: BadServer, released: threading.Event) -> Any:
    """A behaviour: nothing happens until then."""
    return lambda *_: (released.wait(DEADLINE), {"events": [], "valid_ref_counts": {}, "token": TOKEN})[1]


def asked_anew(server: BadServer) -> int:
    """How often everything was asked for."""
    return sum(call[0] == "event.from" and call[3] == "" for call in server.calls)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    it = threading.Event()
    yield it
    it.set()


@pytest.mark.parametrize(
    "bad",
    [
        "no batch",
        lambda *_: {"events": "x", "valid_ref_counts": {}, "token": TOKEN},
        lambda *_: {"events": [], "valid_ref_counts": {}, "token": "x"},
        lambda *_: {"events": [{"class": "vm"}], "valid_ref_counts": {}, "token": TOKEN},
        batch("a", count=5),
        Drop(),
        Failure(("EVENT_FROM_TOKEN_PARSE_FAILURE", TOKEN)),
        Failure(("SESSION_INVALID", "x")),
        Failure(("EVENTS_LOST",)),
    ],
)
def test_after_an_answer_that_is_none_all_is_listed_anew(
    server: BadServer, released: threading.Event, bad: Any
) -> None:
    server.behave("event.from", batch("a"), bad, batch("a", "b"), quiet(server, released))
    xenserver = client(server)
    assert xenserver.events.await_change(lambda view: set(view.records("VM")) == {"a", "b"}, DEADLINE)
    assert asked_anew(server) == 2
    released.set()
    xenserver.close()


def test_a_listing_whose_numbers_are_wrong_is_never_read(server: BadServer, released: threading.Event) -> None:
    server.behave("event.from", *[batch("a", count=2)] * 3, batch("a"), quiet(server, released))
    server.behave("VM.get_record", {"uuid": "asked", "name_label": ""})  # type: ignore[arg-type]
    xenserver = client(server)
    seen: list[int] = []
    assert xenserver.events.await_change(lambda view: seen.append(1) or True, DEADLINE)  # type: ignore[func-returns-value]
    assert asked_anew(server) == 4
    released.set()
    xenserver.close()


def test_a_stream_that_is_silent_for_too_long_is_not_believed(
    server: BadServer, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compute_driver.xenapi.connection.events.WAIT", 0.05)
    monkeypatch.setattr("compute_driver.xenapi.connection.events.MARGIN", 0.15)
    server.behave("event.from", batch("a"), quiet(server, released))
    xenserver = client(server)
    assert xenserver.events.await_change(lambda view: True, DEADLINE)
    # Its answer is late, and so is the next one: neither thread nor cache wait for it.
    eventually(lambda: not xenserver.events.is_live)
    eventually(lambda: asked_anew(server) >= 2)
    released.set()
    xenserver.close()


def test_a_record_that_is_none_is_unreachable(server: BadServer, released: threading.Event) -> None:
    server.behave("event.from", batch("a"), quiet(server, released))
    xenserver = client(server)
    assert xenserver.events.await_change(lambda view: True, DEADLINE)
    with pytest.raises(XenServerUnreachable):
        xenserver.events.record("VM", "unknown")
    with pytest.raises(XenServerUnreachable):
        xenserver.events.barrier()
    released.set()
    xenserver.close()


def test_a_barrier_that_is_not_reached_in_time_is_told(server: BadServer, released: threading.Event) -> None:
    server.behave("event.from", batch("a"), quiet(server, released))
    server.behave("event.inject", TOKEN)
    xenserver = client(server)
    assert xenserver.events.await_change(lambda view: True, DEADLINE)
    with pytest.raises(XenServerUnreachable, match="late"):
        xenserver.events.barrier(timeout=0.1)
    released.set()
    xenserver.close()


def test_events_are_one_stream_for_all_threads(server: BadServer, released: threading.Event) -> None:
    server.behave("event.from", batch("a"), quiet(server, released))
    xenserver = client(server)
    streams: list[Events] = []
    threads = [threading.Thread(target=lambda: streams.append(xenserver.events)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert len({id(stream) for stream in streams}) == 1
    assert xenserver.events.await_change(lambda view: True, DEADLINE)
    assert server.seen("session.login_with_password") == 1
    released.set()
    xenserver.close()


def test_reading_is_quick_enough_for_every_poll_of_a_cloud(server: BadServer, released: threading.Event) -> None:
    server.behave("event.from", batch(*(f"ref-{number}" for number in range(1000))), quiet(server, released))
    xenserver = client(server)
    assert xenserver.events.await_change(lambda view: True, DEADLINE)
    before = len(server.calls)
    began = time.perf_counter()
    for number in range(1000):
        assert xenserver.events.record("VM", f"ref-{number}")["uuid"]
    # A bound that only something of another order breaks, such as a copy of all rows at each read.
    assert time.perf_counter() - began < 5.0
    assert len(server.calls) == before
    released.set()
    xenserver.close()
