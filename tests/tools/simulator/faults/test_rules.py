"""rules.py, visits.py: what a client sees of calls that are hit."""

from __future__ import annotations

import http.client
import threading
import xmlrpc.client
from collections.abc import Callable
from typing import Any

import pytest
import XenAPI

from tools.simulator.control import Control, ControlError
from tools.simulator.faults.errors import FaultError
from tools.simulator.faults.rules import Arrival, Rule, Rules
from tools.simulator.process import SimulatorProcess

from ..support import Vm, failure, until

ERROR = ["HOST_NOT_ENOUGH_FREE_MEMORY", "2", "1"]


class Raw:
    """Calls over one connection each, without the retries of the SDK's transport."""

    def __init__(self, simulator: SimulatorProcess, session: XenAPI.Session) -> None:
        self._address = simulator.plain_url.partition("//")[2]
        self._session: str = session.handle

    def call(self, name: str, *arguments: Any) -> tuple[int, bytes]:
        """Status and body of the answer."""
        connection = http.client.HTTPConnection(self._address, timeout=20)
        try:
            connection.request("POST", "/", xmlrpc.client.dumps((self._session, *arguments), name))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@pytest.fixture
def raw(simulator: SimulatorProcess, session: XenAPI.Session) -> Raw:
    return Raw(simulator, session)


