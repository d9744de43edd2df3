"""Logging in, and what every call answers about sessions, names, numbers and types, through the official SDK."""

from __future__ import annotations

import threading
import time
import xmlrpc.client
from typing import Any

import pytest
import XenAPI

from tools.simulator.process import SimulatorProcess

from .support import NULL, failure


def raw(simulator: SimulatorProcess, method: str, *parameters: Any) -> Any:
    """A call without the SDK's session handling."""
    with xmlrpc.client.ServerProxy(simulator.url) as proxy:
        answer = getattr(proxy, method)(*parameters)
    assert set(answer) in ({"Status", "Value"}, {"Status", "ErrorDescription"})
    return answer.get("Value", answer.get("ErrorDescription"))


def test_login_and_logout(simulator: SimulatorProcess) -> None:
    session = XenAPI.Session(simulator.url)
    session.login_with_password(simulator.username, simulator.password, "1.0", "me")
    ref = session.handle
    assert ref.startswith("OpaqueRef:")
    assert session.xenapi.session.get_originator(ref) == "me"
    assert session.API_version == "2.21"
    host = session.xenapi.session.get_this_host(ref)
    assert session.xenapi.host.get_name_label(host) == "simulated-1"
    session.logout()
    assert raw(simulator, "pool.get_all", ref) == ["SESSION_INVALID", ref]
    session("close")()


def test_versions_of_the_login_call(simulator: SimulatorProcess) -> None:
    good = (simulator.username, simulator.password)
    for surplus in ((), ("1.0",), ("1.0", "me"), ("1.0", "me", "ignored")):
        assert raw(simulator, "session.login_with_password", *good, *surplus).startswith("OpaqueRef:")
    assert raw(simulator, "session.login_with_password", "root") == [
        "MESSAGE_PARAMETER_COUNT_MISMATCH",
        "session.login_with_password",
        "2",
        "1",
    ]


@pytest.mark.parametrize("credentials", [("root", "wrong"), ("nobody", None), ("root", ""), ("röot", "pä")])
def test_bad_login_is_late(simulator: SimulatorProcess, credentials: tuple[str, str | None]) -> None:
    name, password = credentials
    session = XenAPI.Session(simulator.url)
    started = time.monotonic()
    details = failure(session.login_with_password, name, simulator.password if password is None else password)
    assert time.monotonic() - started >= 0.05
    assert details[:2] == ["SESSION_AUTHENTICATION_FAILED", name]
    assert len(details) == 3
    session("close")()


def test_sdk_logs_in_again(session: XenAPI.Session, simulator: SimulatorProcess) -> None:
    raw(simulator, "session.logout", session.handle)
    assert session.xenapi.pool.get_all()


@pytest.mark.parametrize(
    "method",
    ["nothing", "VM.nothing", "event.get_record", "VM.set_uuid", "VM.set_power_state", "session.get_all"],
)
def test_unknown_method(session: XenAPI.Session, simulator: SimulatorProcess, method: str) -> None:
    assert raw(simulator, method, session.handle, "x") == ["MESSAGE_METHOD_UNKNOWN", method]
    assert raw(simulator, method) == ["MESSAGE_METHOD_UNKNOWN", method]
    assert raw(simulator, method, "x") == ["SESSION_INVALID", "x"]


def test_calls_that_are_not_served(session: XenAPI.Session, simulator: SimulatorProcess) -> None:
    api = session.xenapi
    host = api.host.get_all()[0]
    assert failure(api.host.dmesg, host) == ["NOT_IMPLEMENTED", "host.dmesg"]
    assert raw(simulator, "host.dmesg", "x", host) == ["SESSION_INVALID", "x"]
    assert failure(api.host.dmesg)[0] == "MESSAGE_PARAMETER_COUNT_MISMATCH"
    for removed, arguments in (("host_metrics.get_memory_free", ["x"]), ("VM.snapshot_with_quiesce", ["x", "y"])):
        assert raw(simulator, removed, session.handle, *arguments) == ["MESSAGE_REMOVED"]
        assert raw(simulator, removed, "x", *arguments) == ["SESSION_INVALID", "x"]
    internal = raw(simulator, "host.ha_stop_daemon", session.handle, host)
    assert internal[0] == "INTERNAL_ERROR"
    assert "non-pool (external) session" in internal[1]


def test_other_logins(session: XenAPI.Session, simulator: SimulatorProcess) -> None:
    good = (simulator.username, simulator.password)
    assert raw(simulator, "session.slave_local_login_with_password", "root", "wrong")[0] == (
        "SESSION_AUTHENTICATION_FAILED"
    )
    local = raw(simulator, "session.slave_local_login_with_password", *good)
    assert local.startswith("OpaqueRef:")
    assert raw(simulator, "host.is_in_emergency_mode", local) is False
    assert raw(simulator, "pool.get_all", local) == ["SESSION_INVALID", local]
    assert raw(simulator, "session.local_logout", local) == ""
    assert raw(simulator, "host.is_in_emergency_mode", local) == ["SESSION_INVALID", local]
    uuid = session.xenapi.session.get_uuid(session.handle)
    assert session.xenapi.session.get_by_uuid(uuid) == session.handle
    assert session.xenapi.session.get_all_subject_identifiers() == []
    session.xenapi.session.logout_subject_identifier("")
    assert session.xenapi.session.get_auth_user_name(session.handle) == "root"


