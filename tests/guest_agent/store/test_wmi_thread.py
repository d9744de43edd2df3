from __future__ import annotations

import threading

import pytest

from guest_agent.store.wmi_connection import WmiConnection, WmiError
from guest_agent.store.wmi_thread import Ended, Late, WmiThread

from .fake_device import Tree
from .fake_wmi import FakeWmi
from .windows_contract import DEADLINE


@pytest.fixture
def wmi() -> FakeWmi:
    return FakeWmi(Tree())


def test_jobs_are_done_one_after_the_other_in_one_thread(wmi: FakeWmi) -> None:
    thread = WmiThread(wmi.connect)
    seen = {thread.do(lambda connection: threading.get_ident(), DEADLINE) for _ in range(3)}
    assert len(seen) == 1
    assert threading.get_ident() not in seen
    thread.end(lambda connection: None, DEADLINE)
    assert (wmi.connections, wmi.misused) == (0, [])


def test_a_job_after_the_end(wmi: FakeWmi) -> None:
    thread = WmiThread(wmi.connect)
    last: list[str] = []
    for name in ("first", "second"):
        thread.end(lambda connection, name=name: last.append(name), DEADLINE)  # type: ignore[misc]
    assert last == ["first"]
    with pytest.raises(Ended):
        thread.do(lambda connection: None, DEADLINE)


def test_errors_come_without_the_frames_of_the_thread(wmi: FakeWmi) -> None:
    thread = WmiThread(wmi.connect)

    def work(connection: WmiConnection) -> None:
        try:
            connection.sessions("Other")
        except WmiError:
            raise KeyError("explained") from None

    with pytest.raises(KeyError) as error:
        thread.do(work, DEADLINE)
    assert error.value.__context__ is None
    names = [entry.name for entry in error.traceback]
    assert "work" not in names
    thread.end(lambda connection: None, DEADLINE)


def test_a_connection_that_fails_fails_each_job(wmi: FakeWmi) -> None:
    wmi.fail["connect"] = 7
    thread = WmiThread(wmi.connect)
    for _ in range(2):
        with pytest.raises(WmiError, match="0x00000007"):
            thread.do(lambda connection: None, DEADLINE)
    thread.end(lambda connection: None, DEADLINE)


def test_a_job_that_is_late_is_done_all_the_same(wmi: FakeWmi) -> None:
    thread = WmiThread(wmi.connect)
    go, done = threading.Event(), threading.Event()

    def work(connection: WmiConnection) -> None:
        assert go.wait(DEADLINE)
        done.set()

    with pytest.raises(Late):
        thread.do(work, 0.01)
    thread.end(lambda connection: None, 0.01)
    assert wmi.connections == 1
    go.set()
    assert done.wait(DEADLINE)
    thread.end(lambda connection: None, DEADLINE)
    assert wmi.connections == 0
