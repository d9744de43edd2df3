"""What goes to XenServer when a fence stands before it, in which order, and what does not."""

from __future__ import annotations

import threading
import uuid
from contextlib import closing
from typing import Any

import pytest

from agent_protocol.outcomes import Outcome, Unsuccessful
from compute_driver.errors import DatabaseUnavailable, XenServerAnswerLost, XenServerFailure, XenServerUnreachable
from compute_driver.fencing import LeaseLost
from compute_driver.xenapi.connection.predecessors import Predecessors
from compute_driver.xenapi.connection.session import Connection, XenServer
from tests.contract.driver.fences import RecordingFence

from ..bad_server import DEADLINE, PASSWORD, BadServer, Behaviour, Drop, Failure
from ..waiting import eventually

LOGIN, LOGOUT, NAME = "session.login_with_password", "session.logout", "session.get_uuid"
MIB = 1024 * 1024


class Fence(RecordingFence):
    """Writes into the list of the calls that arrived what it was asked in between."""

    def __init__(self, calls: list[tuple[Any, ...]]) -> None:
        super().__init__()
        self._calls = calls

    def check(self) -> None:
        self._calls.append(("check",))
        super().check()

    def opened(self, session: str) -> None:
        self._calls.append(("opened", session))
        super().opened(session)

    def closed(self, session: str) -> None:
        self._calls.append(("closed", session))
        super().closed(session)


UUIDS = [str(uuid.UUID(int=number)) for number in range(1, 9)]
"""Of the bad server's sessions, in the order of their logins."""


@pytest.fixture
def fence(server: BadServer) -> Fence:
    server.behave(NAME, *UUIDS)
    return Fence(server.calls)


def fenced(server: BadServer, fence: Fence, **changes: Any) -> XenServer:
    return XenServer(Connection(server.url, "root", PASSWORD, **changes), fence)


def order(server: BadServer) -> list[str]:
    """The names of what happened."""
    return [str(call[0]) for call in server.calls]


# Sessions


def test_a_session_is_named_and_recorded_before_anything_else_goes_over_it(server: BadServer, fence: Fence) -> None:
    xenserver = fenced(server, fence)
    xenserver.call("VM.start", "vm")
    xenserver.call("VM.get_power_state", "vm")
    xenserver.close()
    asked = [LOGIN, NAME, "opened", "check", "VM.start", "VM.get_power_state", LOGOUT, "closed"]
    assert order(server) == ["check", *asked]
    assert (NAME, "OpaqueRef:session-1", "OpaqueRef:session-1") in server.calls
    assert fence.sessions == fence.ended == [UUIDS[0]]


def test_without_a_fence_nothing_more_is_asked(server: BadServer) -> None:
    with closing(XenServer(Connection(server.url, "root", PASSWORD))) as xenserver:
        xenserver.call("VM.start", "vm")
    assert order(server) == [LOGIN, "VM.start", LOGOUT]


@pytest.mark.parametrize("error", [LeaseLost(), DatabaseUnavailable("away")])
def test_a_session_that_is_not_recorded_is_ended_and_not_used(
    server: BadServer, fence: Fence, error: Unsuccessful
) -> None:
    fence.error = error
    with pytest.raises(type(error)) as caught:
        fenced(server, fence).call("VM.get_all")
    assert caught.value is error
    # Whether it was recorded nobody knows, so that it has ended is told.
    assert order(server) == ["check", LOGIN, NAME, "opened", LOGOUT, "closed"]


@pytest.mark.parametrize("answer", ["no uuid", Drop(), Failure(("SESSION_INVALID", "x"))])
def test_a_session_whose_name_is_not_known_is_ended_and_not_used(server: BadServer, answer: Behaviour) -> None:
    fence = Fence(server.calls)
    server.behave(NAME, answer)
    with pytest.raises(Unsuccessful) as caught:
        fenced(server, fence).call("VM.get_all")
    assert caught.value.outcome is not Outcome.UNKNOWN
    assert (fence.sessions, server.seen(LOGOUT), server.seen("VM.get_all")) == ([], 1, 0)


@pytest.mark.parametrize(
    ("answer", "is_certain"),
    [(Failure(("SESSION_INVALID", "x")), True), (Failure(("INTERNAL_ERROR", "x")), False), (Drop(), False)],
)
def test_only_what_has_certainly_ended_is_told(
    server: BadServer, fence: Fence, answer: Behaviour, is_certain: bool
) -> None:
    server.behave(LOGOUT, answer)
    xenserver = fenced(server, fence)
    xenserver.call("VM.start", "vm")
    xenserver.close()
    assert fence.ended == UUIDS[:1] * is_certain


def test_sessions_of_ones_own_are_known_as_well(server: BadServer, fence: Fence) -> None:
    with fenced(server, fence).session():
        assert (fence.sessions, fence.ended) == (UUIDS[:1], [])
    assert fence.ended == UUIDS[:1]


# Calls


