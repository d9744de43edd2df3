"""The installer in Windows: silently, upgraded, not to be downgraded, and removed without a trace."""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path

import pytest

from agent_protocol.messages import ADVERT
from agent_protocol.xenstore import StoreError
from tests.agent_protocol.store import DEADLINE
from tests.tools.labs.wine.xenstore import DOMID, Place, placed
from tools.labs.wine import disk

from .conftest import NEWER, VERSION
from .windows_guest import PROGRAMS, SERVICE, STATE, install, uninstall

pytestmark = pytest.mark.services

_ADVERT = f"/local/domain/{DOMID}/{ADVERT}"


def await_agent(place: Place) -> None:
    """Until the agent tells about itself."""
    with place.host() as store:
        store.watch(_ADVERT, "advert")
        while store.next_event(DEADLINE):
            try:
                store.read(_ADVERT)
            except StoreError:
                continue
            return
    raise AssertionError("there is no advert")


def registry(place: Place) -> list[str]:
    """All lines of the registry's machine part that speak of the agent."""
    place.machine.run(["reg.exe", "export", "HKLM", r"C:\all.reg", "/y"])
    exported = place.machine.path(r"C:\all.reg").read_text("utf-16")
    return [line for line in exported.splitlines() if "xenward" in line.lower()]


def await_end(place: Place) -> None:
    """Until the service has stopped, and its process has ended."""
    place.machine.await_service(SERVICE, "STOPPED", DEADLINE)
    for pid in place.machine.pids():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"python.exe" in Path(f"/proc/{pid}/cmdline").read_bytes():
                assert select.select([os.pidfd_open(pid)], [], [], DEADLINE)[0]


def installed(place: Place) -> list[str]:
    """The versions that Windows lists among what is installed."""
    key = r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Uninstall"
    told = place.machine.run(["reg.exe", "query", key, "/s"]).stdout
    return [line.split()[-1] for line in told.splitlines() if line.split()[:1] == ["DisplayVersion"]]


def tree(place: Place) -> set[str]:
    drive = place.machine.disk / "drive_c"
    return {str(path.relative_to(drive)) for path in drive.rglob("*")}


def test_the_whole_course(installers: dict[str, Path]) -> None:
    with placed(disk.installed()) as place:
        machine = place.machine
        place.lay_out({"data": b"", "vm": b"/vm/00000000-0000-4000-8000-000000000001"})
        files, lines = tree(place), registry(place)
        assert install(machine, installers[VERSION]) == 0
        await_agent(place)
        assert installed(place) == [VERSION]
        assert machine.service_state(SERVICE) == "RUNNING"
        assert registry(place) != lines
        identity = machine.path(STATE + r"\state\identity.json").read_bytes()

        assert install(machine, installers[NEWER]) == 0
        await_agent(place)
        assert installed(place) == [NEWER]
        assert machine.service_state(SERVICE) == "RUNNING"
        assert machine.path(STATE + r"\state\identity.json").read_bytes() == identity

        assert install(machine, installers[VERSION]) != 0
        assert machine.service_state(SERVICE) == "RUNNING"
        assert installed(place) == [NEWER]
        assert machine.path(PROGRAMS + r"\agent\guest_agent\__init__.py").exists()

        # Windows Installer waits until the service has ended; Wine's leaves what is in use to the next boot.
        machine.run(["net.exe", "stop", SERVICE])
        await_end(place)
        assert uninstall(machine, installers[NEWER]) == 0
        assert machine.service_state(SERVICE) == ""
        assert registry(place) == lines
        for installer in installers.values():
            (machine.disk / "drive_c" / installer.name).unlink()
        left = {name for name in tree(place) - files if not name.startswith(("windows/", "all.reg"))}
        # Who the guest is stays: hosts know it by that.
        assert {name for name in left if not name.startswith("ProgramData/xenward")} == set()
        assert not any(name.lower().endswith(".msi") for name in tree(place) - files)
