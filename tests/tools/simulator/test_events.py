"""Events: tokens, classes, batches and waiting, through the official SDK."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import XenAPI
from hypothesis import given
from hypothesis import strategies as st

from tools.simulator import errors
from tools.simulator.changes import KEPT_DELETIONS, MAX_DELETIONS, ChangeLog
from tools.simulator.process import SimulatorProcess
from tools.simulator.subscriptions import Interest, Subscription, Token

from .support import Vm, failure, make_vm, until

TOKEN = re.compile(r"[0-9]{20},[0-9]{20}\Z")

Login = Callable[[], XenAPI.Session]


def since(session: XenAPI.Session, classes: list[str], token: str = "", timeout: float = 0.0) -> dict[str, Any]:
    """event.from, whose name is a keyword."""
    batch: dict[str, Any] = getattr(session.xenapi.event, "from")(classes, token, timeout)
    return batch


def threads(simulator: SimulatorProcess) -> int:
    return len(list(Path(f"/proc/{simulator.pid}/task").iterdir()))


@pytest.fixture
def login(simulator: SimulatorProcess) -> Iterator[Login]:
    sessions = []

    def log_in() -> XenAPI.Session:
        session = XenAPI.Session(simulator.url)
        session.login_with_password(simulator.username, simulator.password, "1.0", "events")
        sessions.append(session)
        return session

    yield log_in
    for session in sessions:
        session("close")()


class Background:
    """A call in another thread, with what came of it."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.result: Any = None
        self.error: Exception | None = None

        def run() -> None:
            try:
                self.result = call(*arguments)
            except Exception as error:
                self.error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def is_waiting(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> Any:
        """The call's result, or its error raised."""
        self._thread.join(10)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


# Tokens and classes


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_tokens_survive_the_wire_and_sort_as_text(database: int, messages: int) -> None:
    token = Token(database, messages)
    assert TOKEN.match(str(token))
    assert Token.parse(str(token)) == token
    assert (str(Token(0, messages)) < str(token)) == (database > 0)


@given(st.text())
def test_other_tokens_are_refused(text: str) -> None:
    numbers = text.split(",")
    if not text or (len(numbers) == 2 and all(number.isascii() and number.isdigit() for number in numbers)):
        return
    with pytest.raises(errors.ApiError) as caught:
        Token.parse(text)
    assert caught.value.description == ["EVENT_FROM_TOKEN_PARSE_FAILURE", text]


NAMES = st.sampled_from(["vm", "vdi", "host_metrics", "*", ""])
REFS = st.sampled_from(["OpaqueRef:1", "OpaqueRef:1/2", "", "*"])


@given(st.lists(st.tuples(NAMES, st.none() | REFS, st.booleans())), NAMES, REFS)
def test_what_a_subscription_matches(wanted: list[tuple[str, str | None, bool]], cls: str, ref: str) -> None:
    texts = [
        (name.upper() if upper else name) + ("" if wanted_ref is None else f"/{wanted_ref}")
        for name, wanted_ref, upper in wanted
    ]
    subscription = Subscription.parse(texts)
    expected = any(
        (name, wanted_ref) == ("*", None) or (name == cls and wanted_ref in (None, ref))
        for name, wanted_ref, _ in wanted
    )
    assert subscription.matches(cls, ref) == expected
    assert subscription.concerns(cls) == any(subscription.matches(cls, other) for other in (ref, *known(texts)))


def known(texts: list[str]) -> list[str]:
    return [interest.ref for interest in map(Interest.parse, texts) if interest.ref is not None]


# The log of changes


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())), st.integers(0, 20))
def test_the_log_says_what_happened(writes: list[tuple[str, bool]], start: int) -> None:
    log = ChangeLog(["VM"])
    histories: list[dict[str, int]] = [{}]
    for name, deletes in writes:
        present = dict(histories[-1])
        if not deletes:
            log.write("VM", name)
            present[name] = len(histories)
        elif name in present:
            log.delete("VM", name)
            del present[name]
        else:
            continue
        histories.append(present)
    start = min(start, len(histories) - 1)
    before, after = histories[start], histories[-1]
    added, modified, deleted = ({change.ref for change in changes} for changes in log.since("VM", start))
    # One that was deleted and made anew is another object for a client, but these have one name here.
    reborn = {ref for ref in before if any(ref not in present for present in histories[start:])}
    assert added == {ref for ref in after if ref not in before or ref in reborn}
    assert modified == {ref for ref in after if after[ref] > start} - added
    assert deleted == {ref for ref in before if ref not in after} | (reborn & set(before))


