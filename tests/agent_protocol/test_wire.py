"""Packets, paths and their limits."""

from __future__ import annotations

import string
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol import wire
from agent_protocol.wire import Operation, Packet, WireError

NUMBERS = st.integers(0, 0xFFFFFFFF)
LETTERS = string.ascii_letters + string.digits + "-_@"


def test_a_packet_has_the_layout_of_the_public_header() -> None:
    encoded = wire.encode(Packet(Operation.READ, 0x01020304, 5, b"a\0"))
    assert encoded == bytes.fromhex("02000000 04030201 05000000 02000000 6100")


@pytest.mark.parametrize(
    ("operation", "number"),
    [
        (Operation.DIRECTORY, 1),
        (Operation.READ, 2),
        (Operation.WATCH, 4),
        (Operation.TRANSACTION_END, 7),
        (Operation.WRITE, 11),
        (Operation.RM, 13),
        (Operation.WATCH_EVENT, 15),
        (Operation.ERROR, 16),
        (Operation.RESET_WATCHES, 21),
        (Operation.DIRECTORY_PART, 22),
    ],
)
def test_operations_have_the_numbers_of_the_public_header(operation: Operation, number: int) -> None:
    assert operation == number


@given(NUMBERS, NUMBERS, NUMBERS, st.binary(max_size=wire.MAX_PAYLOAD))
def test_what_is_encoded_is_decoded(operation: int, request_id: int, transaction_id: int, payload: bytes) -> None:
    encoded = wire.encode(Packet(operation, request_id, transaction_id, payload))
    assert wire.decode_header(encoded) == (operation, request_id, transaction_id, len(payload))
    assert encoded[wire.HEADER.size :] == payload


def test_a_payload_has_at_most_4096_bytes() -> None:
    assert len(wire.encode(Packet(Operation.WRITE, 1, 0, bytes(4096)))) == 16 + 4096
    with pytest.raises(WireError):
        wire.encode(Packet(Operation.WRITE, 1, 0, bytes(4097)))


def test_a_header_announces_at_most_4096_bytes() -> None:
    assert wire.decode_header(struct.pack("<IIII", 2, 1, 0, 4096)).length == 4096
    with pytest.raises(WireError):
        wire.decode_header(struct.pack("<IIII", 2, 1, 0, 4097))


@given(st.binary(min_size=16, max_size=16))
def test_any_header_is_decoded_or_refused(data: bytes) -> None:
    length = int.from_bytes(data[12:], "little")
    if length <= wire.MAX_PAYLOAD:
        assert wire.decode_header(data).length == length
    else:
        with pytest.raises(WireError):
            wire.decode_header(data)


@pytest.mark.parametrize("path", ["/", "/local", "/local/domain/7/data", "data/host/a-b_C@9", "data", "@data"])
def test_legal_paths(path: str) -> None:
    assert wire.check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "//",
        "/a/",
        "a/",
        "/a//b",
        "a//b",
        "//a",
        "a b",
        "a\n",
        "/a\n",
        "\n",
        "ä",
        "a.b",
        "a\0b",
        "../a",
        "٣",
        "a\\b",
    ],
)
def test_illegal_paths(path: str) -> None:
    with pytest.raises(WireError):
        wire.check_path(path)


@pytest.mark.parametrize(("prefix", "limit"), [("/", 3072), ("", 2048)])
def test_a_path_has_a_limited_length(prefix: str, limit: int) -> None:
    longest = prefix + "a" * (limit - len(prefix))
    assert wire.check_path(longest) == longest
    with pytest.raises(WireError):
        wire.check_path(longest + "a")


@given(st.lists(st.text(LETTERS, min_size=1, max_size=20), min_size=1, max_size=20), st.booleans())
def test_every_path_of_legal_elements_is_legal(elements: list[str], absolute: bool) -> None:
    path = ("/" if absolute else "") + "/".join(elements)
    assert wire.check_path(path) == path


@given(st.text(max_size=40))
def test_any_text_is_a_legal_path_or_refused(text: str) -> None:
    elements = text[1:].split("/") if text.startswith("/") else text.split("/")
    if text == "/" or all(element and set(element) <= set(LETTERS) for element in elements):
        assert wire.check_path(text) == text
    else:
        with pytest.raises(WireError):
            wire.check_path(text)


def test_special_names_can_be_watched_and_nothing_like_them() -> None:
    assert wire.check_watch("@introduceDomain") == "@introduceDomain"
    assert wire.check_watch("@releaseDomain") == "@releaseDomain"
    assert wire.check_watch("data/host") == "data/host"
    with pytest.raises(WireError):
        wire.check_watch("data/host/")


@given(st.lists(st.binary(max_size=30).map(lambda value: value.replace(b"\0", b""))))
def test_strings_come_back(values: list[bytes]) -> None:
    assert wire.split_strings(wire.strings(*values)) == values


def test_strings_are_utf_8_and_end_in_nul() -> None:
    assert wire.strings("ß", b"raw", "") == b"\xc3\x9f\0raw\0\0"
    assert wire.split_strings(b"a\0b") == [b"a", b"b"]
    assert wire.split_strings(b"") == []


@pytest.mark.parametrize("value", ["a\0b", b"a\0b", "\0"])
def test_a_string_cannot_contain_nul(value: str | bytes) -> None:
    with pytest.raises(WireError):
        wire.strings("path", value)


@given(st.binary().map(lambda value: value.replace(b"\0", b"")), st.binary())
def test_path_and_value_come_back(path: bytes, value: bytes) -> None:
    assert wire.split_path_value(path + b"\0" + value) == (path, value)


def test_a_write_without_nul_is_refused() -> None:
    with pytest.raises(WireError):
        wire.split_path_value(b"path")
