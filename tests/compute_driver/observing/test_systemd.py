from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute_driver.observing import systemd


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager's socket, and the process told of it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@xenward-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        channel.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield channel


def test_it_is_told_what_happens(manager: socket.socket) -> None:
    assert systemd.ready("serving compute-1")
    assert systemd.alive()
    assert systemd.status("all is well")
    assert systemd.extend(2.5)
    assert systemd.stopping()
    assert [manager.recv(4096).decode() for _ in range(5)] == [
        "READY=1\nSTATUS=serving compute-1",
        "WATCHDOG=1",
        "STATUS=all is well",
        "EXTEND_TIMEOUT_USEC=2500000",
        "STOPPING=1",
    ]


def test_a_status_cannot_tell_anything_else(manager: socket.socket) -> None:
    assert systemd.status("one\nMAINPID=1\r\n\ud800")
    assert manager.recv(4096) == b"STATUS=one\\nMAINPID=1\\r\\n\\ud800"


@pytest.mark.parametrize("address", [None, "", "relative", "vsock:2:1234"])
def test_without_a_manager_nothing_happens(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not systemd.ready()


def test_a_manager_that_is_gone_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not systemd.ready()
    assert "could not be told READY=1: No such file or directory" in caplog.text


@pytest.mark.parametrize("period", [("60000000", None), ("60000000", str(os.getpid()))])
def test_the_watchdog_waits_so_long(period: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", period[0])
    if period[1] is not None:
        monkeypatch.setenv("WATCHDOG_PID", period[1])
    assert systemd.watchdog_period() == 60.0


@pytest.mark.parametrize("period", [(None, None), ("0", None), ("soon", None), ("-1", None), ("60000000", "1")])
def test_no_watchdog_waits_for_this_process(
    period: tuple[str | None, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(("WATCHDOG_USEC", "WATCHDOG_PID"), period):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert systemd.watchdog_period() is None