def test_deletions_are_remembered_for_a_while() -> None:
    log = ChangeLog(["VM"])
    for number in range(MAX_DELETIONS + 1):
        log.write("VM", str(number))
    start = log.generation
    for number in range(MAX_DELETIONS):
        log.delete("VM", str(number))
    assert len(log.since("VM", start).deleted) == MAX_DELETIONS
    log.delete("VM", str(MAX_DELETIONS))
    forgotten = log.since("VM", start).deleted
    assert [int(change.ref) for change in forgotten] == list(range(MAX_DELETIONS, MAX_DELETIONS - KEPT_DELETIONS, -1))


# event.from


def test_first_batch_has_everything(session: XenAPI.Session, vm: Vm) -> None:
    batch = since(session, ["VM"])
    assert set(batch) == {"events", "valid_ref_counts", "token"}
    assert TOKEN.match(batch["token"])
    assert {event["ref"] for event in batch["events"]} == set(session.xenapi.VM.get_all())
    assert batch["valid_ref_counts"]["vm"] == len(session.xenapi.VM.get_all())
    assert batch["valid_ref_counts"]["pool"] == 1
    assert "message" not in batch["valid_ref_counts"]
    (event,) = (event for event in batch["events"] if event["ref"] == vm.ref)
    assert set(event) == {"id", "timestamp", "class", "operation", "ref", "snapshot"}
    assert (event["class"], event["operation"], event["timestamp"]) == ("vm", "add", "0.0")
    assert 0 < int(event["id"]) <= int(batch["token"].split(",")[0])
    assert event["snapshot"] == vm.get_record()


def test_batches_hold_each_object_once(session: XenAPI.Session, vm: Vm) -> None:
    token = since(session, ["vm"])["token"]
    vm.set_name_label("first")
    vm.set_name_label("second")
    vm.add_to_other_config("a", "1")
    batch = since(session, ["vm"], token)
    (event,) = batch["events"]
    assert (event["operation"], event["ref"]) == ("mod", vm.ref)
    assert event["snapshot"]["name_label"] == "second"
    assert event["snapshot"]["other_config"]["a"] == "1"
    assert since(session, ["vm"], batch["token"])["events"] == []


def test_values_that_stay_are_no_change(session: XenAPI.Session, vm: Vm) -> None:
    token = since(session, ["vm"])["token"]
    vm.set_name_label("test")
    vm.remove_from_other_config("nothing")
    assert since(session, ["vm"], token)["events"] == []


def test_additions_and_deletions(session: XenAPI.Session, vm: Vm) -> None:
    token = since(session, ["vm"])["token"]
    other = make_vm(session)
    other.set_name_label("other")
    batch = since(session, ["VM"], token)
    (event,) = batch["events"]
    assert (event["operation"], event["ref"], event["snapshot"]["name_label"]) == ("add", other.ref, "other")
    make_vm(session).destroy()
    assert since(session, ["vm"], batch["token"])["events"] == []
    other.destroy()
    batch = since(session, ["vm"], batch["token"])
    (event,) = batch["events"]
    assert set(event) == {"id", "timestamp", "class", "operation", "ref"}
    assert (event["operation"], event["ref"]) == ("del", other.ref)


