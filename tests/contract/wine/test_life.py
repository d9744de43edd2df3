"""The service over time: stopped and started, killed, rebooted, and with its cryptography broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent_protocol.legacy import HostExchange
from agent_protocol.messages import ADVERT
from agent_protocol.outcomes import Unsuccessful

from .windows_guest import PROGRAMS, SERVICE, WindowsGuest

pytestmark = pytest.mark.services

STOP_SECONDS = 60.0


def stop(windows: WindowsGuest) -> None:
    windows.running.run(["net.exe", "stop", SERVICE], timeout=STOP_SECONDS)
    windows.running.await_service(SERVICE, "STOPPED", STOP_SECONDS)


def start(windows: WindowsGuest) -> None:
    windows.running.run(["net.exe", "start", SERVICE], timeout=STOP_SECONDS)
    windows.running.await_service(SERVICE, "RUNNING", STOP_SECONDS)


@contextmanager
def damaged(windows: WindowsGuest, path: str, content: bytes) -> Iterator[None]:
    """Have a file of the installed agent broken, from one start of the service to the next boot."""
    file = windows.running.path(rf"{PROGRAMS}\{path}")
    before = file.read_bytes()
    stop(windows)
    file.write_bytes(content)
    start(windows)
    try:
        yield
    finally:
        file.write_bytes(before)
        # Whatever the agent was brought into, it begins anew.
        windows.call("VM.hard_reboot")
        with windows.channel():
            pass


def test_it_takes_its_advert_away_and_comes_back_as_itself(windows: WindowsGuest) -> None:
    identity = windows.identity()
    with windows.channel() as channel:
        stop(windows)
        assert channel.read(ADVERT) is None
        assert windows.running.service_state(SERVICE) == "STOPPED"
        start(windows)
        channel.await_agent()
    assert windows.identity() == identity
    windows.set_password("after a stop 1")
    assert windows.accounts.of().opens("after a stop 1")


def test_it_comes_back_as_itself_after_a_reboot(windows: WindowsGuest) -> None:
    identity = windows.identity()
    windows.set_password("before a reboot 1")
    windows.call("VM.clean_reboot")
    with windows.channel():
        assert windows.accounts.of().opens("before a reboot 1")
    assert windows.identity() == identity
    windows.set_password("after a reboot 2", policy="legacy")
    assert windows.accounts.of().opens("after a reboot 2")


def test_it_comes_back_as_itself_after_the_power_was_cut(windows: WindowsGuest) -> None:
    identity = windows.identity()
    windows.call("VM.hard_reboot")
    with windows.channel():
        pass
    assert windows.identity() == identity
    windows.set_password("after a power cut 3")
    assert windows.accounts.of().opens("after a power cut 3")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (r"Lib\site-packages\cryptography\hazmat\bindings\_rust.pyd", b"MZ this is no library"),
        (r"Lib\site-packages\cryptography\__init__.py", b"half of a file ("),
    ],
    ids=["library", "package"],
)
def test_broken_cryptography_is_told_and_the_service_stays(windows: WindowsGuest, path: str, content: bytes) -> None:
    with damaged(windows, path, content), windows.channel() as channel:
        assert channel.ask("version")["returncode"] == "0"
        reply = channel.ask("keyinit", HostExchange().public)
        assert "cryptography" in reply["message"]
        with pytest.raises(Unsuccessful) as failed:
            windows.set_password("never set 1", policy="legacy")
        assert failed.value.code == "cryptography_unavailable"
        assert windows.accounts.of().times == 0
        assert channel.ask("version")["returncode"] == "0"
        assert windows.running.service_state(SERVICE) == "RUNNING"
    windows.set_password("repaired 1")
    assert windows.accounts.of().opens("repaired 1")
