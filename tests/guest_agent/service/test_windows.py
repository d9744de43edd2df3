"""The service's thin part, with stand-ins for pywin32's modules; the real ones are tried in Wine."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from agent_protocol.outcomes import Failed, Refused
from guest_agent import log_windows, start, system
from guest_agent.service import windows as service
from guest_agent.service.windows_life import Ended
from guest_agent.service.windows_pywin32 import EVENT_IDS, WindowsEvents, WindowsManager, WindowsSettings
from guest_agent.service.windows_recovery import RESET_SECONDS, RESTART_SECONDS, SHUTDOWN_SECONDS

from .fake_windows import FakeWindowsError, Windows

STOPPED, STOP_PENDING, RUNNING = 1, 3, 4
OWN_ERROR = 1066


@pytest.fixture(autouse=True)
def logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hook = list(root.handlers), root.level, threading.excepthook
    monkeypatch.setattr(logging, "raiseExceptions", True)
    yield
    root.handlers[:], root.level, threading.excepthook = handlers, level, hook


class TestManager:
    def test_every_word_of_a_life(self, windows: Windows) -> None:
        manager = WindowsManager("status handle")
        manager.running()
        manager.stopping(4)
        manager.stopping(4)
        manager.stopped(Ended.AS_ASKED)
        # type, state, accepted controls, error, own error, checkpoint, milliseconds
        assert windows.statuses == [
            (0x10, RUNNING, 0x101, 0, 0, 0, 0),
            (0x10, STOP_PENDING, 0, 0, 0, 1, 4_000),
            (0x10, STOP_PENDING, 0, 0, 0, 2, 4_000),
            (0x10, STOPPED, 0, 0, 0, 0, 0),
        ]

    @pytest.mark.parametrize("ended", [Ended.REFUSED, Ended.COMMAND_STILL_RUNS])
    def test_an_error_of_its_own(self, windows: Windows, ended: Ended) -> None:
        WindowsManager("status handle").stopped(ended)
        assert windows.statuses == [(0x10, STOPPED, 0, OWN_ERROR, int(ended), 0, 0)]

    def test_a_manager_that_is_gone_ends_nothing(
        self,
        windows: Windows,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        windows.failures["SetServiceStatus"] = FakeWindowsError(6, "SetServiceStatus", "The handle is invalid.")
        WindowsManager("status handle").running()
        assert "The handle is invalid." in caplog.text


class TestEvents:
    def test_levels(self, windows: Windows) -> None:
        events = WindowsEvents()
        events.report(logging.WARNING, "the store is lost")
        events.report(logging.ERROR, "the agent failed")
        assert windows.events == [(2, 0xF001, "the store is lost"), (1, 0xF002, "the agent failed")]
        assert set(EVENT_IDS) == {logging.WARNING, logging.ERROR}


class TestSettings:
    def test_set_and_read(self, windows: Windows) -> None:
        settings = WindowsSettings("XenwardAgent")
        assert not settings.recovers()
        settings.set_recovery((5, 30, 60), 86_400)
        settings.set_shutdown_seconds(30)
        assert settings.recovers()
        assert windows.settings[2]["Actions"] == ((1, 5_000), (1, 30_000), (1, 60_000))
        assert windows.settings[2]["ResetPeriod"] == 86_400
        assert windows.settings[7] == 30_000
        assert windows.open == []

    @pytest.mark.parametrize("function", ["OpenService", "QueryServiceConfig2"])
    def test_failures_are_ordinary_ones_and_leave_nothing_open(
        self,
        windows: Windows,
        function: str,
    ) -> None:
        windows.failures[function] = FakeWindowsError(5, function, "Access is denied.")
        with pytest.raises(OSError, match="Access is denied"):
            WindowsSettings("XenwardAgent").recovers()
        assert windows.open == []


class TestMain:
    def test_it_gives_itself_to_the_manager(self, windows: Windows) -> None:
        assert service.main() == 0
        assert windows.hosted is service.Service
        assert windows.source == "XenwardAgent"

    def test_nobody_else_can_start_it(
        self,
        windows: Windows,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        windows.failures["StartServiceCtrlDispatcher"] = FakeWindowsError(1063, "", "The process could not connect.")
        assert service.main() == 1
        assert "sc start XenwardAgent" in capsys.readouterr().err

    def test_it_says_nothing_where_there_is_nobody_to_hear(
        self,
        windows: Windows,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        windows.failures["StartServiceCtrlDispatcher"] = FakeWindowsError(1063, "", "The process could not connect.")
        monkeypatch.setattr(sys, "stderr", None)
        assert service.main() == 1


class Ending(BaseException):
    """Raised in the place of the process's end."""


