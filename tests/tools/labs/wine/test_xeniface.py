"""The stand-in for XENIFACE answers as win-xeniface 9.1 does (ioctl_store.c), over a simulated XenStore."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent_protocol.xenstore import StoreError
from tests.agent_protocol.store import DEADLINE

from .xenstore import DOMID, Place

pytestmark = pytest.mark.services

HOME = f"/local/domain/{DOMID}"

NOT_FOUND, NO_PATH, DENIED, NOT_A_HANDLE, PARAMETER = 2, 3, 5, 6, 87
MORE_DATA, BUFFER_SIZE, NO_SUCH_WATCH, NO_FUNCTION = 234, 1784, 1168, 1


@pytest.fixture(scope="module", autouse=True)
def nodes(place: Place) -> None:
    place.lay_out({"vm": b"/vm/1", "data": b"", "data/long": b"x" * 2000, "data/a": b"1", "data/empty": b""})


def answers(place: Place, *requests: str) -> list[Any]:
    found = place.evaluate(f"[{', '.join(f'device.{request}' for request in requests)}]")
    assert isinstance(found, list)
    return found


def test_the_interface_is_found(place: Place) -> None:
    path = place.evaluate("path()")
    assert path.lower().endswith("{b2cfb085-aa5e-47e1-8bf7-9793f3154565}")


def test_read(place: Place) -> None:
    assert answers(
        place,
        r"ask(READ, b'vm\0', 4097)",
        r"ask(READ, b'data/long\0', 4097)",
        r"ask(READ, b'data/empty\0', 4097)",
        r"ask(READ, b'vm\0', 6)",
        r"ask(READ, b'vm\0', 5)",
        r"ask(READ, b'vm\0', 0)",
        r"ask(READ, b'nothing\0', 4097)",
    ) == [b"/vm/1\0", b"x" * 2000 + b"\0", b"\0", b"/vm/1\0", PARAMETER, (MORE_DATA, 6), NOT_FOUND]


def test_paths_are_printable_and_have_an_end(place: Place) -> None:
    for code, room in (("READ", 4097), ("DIRECTORY", 4097), ("REMOVE", 0)):
        for path in (b"vm", b"v\nm\0", "vé\0".encode(), b"v\x7fm\0"):
            assert answers(place, f"ask({code}, {path!r}, {room})") == [PARAMETER]
        assert answers(place, f"ask({code}, b'', {room})") == [BUFFER_SIZE]


def test_write_and_remove(place: Place) -> None:
    assert answers(
        place,
        r"ask(WRITE, b'data/w\0some {\"value\"}\0\0')",
        r"ask(WRITE, b'data/v\0\0\0')",
        r"ask(WRITE, b'data/u\0one\ntwo\0\0')",
        r"ask(WRITE, 'data/u\0über\0\0'.encode())",
        r"ask(WRITE, b'data/u\0a\x7fb\0\0')",
        r"ask(WRITE, b'data/u\0no end')",
        r"ask(WRITE, b'data/u\0value\0\0', 8)",
        r"ask(WRITE, b'/local/domain/0/x\0value\0\0')",
    ) == [b"", b"", PARAMETER, PARAMETER, PARAMETER, PARAMETER, BUFFER_SIZE, DENIED]
    with place.host() as store:
        assert store.read(f"{HOME}/data/w") == b'some {"value"}'
        assert store.read(f"{HOME}/data/v") == b""
        with pytest.raises(StoreError):
            store.read(f"{HOME}/data/u")
    assert answers(
        place, r"ask(REMOVE, b'data/w\0')", r"ask(REMOVE, b'data/v\0', 8)", r"ask(READ, b'data/w\0', 99)"
    ) == [
        b"",
        BUFFER_SIZE,
        NOT_FOUND,
    ]


def test_directory(place: Place) -> None:
    with place.host() as store:
        for name in ("d/one", "d/two"):
            store.write(f"{HOME}/{name}", b"")
    both, short, length, leaf, missing = answers(
        place,
        r"ask(DIRECTORY, b'd\0', 4097)",
        r"ask(DIRECTORY, b'd\0', 8)",
        r"ask(DIRECTORY, b'd\0', 0)",
        r"ask(DIRECTORY, b'vm\0', 4097)",
        r"ask(DIRECTORY, b'nothing\0', 4097)",
    )
    assert both[-2:] == b"\0\0"
    assert sorted(both[:-2].split(b"\0")) == [b"one", b"two"]
    assert (short, length, leaf, missing) == (PARAMETER, (MORE_DATA, 9), NO_PATH, NOT_FOUND)


def test_permissions(place: Place) -> None:
    assert answers(
        place,
        f"permit(b'data/a', ({DOMID}, 0), (0, 3), (7, 1), (8, 2))",
        f"permit(b'data/a', ({DOMID}, 4))",
        r"ask(SET_PERMISSIONS, bytes(23))",
        r"ask(SET_PERMISSIONS, bytes(25))",
    ) == [b"", PARAMETER, BUFFER_SIZE, BUFFER_SIZE]
    with place.host() as store:
        assert list(store.get_permissions(f"{HOME}/data/a")) == [f"n{DOMID}", "b0", "r7", "w8"]


def test_a_watch_fires_when_it_is_set_and_at_each_change(place: Place) -> None:
    script = """