class Background:
    """A call that another thread makes."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.outcome: Any = None
        self._work = work
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.outcome = self._work()
        except Exception as error:
            self.outcome = error

    def ended(self) -> Any:
        """What came of it."""
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.outcome


def names(session: XenAPI.Session) -> Any:
    return session.xenapi.pool.get_all()


def test_failure(control: Control, session: XenAPI.Session, vm: Vm) -> None:
    rule = control.add_rule("VM.start", "fail", error=ERROR)
    assert failure(vm.start, False, False) == ERROR
    assert vm.get_power_state() == "Halted"
    assert [(active.id, active.matches) for active in control.list_rules()] == [(rule, 1)]
    control.remove_rule(rule)
    vm.start(False, False)
    assert control.list_rules() == []
    with pytest.raises(ControlError, match=f"there is no rule {rule}"):
        control.remove_rule(rule)


def test_first_and_nth(control: Control, session: XenAPI.Session) -> None:
    control.add_rule("pool.get_all", "fail", error=["FIRST"], first=2)
    control.add_rule("pool.*", "fail", error=["FOURTH"], nth=4)
    outcomes = []
    for _ in range(5):
        try:
            names(session)
            outcomes.append("")
        except XenAPI.Failure as error:
            outcomes.append(error.details[0])
    assert outcomes == ["FIRST", "FIRST", "", "FOURTH", ""]
    assert [active.matches for active in control.list_rules()] == [5, 5]


def test_originator_and_arguments(control: Control, simulator: SimulatorProcess, session: XenAPI.Session) -> None:
    other = XenAPI.Session(simulator.url)
    other.login_with_password(simulator.username, simulator.password, "1.0", "other")
    control.add_rule("pool.get_all", "fail", error=["X"], originator="other")
    assert failure(names, other) == ["X"]
    assert names(session)
    control.add_rule("session.login_with_password", "fail", error=["Y"], originator="third")
    third = XenAPI.Session(simulator.url)
    login = (simulator.username, simulator.password, "1.0")
    assert failure(third.login_with_password, *login, "third") == ["Y"]
    control.add_rule("task.create", "fail", error=["Z"], arguments={"label": "bad"})
    assert failure(session.xenapi.task.create, "bad", "") == ["Z"]
    session.xenapi.task.destroy(session.xenapi.task.create("good", ""))
    other.logout()


def test_a_member_of_a_record(control: Control, session: XenAPI.Session) -> None:
    control.add_rule("network.create", "fail", error=["X"], arguments={"args.name_label": "bad"})
    record = {"name_description": "", "MTU": "1500", "other_config": {}, "tags": []}
    assert failure(session.xenapi.network.create, {"name_label": "bad", **record}) == ["X"]
    session.xenapi.network.destroy(session.xenapi.network.create({"name_label": "good", **record}))


def test_delay_ends_with_its_rule(control: Control, session: XenAPI.Session) -> None:
    rule = control.add_rule("pool.get_all", "delay", seconds=3600)
    call = Background(lambda: names(session))
    control.await_calls("pool.get_all")
    assert call.thread.is_alive()
    control.remove_rule(rule)
    assert len(call.ended()) == 1


def test_what_hangs_goes_on_when_all_rules_are_removed(control: Control, session: XenAPI.Session) -> None:
    control.add_rule("pool.get_all", "hang")
    call = Background(lambda: names(session))
    control.await_calls("pool.get_all")
    control.clear_rules()
    assert control.list_rules() == []
    assert len(call.ended()) == 1


def test_delay(control: Control, session: XenAPI.Session) -> None:
    control.add_rule("pool.get_all", "delay", seconds=0.2)
    names(session)
    (logged,) = control.await_calls("pool.get_all", ended=True)
    assert logged.duration is not None
    assert logged.duration >= 0.2


def test_hang(control: Control, session: XenAPI.Session, vm: Vm) -> None:
    rule = control.add_rule("VM.set_name_label", "hang")
    label = vm.get_name_label()
    call = Background(lambda: vm.set_name_label("hung"))
    (logged,) = control.await_calls("VM.set_name_label")
    assert (logged.outcome, logged.duration) == ("", None)
    control.remove_rule(rule)
    call.ended()
    assert label != vm.get_name_label() == "hung"


def test_drop_before(control: Control, raw: Raw, vm: Vm) -> None:
    control.add_rule("VM.start", "drop_before", first=1)
    with pytest.raises(http.client.RemoteDisconnected):
        raw.call("VM.start", vm.ref, False, False)
    assert vm.get_power_state() == "Halted"
    assert [call.outcome for call in control.await_calls("VM.start", ended=True)] == ["DROPPED"]
    assert raw.call("VM.start", vm.ref, False, False)[0] == 200


def test_drop_after(control: Control, raw: Raw, vm: Vm) -> None:
    control.add_rule("VM.start", "drop_after")
    with pytest.raises(http.client.RemoteDisconnected):
        raw.call("VM.start", vm.ref, False, False)
    assert vm.get_power_state() == "Running"
    assert [call.outcome for call in control.await_calls("VM.start", ended=True)] == ["SUCCESS"]
    # One that fails is not answered either.
    with pytest.raises(http.client.RemoteDisconnected):
        raw.call("VM.start", vm.ref, False, False)
    assert [call.outcome for call in control.await_calls("VM.start", 2, ended=True)][1] == "VM_BAD_POWER_STATE"


def test_the_sdk_repeats_what_was_dropped_once(control: Control, vm: Vm) -> None:
    # Python's own XML-RPC client sends a request again when the connection is closed without an answer.
    control.add_rule("VM.start", "drop_after", first=1)
    assert failure(vm.start, False, False)[0] == "VM_BAD_POWER_STATE"
    assert [call.outcome for call in control.read_calls() if call.name == "VM.start"] == [
        "SUCCESS",
        "VM_BAD_POWER_STATE",
    ]


def test_garbled(control: Control, raw: Raw, vm: Vm) -> None:
    rule = control.add_rule("VM.set_name_label", "garble")
    status, body = raw.call("VM.set_name_label", vm.ref, "garbled")
    assert (status, body[:6]) == (500, b"<html>")
    assert vm.get_name_label() == "garbled"
    control.remove_rule(rule)
    control.add_rule("VM.set_name_label", "garble", garbling="truncated")
    status, body = raw.call("VM.set_name_label", vm.ref, "truncated")
    assert status == 200
    with pytest.raises(Exception, match=r"no element found|unclosed token"):
        xmlrpc.client.loads(body)
    assert body.startswith(b"<?xml")
    assert vm.get_name_label() == "truncated"


def test_tasks(control: Control, session: XenAPI.Session, vm: Vm) -> None:
    api = session.xenapi
    rule = control.add_rule("VM.start", "fail", error=ERROR)
    task = api.Async.VM.start(vm.ref, False, False)
    until(lambda: api.task.get_status(task) == "failure")
    assert api.task.get_error_info(task) == ERROR
    control.remove_rule(rule)
    control.add_rule("VM.start", "fail", error=ERROR, when="request")
    assert failure(api.Async.VM.start, vm.ref, False, False) == ERROR
    api.task.destroy(task)
    assert [(call.is_async, call.outcome) for call in control.read_calls() if call.name == "VM.start"] == [
        (True, ERROR[0]),
        (True, ERROR[0]),
    ]


def test_a_request_for_a_task_is_dropped(control: Control, session: XenAPI.Session, raw: Raw, vm: Vm) -> None:
    control.add_rule("VM.start", "drop_after")
    with pytest.raises(http.client.RemoteDisconnected):
        raw.call("Async.VM.start", vm.ref, False, False)
    control.await_calls("VM.start", ended=True)
    assert vm.get_power_state() == "Running"


def test_tasks_are_stuck(control: Control, session: XenAPI.Session, vm: Vm) -> None:
    api = session.xenapi
    rule = control.stick_tasks("VM.*")
    task = api.Async.VM.start(vm.ref, False, False)
    control.await_calls("VM.start")
    api.task.cancel(task)
    assert api.task.get_status(task) == "pending"
    # What is not asynchronous is not hit.
    assert vm.get_power_state() == "Halted"
    control.remove_rule(rule)
    until(lambda: api.task.get_status(task) == "cancelled")
    api.task.destroy(task)


@pytest.mark.parametrize(
    ("pattern", "action", "more"),
    [
        ("", "fail", {"error": ["X"]}),
        ("VM.[a-z]*", "fail", {"error": ["X"]}),
        ("V" * 101, "fail", {"error": ["X"]}),
        ("VM.start", "fail", {}),
        ("VM.start", "fail_late", {}),
        ("VM.start", "delay", {}),
        ("VM.start", "delay", {"seconds": -1.0}),
        ("VM.start", "delay", {"seconds": float("nan")}),
        ("VM.start", "delay", {"seconds": float("inf")}),
        ("VM.start", "hang", {"seconds": 1.0}),
        ("VM.start", "hang", {"size": 1}),
        ("VM.start", "hang", {"nth": 0}),
        ("VM.start", "hang", {"first": 0}),
        ("VM.start", "hang", {"first": -1}),
        ("VM.start", "hang", {"first": 1, "nth": 1}),
        ("VM.start", "hang", {"error": ("X",)}),
        ("VM.start", "throttle", {}),
        ("VM.start", "explode", {}),
        ("VM.start", "drop_after", {"when": "task"}),
        ("VM.start", "drop_after", {"target": "plugin"}),
        ("VM.start", "garble", {"garbling": "nonsense"}),
        ("VM.start", "hang", {"target": "nonsense"}),
    ],
)
def test_rules_that_make_no_sense(pattern: str, action: Any, more: dict[str, Any]) -> None:
    with pytest.raises(FaultError):
        Rule(pattern, action, **more)


def test_a_pattern_must_match_something(control: Control) -> None:
    for pattern, action in (("VM.strat", "hang"), ("VM.start", "cut"), ("Async.nothing", "hang")):
        with pytest.raises(ControlError, match="nothing that can be hit"):
            control.add_rule(pattern, action)  # type: ignore[arg-type]
    assert control.list_rules() == []


def test_what_is_counted() -> None:
    rules = Rules()
    rules.add(Rule("VM.*", "cut", size=1))
    rules.add(Rule("*", "hang"))
    rules.add(Rule("Async.VM.*", "hang"))
    rules.add(Rule("*", "hang", target="plugin"))
    rules.match(Arrival("call", "VM.start"))
    rules.match(Arrival("call", "VM.start", is_async=True))
    rules.match(Arrival("data", "import"))
    rules.match(Arrival("plugin", "xenward.ping"))
    assert [active.matches for active in rules.active()] == [0, 3, 1, 1]


def test_there_are_not_too_many_rules() -> None:
    rules = Rules()
    for _ in range(1000):
        rules.add(Rule("*", "hang"))
    with pytest.raises(FaultError):
        rules.add(Rule("*", "hang"))