@pytest.mark.parametrize("method", ["VM.start", "Async.VM.start", "task.cancel", "host.call_plugin", "VM.set_tags"])
def test_nothing_that_changes_something_is_sent_without_the_lease(server: BadServer, fence: Fence, method: str) -> None:
    xenserver = fenced(server, fence)
    xenserver.call("VM.get_all")
    fence.holds = False
    for _ in range(3):
        with pytest.raises(LeaseLost):
            xenserver.call(method, "vm")
    assert server.seen(method) == 0
    # The session is as good as before.
    assert xenserver.call("VM.get_all") == "answer to VM.get_all"
    assert server.seen(LOGIN) == 1


def test_it_is_asked_once_the_connection_stands(server: BadServer, fence: Fence) -> None:
    xenserver = fenced(server, fence)
    xenserver.call("VM.get_all")
    xenserver._idle.queue[0].close()
    with fence.stopping() as held:
        thread = threading.Thread(target=xenserver.call, args=("VM.start", "vm"))
        connections = len(server._connections)
        thread.start()
        assert held.arrived.wait(DEADLINE)
        eventually(lambda: len(server._connections) == connections + 1)
        assert server.seen("VM.start") == 0
        held.released.set()
        thread.join(DEADLINE)
    assert server.seen("VM.start") == 1


def test_a_session_that_was_ended_is_replaced_only_with_the_lease(server: BadServer, fence: Fence) -> None:
    xenserver = fenced(server, fence)
    server.behave("VM.start", Failure(("SESSION_INVALID", "x")), "started", Failure(("SESSION_INVALID", "x")))
    assert xenserver.call("VM.start", "vm") == "started"
    assert order(server)[5:] == ["VM.start", "closed", "check", LOGIN, NAME, "opened", "check", "VM.start"]
    with fence.stopping() as held:
        failed: list[str] = []

        def start() -> None:
            try:
                xenserver.call("VM.start", "vm")
            except LeaseLost as error:
                failed.append(error.code)

        thread = threading.Thread(target=start)
        thread.start()
        assert held.arrived.wait(DEADLINE)
        fence.holds = False
        held.released.set()
        thread.join(DEADLINE)
    assert failed == ["lease_lost"]
    assert (server.seen("VM.start"), server.seen(LOGIN)) == (3, 2)
    assert order(server)[-3:] == ["VM.start", "closed", "check"]


def test_a_call_that_was_turned_away_asks_again(server: BadServer, fence: Fence) -> None:
    with BadServer() as coordinator:
        coordinator.behave(NAME, *UUIDS)
        fence._calls = coordinator.calls
        address = coordinator.url.removeprefix("http://")
        server.behave("VM.start", Failure(("HOST_IS_SLAVE", address)))
        assert fenced(server, fence).call("VM.start", "vm") == "answer to VM.start"
        assert order(coordinator)[-4:] == [NAME, "opened", "check", "VM.start"]
        assert fence.checks == 4


# Others' sessions


def test_an_answer_to_the_end_of_anothers_session_that_is_none_is_told(server: BadServer, fence: Fence) -> None:
    xenserver = fenced(server, fence)
    server.behave("session.get_tasks", lambda *_: [])
    server.behave(LOGOUT, Drop())
    with pytest.raises(XenServerAnswerLost):
        Predecessors(xenserver).end([UUIDS[7]])
    server.behave("session.get_tasks", lambda *_: [])
    server.behave(LOGOUT, Failure(("INTERNAL_ERROR", "x")))
    with pytest.raises(XenServerFailure):
        Predecessors(xenserver).end([UUIDS[7]])
    # As the session itself, not as ours.
    assert (LOGOUT, "answer to session.get_by_uuid") in server.calls
    server.behave("session.get_tasks", lambda *_: [])
    fence.holds = False
    with pytest.raises(LeaseLost):
        Predecessors(xenserver).end([UUIDS[7]])


def test_when_nobody_can_be_asked_a_session_is_not_taken_for_ended() -> None:
    with BadServer() as server:
        xenserver = XenServer(Connection(server.url, "root", PASSWORD))
        xenserver.call("VM.get_all")
    with pytest.raises(XenServerUnreachable):
        xenserver.end_session("x")
    with pytest.raises(XenServerUnreachable):
        Predecessors(xenserver).end([UUIDS[0]])


@pytest.mark.parametrize("code", ["UUID_INVALID", "HANDLE_INVALID"])
def test_a_session_that_is_not_there_has_ended(server: BadServer, code: str) -> None:
    server.behave("session.get_by_uuid", Failure((code, "session", "x")))
    server.behave("session.get_tasks", Failure((code, "session", "x")))
    predecessors = Predecessors(XenServer(Connection(server.url, "root", PASSWORD)))
    predecessors.end(UUIDS[:2])
    assert (server.seen("session.get_by_uuid"), server.seen("session.get_tasks"), server.seen(LOGOUT)) == (2, 1, 0)
