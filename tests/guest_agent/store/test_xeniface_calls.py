from __future__ import annotations

import ctypes
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.wire import Operation, WireError
from agent_protocol.xenstore import StoreError
from guest_agent.store import xeniface_calls as calls

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)).map(str.encode)
NAMES = st.lists(st.text("abcAZ019-_@", min_size=1))


def test_codes() -> None:
    # CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + n, METHOD_BUFFERED, FILE_ANY_ACCESS)
    codes = [calls.READ, calls.WRITE, calls.DIRECTORY, calls.REMOVE, calls.ADD_WATCH, calls.REMOVE_WATCH]
    assert codes == [(0x22 << 16) | (0x800 + number) << 2 for number in (0, 1, 2, 3, 5, 6)]


def test_paths() -> None:
    assert calls.path_call(Operation.READ, "data/host/1") == b"data/host/1\0"
    assert calls.path_call(Operation.READ, "/local/domain/7") == b"/local/domain/7\0"
    for path in ("", "a//b", "a b", "a" * 2049):
        with pytest.raises(WireError):
            calls.path_call(Operation.READ, path)


@given(PRINTABLE)
def test_writes(value: bytes) -> None:
    assert calls.write_call("data/a", value) == b"data/a\0" + value + b"\0\0"


@given(st.binary())
def test_writes_of_anything_else_are_refused(value: bytes) -> None:
    printable = all(0x20 <= byte < 0x7F for byte in value)
    try:
        data = calls.write_call("data/a", value)
    except StoreError as error:
        assert (error.code, printable) == ("EINVAL", False)
        assert value not in str(error).encode() or len(value) < 20
    else:
        assert printable
        assert data.count(b"\0") == 3


def test_writes_that_fit_a_packet() -> None:
    room = 4096 - len("data/a\0")
    assert calls.write_call("data/a", b"v" * room)
    with pytest.raises(StoreError) as error:
        calls.write_call("data/a", b"v" * (room + 1))
    assert error.value.code == "E2BIG"


def test_watches() -> None:
    text = calls.watch_text(Operation.WATCH, "data/host")
    data = calls.add_watch_call(text, 0x1122334455667788)
    assert len(data) == 24
    address, length, event = struct.unpack("<QI4xQ", data)
    assert ctypes.string_at(address, length) == b"data/host\0"
    assert event == 0x1122334455667788
    context = calls.parse_context("data/host", struct.pack("<Q", 0xFFFF_8001_0203_0405))
    assert calls.remove_watch_call(context) == struct.pack("<Q", 0xFFFF_8001_0203_0405)
    assert calls.watch_text(Operation.WATCH, "@releaseDomain").value == b"@releaseDomain"


@given(NAMES, st.binary())
def test_lists(names: list[str], rest: bytes) -> None:
    untrusted = "".join(name + "\0" for name in names).encode() + b"\0"
    assert calls.parse_names("data", untrusted if names else b"\0\0") == names
    assert calls.parse_names("data", untrusted + b"\0" + rest)[: len(names)] == names


@given(st.binary())
def test_answers_are_parsed_or_refused(untrusted: bytes) -> None:
    try:
        assert b"\0" not in calls.parse_value("data", untrusted)
    except StoreError as error:
        assert (error.code, b"\0" in untrusted) == ("EIO", False)
    try:
        assert all("\0" not in name and name for name in calls.parse_names("data", untrusted))
    except StoreError as error:
        assert error.code == "EIO"
    try:
        assert calls.parse_context("data", untrusted) >= 0
    except StoreError as error:
        assert (error.code, len(untrusted) == 8) == ("EIO", False)
