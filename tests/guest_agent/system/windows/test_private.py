from __future__ import annotations

import pytest

from agent_protocol.outcomes import Busy, Failed, Refused
from guest_agent.system.windows import WindowsSystem, places, private
from guest_agent.system.windows.private import DIRECTORY_LIST, FILE_LIST, PrivateFiles

from .fakes import (
    ADMINISTRATORS_SID,
    DIRECTORY,
    PREFIX,
    PROGRAM_DATA_LIST,
    REPARSE_POINT,
    SOMEBODY,
    SYSTEM_SID,
    FakeWindows,
    inherited,
)

HOME, STATE = "C:\\ProgramData\\xenward", "C:\\ProgramData\\xenward\\state"
CONFIGURATION = HOME + "\\agent.conf"


def loose(windows: FakeWindows, path: str, **more: object) -> None:
    """A directory as an installation makes it: with what %ProgramData% hands down."""
    windows.files.add(
        PREFIX + path, **{"attributes": DIRECTORY, "dacl": inherited(PROGRAM_DATA_LIST, directory=True), **more}
    )


def configure(windows: FakeWindows, **more: object) -> None:
    loose(windows, HOME)
    windows.files.add(PREFIX + CONFIGURATION, **{"content": b"[agent]\n", "dacl": FILE_LIST, **more})


def test_places() -> None:
    assert (places.DIRECTORY, places.STATE_DIRECTORY, places.CONFIGURATION_FILE) == (HOME, STATE, CONFIGURATION)
    assert places.LOG_FILE == HOME + "\\log\\agent.log"


def test_state_is_kept(system: WindowsSystem, windows: FakeWindows) -> None:
    assert system.read_state("identity.json") is None
    assert windows.files.names("C:\\ProgramData") == []
    system.write_state("identity.json", b"one")
    system.write_state("identity.json", b"two")
    assert system.read_state("identity.json") == b"two"
    assert system.read_state("other.json") is None
    assert windows.files.names(STATE) == ["identity.json"]
    for path in (HOME, STATE):
        assert (windows.files[path].dacl, windows.files[path].owner) == (DIRECTORY_LIST, ADMINISTRATORS_SID)
    node = windows.files[STATE + "\\identity.json"]
    assert (node.dacl, node.owner) == (FILE_LIST, ADMINISTRATORS_SID)
    system.remove_state("identity.json")
    system.remove_state("identity.json")
    assert system.read_state("identity.json") is None
    assert windows.files.held == []


@pytest.mark.parametrize("name", ["..", "a\\b", "a/b", "nul", "a:b", "", "C:\\a"])
def test_names_that_are_no_constants_of_ours(system: WindowsSystem, name: str) -> None:
    for call in (
        lambda: system.write_state(name, b""),
        lambda: system.read_state(name),
        lambda: system.remove_state(name),
    ):
        with pytest.raises((ValueError, Refused)):
            call()


@pytest.mark.parametrize("path", [HOME, STATE])
@pytest.mark.parametrize(
    "dacl",
    [
        inherited(PROGRAM_DATA_LIST, directory=True),
        "D:NO_ACCESS_CONTROL",
        "D:PAI(A;OICI;FA;;;SY)(A;;FR;;;BU)",
        "D:PAI(A;OICI;FA;;;SY)(A;OICIIO;FR;;;BU)",
        "D:PAI(A;OICI;FA;;;SY)(A;OICIIO;GA;;;CO)",
    ],
)
def test_directories_are_closed(system: WindowsSystem, windows: FakeWindows, path: str, dacl: str) -> None:
    loose(windows, HOME, dacl=DIRECTORY_LIST)
    loose(windows, STATE, dacl=DIRECTORY_LIST)
    windows.files[path].dacl = dacl
    windows.files[path].owner = SYSTEM_SID
    assert system.read_state("identity.json") is None
    assert (windows.files[path].dacl, windows.files[path].owner) == (DIRECTORY_LIST, ADMINISTRATORS_SID)


def test_a_directory_that_is_closed_is_left_as_it_is(system: WindowsSystem, windows: FakeWindows) -> None:
    tighter = "D:PAI(A;OICI;FA;;;SY)(D;OICI;FA;;;BU)"
    loose(windows, HOME, dacl=tighter, owner=SYSTEM_SID)
    assert system.read_configuration() is None
    assert windows.files[HOME].dacl == tighter


@pytest.mark.parametrize("path", [HOME, STATE])
@pytest.mark.parametrize(
    "change", [{"owner": SOMEBODY}, {"attributes": DIRECTORY | REPARSE_POINT}, {"attributes": 0x20}]
)
def test_directories_of_others(
    system: WindowsSystem, windows: FakeWindows, path: str, change: dict[str, object]
) -> None:
    loose(windows, HOME)
    loose(windows, STATE)
    for name, value in change.items():
        setattr(windows.files[path], name, value)
    for call in (lambda: system.read_state("identity.json"), lambda: system.write_state("identity.json", b"")):
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.code == "unsafe_directory" and path in caught.value.message
    if path == HOME:
        with pytest.raises(Refused):
            system.read_configuration()
    assert windows.files.names(STATE) == [] and windows.files.held == []


