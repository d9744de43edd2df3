from __future__ import annotations

import logging
from typing import Any

import pytest

from agent_protocol.outcomes import Busy, Failed, Refused, Unsuccessful
from guest_agent.system.windows import WindowsSystem

from .fakes import (
    ADMINISTRATORS_SID,
    ARCHIVE,
    DIRECTORY,
    PREFIX,
    READ_ONLY,
    REPARSE_POINT,
    ROOT_LIST,
    SOMEBODY,
    SYSTEM_SID,
    FakeWindows,
)

DATA = PREFIX + "C:\\data"
TARGET = "C:\\data\\a.txt"
HIDDEN = 0x2
SECRET_LIST = "D:PAI(A;;FA;;;SY)(A;;FR;;;BA)"


@pytest.fixture
def target(windows: FakeWindows) -> None:
    windows.files.add(DATA, attributes=DIRECTORY)
    windows.files.add(PREFIX + TARGET, content=b"old", owner=SOMEBODY, dacl=SECRET_LIST)


def put(system: WindowsSystem, path: str = TARGET, content: bytes = b"new", **more: Any) -> None:
    system.put_file(path, content, **{"mode": None, "owner": None, **more})


def refused(system: WindowsSystem, path: str = TARGET, **more: Any) -> Unsuccessful:
    with pytest.raises(Unsuccessful) as caught:
        put(system, path, **more)
    return caught.value


def test_a_new_file(system: WindowsSystem, windows: FakeWindows) -> None:
    put(system, "c:/data/sub/a.txt")
    node = windows.files["C:\\data\\sub\\a.txt"]
    assert (node.content, node.owner, node.attributes) == (b"new", ADMINISTRATORS_SID, ARCHIVE)
    assert "(A;ID;FA;;;SY)" in node.dacl and "0x1200a9;;;BU" in node.dacl
    assert windows.files.names("C:\\data\\sub") == ["a.txt"]
    assert windows.files["C:\\data"].attributes == DIRECTORY
    assert windows.files.held == []


def test_in_the_root(system: WindowsSystem, windows: FakeWindows) -> None:
    put(system, "C:\\a.txt")
    assert windows.files["C:\\a.txt"].content == b"new"
    put(system, "C:\\a.txt", b"")
    assert windows.files["C:\\a.txt"].content == b""


def test_what_is_replaced_hands_down_all_but_its_content(
    system: WindowsSystem, windows: FakeWindows, target: None
) -> None:
    windows.files[TARGET].attributes = HIDDEN | READ_ONLY
    seen = []
    windows.files.creating = lambda path: seen.append(windows.files.nodes[path.casefold()].dacl)
    put(system)
    node = windows.files[TARGET]
    assert (node.content, node.owner, node.dacl) == (b"new", SOMEBODY, SECRET_LIST)
    assert node.attributes == HIDDEN | READ_ONLY | ARCHIVE
    # Nobody could have read the new content from beside it who cannot read the file itself.
    assert seen == [SECRET_LIST]
    assert windows.files.names("C:\\data") == ["a.txt"]
    assert windows.files.flushed == [PREFIX + TARGET]
    assert windows.files.held == []


@pytest.mark.parametrize(("name", "sid"), [("ann", SOMEBODY), ("Administrators", ADMINISTRATORS_SID)])
def test_owners(system: WindowsSystem, windows: FakeWindows, target: None, name: str, sid: str) -> None:
    windows.files[TARGET].owner = SYSTEM_SID
    put(system, owner=(name, None))
    put(system, "C:\\data\\b.txt", owner=(name, None))
    assert windows.files[TARGET].owner == windows.files["C:\\data\\b.txt"].owner == sid


@pytest.mark.parametrize("there", [True, False])
def test_a_file_system_without_owners(system: WindowsSystem, windows: FakeWindows, there: bool) -> None:
    windows.files.add(DATA, attributes=DIRECTORY)
    if there:
        windows.files.add(PREFIX + TARGET, content=b"old", owner=SYSTEM_SID)

    def forget(path: str) -> None:
        windows.files.nodes[path.casefold()].owner = "S-1-1-0"

    windows.files.creating = forget
    assert refused(system, owner=("ann", None)).code == "owner_failed"
    assert windows.files.names("C:\\data") == (["a.txt"] if there else [])


