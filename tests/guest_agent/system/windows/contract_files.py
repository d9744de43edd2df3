"""What api.Files promises."""

from __future__ import annotations

import contextlib

from guest_agent.system.windows.files import DIRECTORY, READ_ONLY, REPARSE_POINT
from guest_agent.system.windows.private import ADMINISTRATORS, DIRECTORY_LIST, FILE_LIST, LOCAL_SYSTEM

from .contract import World, check, fails

_SECURITY = "Wine makes Unix permissions of security descriptors, all with one owner"


def _make(world: World, path: str, content: bytes = b"old") -> str:
    world.api.files.create(path, content, dacl=None, owner=None)
    return path


def _content(world: World, path: str) -> bytes | None:
    found = world.api.files.read(path, 1000)
    return None if found is None else found[1]


@check()
def what_is_not_there(world: World, directory: str) -> None:
    files = world.api.files
    for path in (f"{directory}\\missing", f"{directory}\\missing\\too"):
        assert files.look(path) is None
        assert files.read(path, 10) is None
        with fails(2, 3):
            files.hold(path)
        with fails(2, 3):
            files.remove(path)
        with fails(2, 3):
            files.set_attributes(path, 0x20)
    with fails(2, 3):
        files.move(f"{directory}\\missing", f"{directory}\\x", replace=True)


@check()
def drives(world: World, directory: str) -> None:
    assert world.api.files.is_fixed("C:")
    assert not world.api.files.is_fixed("Q:")


@check()
def directories(world: World, directory: str) -> None:
    files = world.api.files
    path = f"{directory}\\made"
    files.make_directory(path, None)
    with fails(183):
        files.make_directory(path, None)
    with fails(2, 3):
        files.make_directory(f"{directory}\\missing\\made", None)
    found = files.look(path)
    assert found is not None and found.attributes & DIRECTORY and not found.attributes & REPARSE_POINT
    _make(world, f"{directory}\\file")
    with fails(183):
        files.make_directory(f"{directory}\\file", None)
    with fails(2, 3):
        files.make_directory(f"{directory}\\file\\made", None)


@check()
def a_directory_that_is_held_stays(world: World, directory: str) -> None:
    files = world.api.files
    path = f"{directory}\\held"
    files.make_directory(path, None)
    with contextlib.closing(files.hold(path)) as held:
        assert held.status().attributes & DIRECTORY
        with fails(5, 32):
            files.move(path, f"{directory}\\moved", replace=False)
        _make(world, f"{path}\\file")
        files.move(f"{path}\\file", f"{path}\\other", replace=False)
        with contextlib.closing(files.hold(path)):
            pass
    files.move(path, f"{directory}\\moved", replace=False)
    assert files.look(path) is None


@check()
def a_file_is_held_as_what_it_is(world: World, directory: str) -> None:
    with contextlib.closing(world.api.files.hold(_make(world, f"{directory}\\file"))) as held:
        assert not held.status().attributes & DIRECTORY


@check(not_in_wine="Wine 8 makes no junctions: FSCTL_SET_REPARSE_POINT is not supported")
def a_junction_is_not_followed(world: World, directory: str) -> None:
    files = world.api.files
    files.make_directory(f"{directory}\\target", None)
    world.make_junction(f"{directory}\\junction", f"{directory}\\target")
    found = files.look(f"{directory}\\junction")
    assert found is not None and found.attributes & REPARSE_POINT
    with contextlib.closing(files.hold(f"{directory}\\junction")) as held:
        assert held.status().attributes & REPARSE_POINT


@check()
def a_file(world: World, directory: str) -> None:
    files = world.api.files
    content = bytes(range(256)) * 1024
    path = _make(world, f"{directory}\\file", content)
    found = files.read(path, 1 << 20)
    assert found is not None and found[1] == content and not found[0].attributes & DIRECTORY
    assert found[0] == files.look(path)
    assert files.read(path, 1000) == (found[0], content[:1000])
    with fails(80):
        files.create(path, b"other", dacl=None, owner=None)
    assert _content(world, path) == content[:1000]
    with fails(2, 3):
        files.create(f"{directory}\\missing\\file", b"", dacl=None, owner=None)
    assert _content(world, _make(world, f"{directory}\\empty", b"")) == b""
    assert files.look(f"{directory}\\FILE") == files.look(path)
    files.flush(path)


@check()
def names_as_they_are_written(world: World, directory: str) -> None:
    long = f"{directory}\\" + "\\".join(["d" * 200] * 2)
    world.api.files.make_directory(f"{directory}\\" + "d" * 200, None)
    world.api.files.make_directory(long, None)
    for path in (f"{long}\\file", f"{directory}\\gr\u00fc\u00dfe \U0001f511.txt"):
        assert _content(world, _make(world, path)) == b"old"