def test_whoever_knows_a_session_can_end_it(session: XenAPI.Session, simulator: SimulatorProcess) -> None:
    good = (simulator.username, simulator.password)
    other = raw(simulator, "session.login_with_password", *good, "1.0", "other")
    uuid = session.xenapi.session.get_uuid(other)
    waiting = raw(simulator, "event.from", other, ["VM"], "", 0.0)["token"]
    answers: list[Any] = []
    thread = threading.Thread(
        target=lambda: answers.append(raw(simulator, "event.from", other, ["VM"], waiting, 60.0)), daemon=True
    )
    simulator.control.log_calls()
    simulator.control.clear_calls()
    thread.start()
    simulator.control.await_calls("event.from")
    simulator.control.log_calls(False)
    task = raw(simulator, "task.create", other, "left behind", "")
    assert session.xenapi.session.get_tasks(other) == [task]
    ref = session.xenapi.session.get_by_uuid(uuid)
    assert raw(simulator, "session.logout", ref) == ""
    thread.join(10.0)
    assert answers == [["SESSION_INVALID", other]]
    assert raw(simulator, "VM.get_all", other) == ["SESSION_INVALID", other]
    assert raw(simulator, "session.logout", other) == ["SESSION_INVALID", other]
    assert failure(session.xenapi.session.get_by_uuid, uuid) == ["UUID_INVALID", "session", uuid]
    assert failure(session.xenapi.session.get_tasks, other) == ["HANDLE_INVALID", "session", other]
    # Its tasks are anybody's.
    assert session.xenapi.task.get_status(task) == "pending"
    session.xenapi.task.set_status(task, "cancelled")
    session.xenapi.task.destroy(task)


def test_change_of_password(simulator: SimulatorProcess) -> None:
    session = raw(simulator, "session.login_with_password", simulator.username, simulator.password)
    assert raw(simulator, "session.change_password", session, "wrong", "x")[0] == "SESSION_AUTHENTICATION_FAILED"
    assert raw(simulator, "session.change_password", session, simulator.password, "")[0] == "CHANGE_PASSWORD_REJECTED"
    assert raw(simulator, "session.change_password", session, simulator.password, "other") == ""
    refused = raw(simulator, "session.login_with_password", simulator.username, simulator.password)
    assert refused[0] == "SESSION_AUTHENTICATION_FAILED"
    assert raw(simulator, "session.login_with_password", simulator.username, "other").startswith("OpaqueRef:")
    assert raw(simulator, "session.change_password", session, "other", simulator.password) == ""


def test_parameter_count(session: XenAPI.Session) -> None:
    api = session.xenapi
    mismatch = "MESSAGE_PARAMETER_COUNT_MISMATCH"
    assert failure(api.VM.get_record) == [mismatch, "VM.get_record", "1", "0"]
    assert failure(api.VM.get_all, "surplus") == [mismatch, "VM.get_all", "0", "1"]
    assert failure(api.VM.start, "x") == [mismatch, "VM.start", "3", "1"]
    host = api.host.get_all()[0]
    api.host.enable(host)
    api.host.disable(host, True, "surplus, ignored with optional parameters")
    api.host.enable(host)


def test_parameters_come_before_the_session(simulator: SimulatorProcess) -> None:
    assert raw(simulator, "VM.get_record", "x")[0] == "MESSAGE_PARAMETER_COUNT_MISMATCH"
    assert raw(simulator, "VM.get_record", "x", "y") == ["SESSION_INVALID", "x"]


def test_names_with_an_underscore(session: XenAPI.Session, simulator: SimulatorProcess) -> None:
    assert raw(simulator, "pool_get_all", session.handle) == session.xenapi.pool.get_all()


def test_handles_and_uuids(session: XenAPI.Session) -> None:
    api = session.xenapi
    host = api.host.get_all()[0]
    assert failure(api.VM.get_record, NULL) == ["HANDLE_INVALID", "VM", NULL]
    assert failure(api.VM.get_power_state, host) == ["HANDLE_INVALID", "VM", host]
    assert failure(api.VM.start, "x", False, False) == ["HANDLE_INVALID", "VM", "x"]
    assert failure(api.host.get_by_uuid, "x") == ["UUID_INVALID", "host", "x"]
    assert api.host.get_by_uuid(api.host.get_uuid(host)) == host


@pytest.mark.parametrize(
    ("value", "code"),
    [(1, "INTERNAL_ERROR"), ("true", "INTERNAL_ERROR"), ([], "INTERNAL_ERROR")],
)
def test_bool_is_a_bool(session: XenAPI.Session, value: Any, code: str) -> None:
    vm = session.xenapi.VM.get_all()[0]
    assert failure(session.xenapi.VM.start, vm, value, False)[0] == code


def test_log_has_names_and_outcomes_but_no_values(session: XenAPI.Session, simulator: SimulatorProcess) -> None:
    failure(session.xenapi.VM.get_by_uuid, "my-secret-value")
    log = (simulator.state / "simulator.log").read_text("utf-8")
    line = next(line for line in log.splitlines() if "VM.get_by_uuid" in line)
    assert line.endswith(" UUID_INVALID")
    assert " ms " in line
    assert "my-secret-value" not in log
    assert simulator.password not in log