def test_what_files_do_not_have(system: WindowsSystem, windows: FakeWindows, target: None) -> None:
    before = dict(windows.files.nodes)
    assert refused(system, mode=0o644).code == "mode_unsupported"
    assert refused(system, mode=0).code == "mode_unsupported"
    assert refused(system, owner=("ann", "ann")).code == "group_unsupported"
    assert refused(system, owner=("nobody", None)).code == "no_such_user"
    windows.accounts.errors["sid_of"] = 5
    assert refused(system, owner=("ann", None)).code == "access_denied"
    assert windows.files.nodes == before and windows.files[TARGET].content == b"old"


@pytest.mark.parametrize("path", ["C:a", "D:\\a", "\\\\server\\share\\a", "C:\\nul", "/etc/passwd"])
def test_paths_that_are_refused(system: WindowsSystem, windows: FakeWindows, path: str) -> None:
    before = dict(windows.files.nodes)
    error = refused(system, path)
    assert isinstance(error, Refused) and error.code == "bad_path"
    assert windows.files.nodes == before


@pytest.mark.parametrize("attributes", [DIRECTORY, REPARSE_POINT, DIRECTORY | REPARSE_POINT, ARCHIVE | REPARSE_POINT])
def test_what_is_no_file(system: WindowsSystem, windows: FakeWindows, target: None, attributes: int) -> None:
    windows.files[TARGET].attributes = attributes
    assert refused(system).code == "not_a_file"
    assert windows.files.names("C:\\data") == ["a.txt"]


@pytest.mark.parametrize("attributes", [ARCHIVE, DIRECTORY | REPARSE_POINT, REPARSE_POINT])
@pytest.mark.parametrize("path", ["C:\\data", "C:\\data\\sub"])
def test_what_is_no_directory(system: WindowsSystem, windows: FakeWindows, path: str, attributes: int) -> None:
    windows.files.add(DATA, attributes=DIRECTORY)
    windows.files.add(DATA + "\\sub", attributes=DIRECTORY)
    windows.files[path].attributes = attributes
    assert refused(system, "C:\\data\\sub\\a.txt").code == "not_a_directory"
    assert windows.files.names("C:\\data\\sub") == []
    assert windows.files.held == []


@pytest.mark.parametrize("there", [True, False])
def test_a_directory_that_becomes_a_junction(system: WindowsSystem, windows: FakeWindows, there: bool) -> None:
    windows.files.add(DATA, attributes=DIRECTORY)
    if there:
        windows.files.add(PREFIX + TARGET, content=b"old")

    def swap(path: str) -> None:
        windows.files["C:\\data"].attributes |= REPARSE_POINT

    windows.files.creating = swap
    assert refused(system).code == "not_a_directory"
    assert windows.files.names("C:\\data") == (["a.txt"] if there else [])


def test_directories_are_held_until_the_end(system: WindowsSystem, windows: FakeWindows, target: None) -> None:
    held: list[str] = []
    windows.files.creating = lambda path: held.extend(windows.files.held)
    put(system)
    assert held == ["\\\\?\\c:\\", "\\\\?\\c:\\data"]


def test_a_directory_that_somebody_makes_too(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.files.add(DATA, attributes=DIRECTORY)
    windows.files.errors["hold"] = [None, 2]
    put(system)
    assert windows.files[TARGET].content == b"new"


@pytest.mark.parametrize("call", ["hold", "look", "create", "move", "make_directory"])
@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (5, Failed, "access_denied"),
        (32, Busy, "file_in_use"),
        (33, Busy, "file_in_use"),
        (1224, Busy, "file_in_use"),
        (112, Failed, "disk_full"),
        (39, Failed, "disk_full"),
        (1117, Failed, "windows_error"),
    ],
)
def test_a_new_file_that_fails(
    system: WindowsSystem, windows: FakeWindows, call: str, number: int, kind: type[Unsuccessful], code: str
) -> None:
    windows.files.errors[call] = [number]
    error = refused(system)
    assert isinstance(error, kind) and error.code == code
    assert f"error {number}: planned (C:\\data\\a.txt)" in error.message
    assert not any(TARGET in node.path or ".xenward" in node.path for node in windows.files.nodes.values())
    assert windows.files.held == []


