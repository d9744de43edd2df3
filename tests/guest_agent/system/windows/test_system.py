from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from agent_protocol.outcomes import Failed, Unsupported
from guest_agent.commands import COMMANDS, SEALED_COMMANDS
from guest_agent.configuration import Configuration
from guest_agent.network.apply import Applied
from guest_agent.network.data import Interface, NetworkData
from guest_agent.system.windows import WindowsSystem, network, places, win32

from .fakes import DIRECTORY, PREFIX, FakeWindows

DATA = NetworkData((Interface("0a:00:00:00:00:01", dhcp4=True),))


def test_it_loads_without_windows() -> None:
    code = "import sys, guest_agent.system.windows; print([name for name in sys.modules if 'win32' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['guest_agent.system.windows.win32']\n"


@pytest.mark.parametrize(
    "name",
    sorted(path.stem for path in Path(win32.__file__).parent.glob("*_win32.py")),
)
def test_the_real_calls_load_in_windows_only(name: str) -> None:
    with pytest.raises((ImportError, AssertionError)):
        importlib.import_module(f"guest_agent.system.windows.{name}")


def test_there_is_no_windows_here() -> None:
    for call in (WindowsSystem, places.make_directories):
        with pytest.raises(Unsupported) as caught:
            call()
        assert caught.value.code == "platform"


def test_directories_are_made(windows: FakeWindows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(win32, "windows", lambda: windows.api)
    places.make_directories()
    assert windows.files.names(places.DIRECTORY) == ["log", "state"]
    assert windows.files[places.LOG_DIRECTORY].attributes == DIRECTORY
    windows.files.add(PREFIX + places.LOG_FILE)
    places.make_directories()


def test_what_it_lacks(system: WindowsSystem) -> None:
    assert system.lacks <= {*COMMANDS, *SEALED_COMMANDS}
    with pytest.raises(Unsupported) as caught:
        system.change_ssh_keys("ann", [], [])
    assert caught.value.code == "not_on_this_system"


def test_the_network_is_handed_on(
    windows: FakeWindows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running = object()
    system = WindowsSystem(windows.api, running)  # type: ignore[arg-type]
    seen: list[object] = []
    applied = Applied(("x",), 1)
    monkeypatch.setattr(network, "apply_network", lambda *arguments: seen.extend(arguments) or applied)
    monkeypatch.setattr(network, "recover", lambda *arguments: seen.extend(arguments))
    assert system.apply_network(DATA, Configuration()) is applied
    assert seen == [running, DATA, system]
    seen.clear()
    system.prepare(None)  # type: ignore[arg-type]
    assert seen == [running, system]
    assert system.network_stack_name(Configuration()) == "windows"


def test_no_network(system: WindowsSystem, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        system.prepare(None)  # type: ignore[arg-type]
    assert "the network cannot be looked at" in caplog.text
    with pytest.raises(Unsupported):
        system.apply_network(DATA, Configuration())


def test_an_agent_that_does_not_know_who_it_is(windows: FakeWindows) -> None:
    windows.accounts.errors["own_sid"] = 5
    with pytest.raises(Failed):
        WindowsSystem(windows.api)