@check()
def replacing(world: World, directory: str) -> None:
    files = world.api.files
    target, new, backup = (_make(world, f"{directory}\\target"), f"{directory}\\new", f"{directory}\\backup")
    _make(world, new, b"new")
    files.replace(target, new, backup)
    assert (_content(world, target), _content(world, new), _content(world, backup)) == (b"new", None, b"old")


@check()
def replacing_what_is_not_there(world: World, directory: str) -> None:
    new = _make(world, f"{directory}\\new", b"new")
    with fails(2):
        world.api.files.replace(f"{directory}\\target", new, f"{directory}\\backup")
    assert _content(world, new) == b"new"


@check()
def replacing_what_is_in_use(world: World, directory: str) -> None:
    files = world.api.files
    target, new = _make(world, f"{directory}\\target"), _make(world, f"{directory}\\new", b"new")
    with world.use(target):
        with fails(32):
            files.replace(target, new, f"{directory}\\backup")
        with fails(5, 32):
            files.move(new, target, replace=True)
        with fails(32):
            files.remove(target)
    assert (_content(world, target), _content(world, new)) == (b"old", b"new")


@check()
def moving(world: World, directory: str) -> None:
    files = world.api.files
    target, new = _make(world, f"{directory}\\target"), _make(world, f"{directory}\\new", b"new")
    with fails(183):
        files.move(new, target, replace=False)
    assert (_content(world, target), _content(world, new)) == (b"old", b"new")
    files.move(new, target, replace=True)
    assert (_content(world, target), _content(world, new)) == (b"new", None)
    files.move(target, new, replace=False)
    assert (_content(world, target), _content(world, new)) == (None, b"new")


@check()
def attributes(world: World, directory: str) -> None:
    files = world.api.files
    path = _make(world, f"{directory}\\file")
    files.set_attributes(path, READ_ONLY | 0x20)
    found = files.look(path)
    assert found is not None and found.attributes & READ_ONLY
    with fails(5):
        files.remove(path)
    files.set_attributes(path, 0x20)
    files.remove(path)
    assert files.look(path) is None


@check(disposable=True)
def removing_at_the_boot(world: World, directory: str) -> None:
    path = _make(world, f"{directory}\\file")
    world.api.files.remove_at_boot(path)
    assert _content(world, path) == b"old"


@check(not_in_wine=_SECURITY)
def security_is_there_from_the_beginning(world: World, directory: str) -> None:
    files = world.api.files
    files.make_directory(f"{directory}\\private", f"O:BA{DIRECTORY_LIST}")
    files.create(f"{directory}\\private\\file", b"", dacl=FILE_LIST, owner=LOCAL_SYSTEM)
    files.create(f"{directory}\\private\\heir", b"", dacl=None, owner=ADMINISTRATORS)
    for name in ("private", "private\\file", "private\\heir"):
        found = files.look(f"{directory}\\{name}")
        assert found is not None and found.entries is not None
        assert found.owner == (LOCAL_SYSTEM if name.endswith("file") else ADMINISTRATORS)
        assert {(entry.allows, entry.mask, entry.sid) for entry in found.entries} == {
            (True, 0x1F01FF, LOCAL_SYSTEM),
            (True, 0x1F01FF, ADMINISTRATORS),
        }


@check()
def a_list_survives_being_copied_and_replaced(world: World, directory: str) -> None:
    files = world.api.files
    files.create(f"{directory}\\target", b"old", dacl="D:PAI(A;;FA;;;SY)(A;;FA;;;BA)(A;;FR;;;BU)", owner=LOCAL_SYSTEM)
    before = files.look(f"{directory}\\target")
    assert before is not None
    files.create(f"{directory}\\new", b"new", dacl=before.dacl, owner=before.owner)
    files.replace(f"{directory}\\target", f"{directory}\\new", f"{directory}\\backup")
    after = files.look(f"{directory}\\target")
    assert after is not None
    assert (after.owner, after.dacl, after.entries) == (before.owner, before.dacl, before.entries)


@check(needs_accounts=True)
def protecting(world: World, directory: str) -> None:
    files = world.api.files
    files.make_directory(f"{directory}\\open", "D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;WD)")
    with contextlib.closing(files.hold(f"{directory}\\open", for_protection=True)) as held:
        assert len(held.status().entries or ()) == 3
        held.protect(ADMINISTRATORS, DIRECTORY_LIST)
        assert {entry.sid for entry in held.status().entries or ()} == {LOCAL_SYSTEM, ADMINISTRATORS}
        assert held.status().owner == ADMINISTRATORS