@pytest.mark.parametrize(
    ("call", "attributes"),
    [
        *((call, attributes) for call in ("hold", "look", "create", "replace") for attributes in (ARCHIVE, READ_ONLY)),
        ("set_attributes", READ_ONLY | HIDDEN),
    ],
)
@pytest.mark.parametrize("number", [5, 32, 1175, 1176])
def test_the_old_file_stays(
    system: WindowsSystem, windows: FakeWindows, target: None, call: str, attributes: int, number: int
) -> None:
    windows.files[TARGET].attributes = attributes
    windows.files.errors[call] = [number]
    refused(system)
    node = windows.files[TARGET]
    assert (node.content, node.owner, node.dacl, node.attributes) == (b"old", SOMEBODY, SECRET_LIST, attributes)
    assert windows.files.names("C:\\data") == ["a.txt"]


def test_the_old_file_comes_back(system: WindowsSystem, windows: FakeWindows, target: None) -> None:
    windows.files[TARGET].attributes = READ_ONLY
    windows.files.errors["replace"] = [1177]
    assert refused(system).code == "windows_error"
    assert windows.files[TARGET].content == b"old"
    assert windows.files[TARGET].attributes == READ_ONLY
    assert windows.files.names("C:\\data") == ["a.txt"]


def test_the_old_file_cannot_come_back(system: WindowsSystem, windows: FakeWindows, target: None) -> None:
    windows.files.errors["replace"] = [1177]
    windows.files.errors["move"] = [5]
    error = refused(system)
    assert error.code == "file_lost"
    (left,) = windows.files.names("C:\\data")
    assert repr(f"C:\\data\\{left}") in error.message
    assert windows.files[f"C:\\data\\{left}"].content == b"old"


def test_a_file_that_appears_meanwhile(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.files.creating = lambda path: windows.files.add(PREFIX + TARGET, content=b"theirs")
    error = refused(system)
    assert isinstance(error, Busy) and "made the file just now" in error.message
    assert windows.files[TARGET].content == b"theirs"
    assert windows.files.names("C:\\data") == ["a.txt"]


def test_in_use(system: WindowsSystem, windows: FakeWindows, target: None) -> None:
    with windows.use(PREFIX + TARGET):
        assert isinstance(refused(system), Busy)
    put(system)
    assert windows.files[TARGET].content == b"new"


def test_attributes_that_are_lost(system: WindowsSystem, windows: FakeWindows, target: None) -> None:
    windows.files.errors["set_attributes"] = [5]
    error = refused(system)
    assert error.code == "attributes_lost" and "is written" in error.message
    assert windows.files[TARGET].content == b"new"
    assert windows.files.names("C:\\data") == ["a.txt"]


def test_the_old_file_is_still_used(
    system: WindowsSystem, windows: FakeWindows, target: None, caplog: pytest.LogCaptureFixture
) -> None:
    windows.files.errors["remove"] = [5]
    with caplog.at_level(logging.WARNING):
        put(system)
    assert windows.files[TARGET].content == b"new"
    (left,) = windows.files.at_boot
    assert windows.files.nodes[left.casefold()].content == b"old"
    assert "the next boot removes it" in caplog.text


def test_the_old_file_is_still_used_and_cannot_be_removed(
    system: WindowsSystem, windows: FakeWindows, target: None, caplog: pytest.LogCaptureFixture
) -> None:
    windows.files.errors.update(remove=[5], remove_at_boot=[5])
    with caplog.at_level(logging.WARNING):
        put(system)
    assert windows.files[TARGET].content == b"new"
    assert "cannot be removed" in caplog.text


def test_what_cannot_be_flushed_is_written_nevertheless(
    system: WindowsSystem, windows: FakeWindows, target: None
) -> None:
    windows.files.errors["flush"] = [32]
    put(system)
    assert windows.files[TARGET].content == b"new"


def test_an_interruption_leaves_nothing(system: WindowsSystem, windows: FakeWindows, target: None) -> None:
    def interrupt(path: str) -> None:
        windows.files.errors["replace"] = [9999]

    windows.files.creating = interrupt
    refused(system)
    assert windows.files.names("C:\\data") == ["a.txt"]
    assert windows.files["C:\\data"].dacl == ROOT_LIST