handle = event()
context = device.watch(b'data/a', handle)
seen = [len(context), fired(handle), fired(handle, 300)]
device.ask(WRITE, b'data/a\\x00other\\x00\\x00')
seen += [fired(handle), fired(handle, 300)]
seen += [device.ask(REMOVE_WATCH, context), device.ask(REMOVE_WATCH, context)]
device.ask(WRITE, b'data/a\\x00again\\x00\\x00')
seen += [fired(handle, 300)]
"""
    assert place.evaluate("seen", script) == [8, True, False, True, False, b"", NO_SUCH_WATCH, False]


def test_watches_belong_to_the_handle_that_set_them(place: Place) -> None:
    script = """
other, handle = Device(), event()
context = other.watch(b'data/a', handle)
seen = [fired(handle), device.ask(REMOVE_WATCH, context)]
other.close()
device.ask(WRITE, b'data/a\\x00once more\\x00\\x00')
seen += [fired(handle, 300)]
"""
    assert place.evaluate("seen", script) == [True, NO_SUCH_WATCH, False]


def test_watches_with_a_wrong_size_or_handle(place: Place) -> None:
    assert answers(
        place, "watch(b'data/a', event(), 23)", "watch(b'data/a', 0x7ffc)", r"ask(REMOVE_WATCH, bytes(7))"
    ) == [BUFFER_SIZE, NOT_A_HANDLE, BUFFER_SIZE]


def test_there_are_no_other_orders(place: Place) -> None:
    assert answers(place, "ask(0x22201C, bytes(8), 8)") == [NO_FUNCTION]


def test_a_guest_that_is_moved_finds_its_new_domain(place: Place) -> None:
    """Its watch fires there, since it is set anew, as XENBUS does after a migration."""
    place.lay_out({"data": b"", "data/a": b"here"}, domid=6)
    script = """
handle = event()
device.watch(b'data/a', handle)
seen = [fired(handle)]
device.ask(WRITE, b'data/ready\\x00\\x00\\x00')
seen += [fired(handle, 30000), device.ask(READ, b'data/a\\x00', 99)]
"""
    with place.host() as store, ThreadPoolExecutor() as threads:
        store.watch(f"{HOME}/data/ready", "ready")
        assert store.next_event(DEADLINE)
        seen = threads.submit(place.evaluate, "seen", script)
        assert store.next_event(DEADLINE)
        place.link.unlink()
        place.link.symlink_to(place.server.introduce(6))
        place.server.release(DOMID)
        assert seen.result(DEADLINE) == [True, True, b"here\0"]