def test_both_ends_of_a_relation_change(session: XenAPI.Session, vm: Vm) -> None:
    token = since(session, ["*"])["token"]
    network = session.xenapi.network.get_all()[0]
    record = {"device": "0", "network": network, "VM": vm.ref, "MAC": "", "MTU": "1500"}
    vif = session.xenapi.VIF.create(
        {**record, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
    )
    events = since(session, ["*"], token)["events"]
    found = {(event["class"], event["operation"]): event for event in events if event["class"] != "task"}
    assert found["vif", "add"]["ref"] == vif
    assert found["vm", "mod"]["snapshot"]["VIFs"] == [vif]
    assert vif in found["network", "mod"]["snapshot"]["VIFs"]


@pytest.mark.parametrize(
    ("classes", "count"),
    [
        (["VM"], 1),
        (["vM"], 1),
        (["*"], 1),
        (["host", "VM/{vm}"], 1),
        (["VM/{vm}", "vm"], 1),
        (["VM/{uuid}"], 0),
        (["VM/"], 0),
        (["*/{vm}"], 0),
        (["host"], 0),
        (["nothing"], 0),
        ([""], 0),
        ([], 0),
    ],
)
def test_classes(session: XenAPI.Session, vm: Vm, classes: list[str], count: int) -> None:
    classes = [text.format(vm=vm.ref, uuid=vm.uuid) for text in classes]
    token = since(session, classes)["token"]
    vm.set_name_label("changed")
    events = [event for event in since(session, classes, token)["events"] if event["class"] != "task"]
    assert len(events) == count


def test_sessions_cause_no_events(session: XenAPI.Session, login: Login) -> None:
    token = since(session, ["session"])["token"]
    login()
    assert since(session, ["session", "*"], "")["events"]
    assert since(session, ["session"], token)["events"] == []


@pytest.mark.parametrize("token", ["x", "1", "1,", ",1", "1,2,3", "-1,0", " 1,0", "1,0x", "9" * 20 + ",0"])
def test_bad_tokens(session: XenAPI.Session, token: str) -> None:
    assert failure(since, session, ["*"], token) == ["EVENT_FROM_TOKEN_PARSE_FAILURE", token]


def test_short_tokens_are_understood(session: XenAPI.Session) -> None:
    assert since(session, ["pool"], "0,0")["events"]


def test_a_waiting_call_is_woken(session: XenAPI.Session, login: Login, vm: Vm) -> None:
    token = since(session, ["vm"])["token"]
    waiting = Background(since, login(), ["vm"], token, 60.0)
    # Meanwhile it has looked once and sleeps.
    since(session, [], token, 0.3)
    vm.set_name_label("woken")
    (event,) = waiting.end()["events"]
    assert event["snapshot"]["name_label"] == "woken"


def test_other_changes_do_not_end_the_waiting(session: XenAPI.Session, login: Login, vm: Vm) -> None:
    other = make_vm(session)
    token = since(session, ["vm"])["token"]
    waiting = Background(since, login(), [f"vm/{vm.ref}"], token, 60.0)
    other.set_name_label("other")
    other.destroy()
    since(session, [], token, 0.3)
    assert waiting.is_waiting()
    vm.set_name_label("mine")
    assert [event["ref"] for event in waiting.end()["events"]] == [vm.ref]


def test_the_time_passes_without_events(session: XenAPI.Session) -> None:
    token = since(session, ["vm"])["token"]
    batch = since(session, ["vm"], token, 0.2)
    assert batch["events"] == []
    assert batch["token"] >= token


def test_a_client_that_follows_the_pool(session: XenAPI.Session, login: Login, vm: Vm) -> None:
    states: list[str] = []

    def follow(client: XenAPI.Session, token: str) -> None:
        while states[-1:] != ["gone"]:
            batch = since(client, ["VM"], token, 30.0)
            token = batch["token"]
            for event in batch["events"]:
                if event["ref"] == vm.ref:
                    states.append("gone" if event["operation"] == "del" else event["snapshot"]["power_state"])

    following = Background(follow, login(), since(session, ["VM"])["token"])
    for call, expected in (
        (lambda: vm.start(False, False), "Running"),
        (vm.pause, "Paused"),
        (vm.unpause, "Running"),
        (vm.hard_shutdown, "Halted"),
    ):
        call()
        until(lambda expected=expected: states[-1:] == [expected])
    vm.destroy()
    following.end()
    assert set(states) == {"Running", "Paused", "Halted", "gone"}


def test_nothing_is_missed_while_others_work(session: XenAPI.Session, login: Login) -> None:
    vms = [make_vm(session) for _ in range(4)]
    token = since(session, ["VM"])["token"]

    def work(client: XenAPI.Session, ref: str) -> None:
        for round_ in range(3):
            client.xenapi.VM.start(ref, False, False)
            client.xenapi.VM.hard_shutdown(ref)
            client.xenapi.VM.set_name_description(ref, f"done {round_}")

    workers = [Background(work, login(), vm.ref) for vm in vms]
    records: dict[str, Any] = {}
    while any(records.get(vm.ref, {}).get("name_description") != "done 2" for vm in vms):
        batch = since(session, ["VM"], token, 30.0)
        assert batch["events"]
        assert batch["token"] > token
        token = batch["token"]
        refs = [event["ref"] for event in batch["events"]]
        assert len(refs) == len(set(refs))
        records.update((event["ref"], event["snapshot"]) for event in batch["events"])
    for worker in workers:
        worker.end()
    for vm in vms:
        assert records[vm.ref]["power_state"] == "Halted"
        vm.destroy()


def test_many_wait_at_once(session: XenAPI.Session, login: Login, simulator: SimulatorProcess, vm: Vm) -> None:
    before = threads(simulator)
    token = since(session, ["vm"])["token"]
    clients = [login() for _ in range(50)]
    waiting = [Background(since, client, ["vm"], token, 60.0) for client in clients]
    until(lambda: threads(simulator) >= before + len(clients))
    vm.set_name_label("everybody")
    for call in waiting:
        (event,) = call.end()["events"]
        assert event["snapshot"]["name_label"] == "everybody"


def test_one_session_may_wait_more_than_once(session: XenAPI.Session, simulator: SimulatorProcess, vm: Vm) -> None:
    token = since(session, ["vm"])["token"]
    calls = []
    for classes in (["vm"], [f"vm/{vm.ref}"]):
        proxy = xmlrpc.client.ServerProxy(simulator.url)
        calls.append(Background(getattr(proxy.event, "from"), session.handle, classes, token, 60.0))
    vm.set_name_label("both")
    assert [len(call.end()["Value"]["events"]) for call in calls] == [1, 1]


def test_logout_ends_the_waiting(simulator: SimulatorProcess, login: Login) -> None:
    session = login()
    handle = session.handle
    token = since(session, ["network"])["token"]
    before = threads(simulator)
    with xmlrpc.client.ServerProxy(simulator.url) as proxy:
        waiting = Background(getattr(proxy.event, "from"), handle, ["network"], token, 60.0)
        until(lambda: threads(simulator) > before)
        session.logout()
        assert waiting.end() == {"Status": "Failure", "ErrorDescription": ["SESSION_INVALID", handle]}


@pytest.mark.parametrize("method", ["event.from", "event.next"])
def test_a_client_that_goes_away_holds_no_thread(
    session: XenAPI.Session, simulator: SimulatorProcess, method: str
) -> None:
    token = since(session, ["pool"])["token"]
    session.xenapi.event.register(["pool"])
    before = threads(simulator)
    port = int(simulator.url.rpartition(":")[2])
    arguments = (["pool"], token, 3600.0) if method == "event.from" else ()
    body = xmlrpc.client.dumps((session.handle, *arguments), method)
    connections = []
    for _ in range(5):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", "/", body)
        connections.append(connection)
    until(lambda: threads(simulator) >= before + 5)
    for connection in connections:
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
    until(lambda: threads(simulator) <= before)


def test_inject_marks_a_moment(session: XenAPI.Session, vm: Vm) -> None:
    before = since(session, ["vm"])["token"]
    mark = session.xenapi.event.inject("VM", vm.ref)
    assert TOKEN.match(mark)
    assert mark >= before.split(",")[0] + "," + "0" * 20
    batch = since(session, ["vm"], before)
    assert [event["ref"] for event in batch["events"]] == [vm.ref]
    assert batch["token"] > mark
    assert [event["ref"] for event in since(session, ["vm"], mark)["events"]] == [vm.ref]
    for cls, ref in (("vm", vm.ref), ("VM", "x"), ("host", vm.ref), ("nothing", vm.ref)):
        assert failure(session.xenapi.event.inject, cls, ref) == ["HANDLE_INVALID", cls, ref]


# event.next


def test_the_old_way(session: XenAPI.Session, login: Login, vm: Vm) -> None:
    client = login()
    (error, track) = failure(client.xenapi.event.next)
    assert error == "SESSION_NOT_REGISTERED"
    assert re.match(r"trackid=[0-9a-f]{32}\Z", track)
    first = int(client.xenapi.event.get_current_id())
    client.xenapi.event.register(["vm"])
    vm.set_name_label("one")
    vm.set_name_label("two")
    events = client.xenapi.event.next()
    assert [event["snapshot"]["name_label"] for event in events] == ["one", "two"]
    assert [int(event["id"]) for event in events] == [first, first + 1]
    assert {event["class"] for event in events} == {"vm"}
    assert re.match(r"[0-9]+\.\Z", events[0]["timestamp"])
    waiting = Background(client.xenapi.event.next)
    vm.set_name_label("three")
    assert [event["snapshot"]["name_label"] for event in waiting.end()] == ["three"]
    client.xenapi.event.unregister(["VM"])
    client.xenapi.event.register(["host", "session"])
    login()
    host = session.xenapi.host.get_all()[0]
    vm.set_name_label("four")
    session.xenapi.host.set_name_description(host, "changed")
    assert [event["class"] for event in client.xenapi.event.next()] == ["host"]


def test_who_reads_too_slowly_is_told(session: XenAPI.Session, login: Login, vm: Vm) -> None:
    client = login()
    client.xenapi.event.register(["vm"])
    for number in range(60):
        vm.set_name_description(f"{number}" + 200_000 * "x")
    assert failure(client.xenapi.event.next) == ["EVENTS_LOST"]
    vm.set_name_description("short")
    assert [event["snapshot"]["name_description"] for event in client.xenapi.event.next()] == ["short"]