class Agent:
    def __init__(self) -> None:
        self._stopped = threading.Event()

    def run(self) -> None:
        self._stopped.wait(20)

    def stop(self) -> None:
        self._stopped.set()


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []

    def end(status: int) -> None:
        found.append(status)
        raise Ending

    monkeypatch.setattr(os, "_exit", end)
    return found


class TestService:
    @pytest.mark.parametrize("control", [1, 5, 0xF])
    def test_its_whole_life(
        self,
        windows: Windows,
        exits: list[int],
        monkeypatch: pytest.MonkeyPatch,
        control: int,
    ) -> None:
        monkeypatch.setattr(service, "build", Agent)
        hosted = service.Service(["XenwardAgent"])
        windows.handler(control, 0, None)
        with pytest.raises(Ending):
            hosted.SvcRun()
        assert exits == [0]
        assert [status[1] for status in windows.statuses] == [RUNNING, STOP_PENDING, STOPPED]
        assert windows.settings[2]["ResetPeriod"] == RESET_SECONDS
        assert [seconds for _, seconds in windows.settings[2]["Actions"]] == [1000 * each for each in RESTART_SECONDS]
        assert windows.settings[7] == 1000 * SHUTDOWN_SECONDS

    def test_other_controls_do_not_stop_it(
        self,
        windows: Windows,
        exits: list[int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def build() -> Agent:
            windows.handler(4, 0, None)
            raise ImportError("no module named cryptography")

        monkeypatch.setattr(service, "build", build)
        hosted = service.Service(["XenwardAgent"])
        with pytest.raises(Ending):
            hosted.SvcRun()
        # The manager is not told that it stopped: so it starts the service again.
        assert [status[1] for status in windows.statuses] == [RUNNING]
        assert exits == [1]
        ((kind, event, text),) = windows.events
        assert (kind, event) == (1, 0xF002)
        assert text.startswith("the agent cannot start: ImportError: no module named cryptography")

    def test_a_mistake_in_the_configuration_is_told_in_the_event_log(
        self,
        windows: Windows,
        exits: list[int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def build() -> Agent:
            raise Refused("bad_configuration", "agent.conf: there is no section [agnet]")

        monkeypatch.setattr(service, "build", build)
        with pytest.raises(Ending):
            service.Service(["XenwardAgent"]).SvcRun()
        assert exits == [0]
        assert windows.statuses[-1][3:5] == (OWN_ERROR, 1)
        assert "[agnet]" in windows.events[-1][2]


class TestBuild:
    @pytest.fixture(autouse=True)
    def parts(self, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> SimpleNamespace:
        made = SimpleNamespace(failure=None, logs=[], systems=[])

        def make_directories() -> None:
            if made.failure is not None:
                raise made.failure

        places = SimpleNamespace(make_directories=make_directories, LOG_FILE="C:\\log\\agent.log")
        monkeypatch.setitem(
            sys.modules,
            "guest_agent.system.windows",
            SimpleNamespace(places=places),
        )
        monkeypatch.setitem(sys.modules, "guest_agent.system.windows.places", places)
        monkeypatch.setattr(log_windows, "to_file", made.logs.append)
        monkeypatch.setattr(system, "choose", lambda root: ("the system at", root))
        monkeypatch.setattr(start, "prepared", lambda *arguments: arguments)
        return made

    def test_the_running_system_and_what_its_configuration_says(self, parts: SimpleNamespace) -> None:
        built: object = service.build()
        assert built == (("the system at", "/"), None)
        assert parts.logs == ["C:\\log\\agent.log"]

    def test_a_full_disk_costs_the_log_file_only(
        self, parts: SimpleNamespace, caplog: pytest.LogCaptureFixture
    ) -> None:
        parts.failure = Failed("no_space", "no space left")
        built: object = service.build()
        assert built == (("the system at", "/"), None)
        assert parts.logs == []
        assert "there is no log file: no space left" in caplog.text

    def test_directories_of_others_are_refused(self, parts: SimpleNamespace) -> None:
        parts.failure = Refused("unsafe_directory", "belongs to somebody else")
        with pytest.raises(Refused, match="somebody else"):
            service.build()
