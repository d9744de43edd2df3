from __future__ import annotations

import threading
import time

import pytest

from agent_protocol.outcomes import Busy, Unsuccessful

from ..bad_server import DEADLINE, BadServer, Behaviour, Drop, Failure, Late, Raw, client

LOGIN = "session.login_with_password"


def test_threads_never_share_a_session_and_wait_for_a_free_one(server: BadServer) -> None:
    guard = threading.Lock()
    in_use: set[str] = set()
    shared: list[str] = []
    most = 0
    together = threading.Barrier(3)

    def work(session: str) -> str:
        nonlocal most
        with guard:
            if session in in_use:
                shared.append(session)
            in_use.add(session)
            most = max(most, len(in_use))
        together.wait(DEADLINE)
        with guard:
            in_use.discard(session)
        return session

    server.behave("VM.start", *[work] * 12)
    xenserver = client(server, sessions=3)
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(xenserver.call("VM.start"))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(answers) == 12
    assert shared == []
    assert most == 3
    assert server.seen(LOGIN) == 3


def test_when_no_session_becomes_free_in_time_it_is_busy(server: BadServer) -> None:
    event = threading.Event()
    server.behave("VM.start", Late(event, "done"))
    xenserver = client(server, sessions=1)
    answers: list[str] = []
    first = threading.Thread(target=lambda: answers.append(xenserver.call("VM.start")))
    first.start()
    deadline = time.monotonic() + DEADLINE
    while not server.seen("VM.start") and time.monotonic() < deadline:
        time.sleep(0.001)
    with pytest.raises(Busy) as caught:
        xenserver.call("VM.get_all", timeout=0.05)
    assert caught.value.code == "xenserver_sessions_busy"
    assert server.seen("VM.get_all") == 0
    event.set()
    first.join(DEADLINE)
    assert answers == ["done"]
    assert xenserver.call("VM.get_all") == "answer to VM.get_all"


@pytest.mark.parametrize("behaviour", [Drop(), Failure(("X",)), Raw(b"junk"), Failure(("SESSION_INVALID", "x"))])
def test_no_error_costs_the_pool_a_session(server: BadServer, behaviour: Behaviour) -> None:
    xenserver = client(server, sessions=1, timeout=5.0)
    for method in ("VM.start", LOGIN):
        server.behave(method, behaviour)
        for _ in range(2):
            try:
                xenserver.call("VM.start")
            except Unsuccessful as error:
                assert not isinstance(error, Busy)
        xenserver.close()
    assert xenserver.call("VM.start") == "answer to VM.start"


def test_close_logs_out_of_every_session(server: BadServer) -> None:
    meet = threading.Barrier(2)
    server.behave("VM.start", *[lambda session: str(meet.wait(DEADLINE)) and session] * 2)
    xenserver = client(server)
    threads = [threading.Thread(target=lambda: xenserver.call("VM.start")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    xenserver.close()
    logouts = [call for call in server.calls if call[0] == "session.logout"]
    assert sorted(logouts) == [("session.logout", f"OpaqueRef:session-{number}") for number in (1, 2)]
    xenserver.close()
    assert server.seen("session.logout") == 2


@pytest.mark.parametrize("behaviour", [Drop(), Failure(("SESSION_INVALID", "x")), Raw(b"junk"), Raw(b"", "500 Oh")])
def test_close_does_not_mind_how_the_logout_goes(server: BadServer, behaviour: Behaviour) -> None:
    xenserver = client(server)
    xenserver.call("VM.get_all")
    server.behave("session.logout", behaviour)
    xenserver.close()
    assert server.seen("session.logout") == 1
