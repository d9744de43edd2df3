"""No password is anywhere but with Windows: in no command line and environment of a process, in no file, in no log."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_protocol.outcomes import Refused
from tests.contract.house import House
from tests.contract.recorder import needles

from .windows_guest import WindowsGuest

pytestmark = pytest.mark.services


class Samples:
    """What all processes of this machine, Wine's among them, were started with, looked at again and again."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._seen: set[bytes] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ") if process.name != str(os.getpid()) else ():
                    with contextlib.suppress(OSError):
                        self._seen.add((process / name).read_bytes())

    def hold(self, secret: str) -> bool:
        return any(found(secret, sample) for sample in self._seen)


def found(secret: str, content: bytes) -> bool:
    """Whether the secret is in it, in any form that a program of Windows or of ours gives it."""
    return any(needle in content for coded in ("utf-8", "utf-16-le") for needle in needles(secret.encode(coded)))


def files(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        # Those of Windows itself are links, and the same in every guest.
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1:
            yield path


def test_no_password_is_anywhere(home: House, windows: WindowsGuest) -> None:
    samples = Samples()
    secrets = ["find-me sealed Pass-1", "find-me legacy Pass-2", "find-me ordered Pass-3", "find-me refused Pass-4"]
    with samples.taken():
        windows.set_password(secrets[0])
        windows.set_password(secrets[1], policy="legacy")
        assert home.set_password(secrets[2]).status == 0
        windows.accounts.set_policy(minimum_length=40)
        with pytest.raises(Refused):
            windows.set_password(secrets[3])
        with pytest.raises(Refused):
            windows.ask("password", user="nobody-here", value=secrets[0])
        windows.put(r"C:\find.txt", b"visible content")
        windows.running.run(["cmd.exe", "/c", "echo argument-that-is-seen&ping -n 3 127.0.0.1"], check=False)
    assert samples.hold("argument-that-is-seen")
    assert windows.accounts.of().opens(secrets[2])
    logs = [windows.disk, home.simulator.state / "simulator.log", home.directory]
    everything = [path for place in logs for path in (files(place) if place.is_dir() else [place])]
    assert any(found("visible content", path.read_bytes()) for path in everything)
    for secret in secrets:
        assert not samples.hold(secret)
        assert [path for path in everything if found(secret, path.read_bytes())] == []


def test_the_registry_holds_none(windows: WindowsGuest) -> None:
    windows.set_password("find-me in the registry 4")
    windows.running.run(["reg.exe", "add", r"HKLM\SOFTWARE\xenward-test", "/v", "seen", "/d", "visible value", "/f"])
    windows.running.run(["reg.exe", "export", "HKLM", r"C:\all.reg", "/y"])
    exported = windows.running.path(r"C:\all.reg").read_bytes()
    windows.running.run(["reg.exe", "delete", r"HKLM\SOFTWARE\xenward-test", "/f"])
    assert found("visible value", exported)
    assert not found("find-me in the registry 4", exported)