def test_a_directory_that_does_not_close(
    system: WindowsSystem, windows: FakeWindows, monkeypatch: pytest.MonkeyPatch
) -> None:
    loose(windows, HOME)
    monkeypatch.setattr("tests.guest_agent.system.windows.fakes.FakeHeld.protect", lambda *arguments: None)
    with pytest.raises(Refused, match="cannot be closed to others"):
        system.read_configuration()


@pytest.mark.parametrize("call", ["hold", "make_directory", "protect", "create", "move"])
def test_what_the_system_does_not_do(system: WindowsSystem, windows: FakeWindows, call: str) -> None:
    loose(windows, HOME)
    windows.files.errors[call] = [None, 5] if call in ("hold", "make_directory") else [5]
    with pytest.raises(Failed) as caught:
        system.write_state("identity.json", b"secret")
    assert caught.value.code == "access_denied"
    assert not any(b"secret" in node.content for node in windows.files.nodes.values())


def test_the_old_state_stays(system: WindowsSystem, windows: FakeWindows) -> None:
    system.write_state("identity.json", b"old")
    with windows.use(PREFIX + STATE + "\\identity.json"), pytest.raises(Busy):
        system.write_state("identity.json", b"new")
    assert system.read_state("identity.json") == b"old"
    assert windows.files.names(STATE) == ["identity.json"]


def test_configuration(system: WindowsSystem, windows: FakeWindows) -> None:
    assert system.read_configuration() is None
    loose(windows, HOME)
    assert system.read_configuration() is None
    configure(windows, owner=SYSTEM_SID, dacl="D:AI(A;ID;FA;;;SY)(A;ID;FA;;;BA)(A;ID;FR;;;BU)")
    assert system.read_configuration() == b"[agent]\n"
    assert windows.files[HOME].dacl == DIRECTORY_LIST
    assert system.configuration_name == CONFIGURATION


@pytest.mark.parametrize(
    "change",
    [
        {"owner": SOMEBODY},
        {"attributes": DIRECTORY},
        {"attributes": REPARSE_POINT},
        {"dacl": "D:NO_ACCESS_CONTROL"},
        {"dacl": FILE_LIST + "(A;;FA;;;BU)"},
        {"dacl": FILE_LIST + "(A;;GW;;;WD)"},
        {"dacl": FILE_LIST + "(A;;GA;;;WD)"},
        *({"dacl": f"{FILE_LIST}(A;;{1 << bit:#x};;;{SOMEBODY})"} for bit in (1, 2, 4, 6, 8, 16, 18, 19)),
    ],
)
@pytest.mark.parametrize("path", [CONFIGURATION, STATE + "\\identity.json"])
def test_files_that_others_have_had(
    system: WindowsSystem, windows: FakeWindows, path: str, change: dict[str, object]
) -> None:
    loose(windows, HOME)
    loose(windows, STATE)
    windows.files.add(PREFIX + path, **{"content": b"planted", "dacl": FILE_LIST, **change})  # type: ignore[arg-type]
    with pytest.raises(Refused) as caught:
        system.read_configuration() if path == CONFIGURATION else system.read_state("identity.json")
    assert caught.value.code == "unsafe_file" and path in caught.value.message


@pytest.mark.parametrize(
    "dacl", [FILE_LIST + f"(A;;FR;;;{SOMEBODY})", FILE_LIST + "(A;IO;FA;;;BU)", FILE_LIST + "(D;;FA;;;BU)"]
)
def test_files_that_others_could_not_have_written(system: WindowsSystem, windows: FakeWindows, dacl: str) -> None:
    configure(windows, dacl=dacl)
    assert system.read_configuration() == b"[agent]\n"


def test_a_file_that_is_swapped(system: WindowsSystem, windows: FakeWindows, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(windows)
    status = windows.files[CONFIGURATION].status()

    def swapped(path: str, limit: int) -> object:
        windows.files[CONFIGURATION].owner = SOMEBODY
        return windows.files[CONFIGURATION].status(), b"planted"

    monkeypatch.setattr(windows.files, "read", swapped)
    with pytest.raises(Refused, match="belongs to"):
        system.read_configuration()
    assert status.owner == ADMINISTRATORS_SID


def test_a_file_that_goes_meanwhile(
    system: WindowsSystem, windows: FakeWindows, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(windows)
    monkeypatch.setattr(windows.files, "read", lambda path, limit: None)
    assert system.read_configuration() is None


def test_too_large(system: WindowsSystem, windows: FakeWindows, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(windows)
    monkeypatch.setattr(private, "MAX_READ", 8)
    assert system.read_configuration() == b"[agent]\n"
    windows.files[CONFIGURATION].content += b"\n"
    with pytest.raises(Refused) as caught:
        system.read_configuration()
    assert caught.value.code == "file_too_large"


def test_the_agents_own_account_is_trusted(windows: FakeWindows) -> None:
    loose(windows, HOME, owner=SOMEBODY)
    assert PrivateFiles(windows.files, SOMEBODY).secure_directory(HOME)
    assert windows.files[HOME].dacl == DIRECTORY_LIST
