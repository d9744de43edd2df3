"""Reading JSON strictly: exact types and sizes, or a MessageError that tells nothing of what was read."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.messages import MessageError
from agent_protocol.strict import Members, check_uuid, decode_base64, dumps, encode_base64


def members(**values: object) -> Members:
    return Members(values, "test")


@given(st.binary(max_size=100))
def test_base64(data: bytes) -> None:
    assert encode_base64(data) == base64.b64encode(data).decode()
    assert decode_base64(encode_base64(data), "x") == data
    assert members(x=encode_base64(data)).data("x", len(data)) == data
    for size in (len(data) - 1, len(data) + 1):
        with pytest.raises(MessageError):
            members(x=encode_base64(data)).data("x", size)


@pytest.mark.parametrize(
    "text", ["A", "AA", "AA=", "AB==", "AAB=", "AA==\n", " AA==", "A-==", "AA==AA==", "é", "=", "\ud800"]
)
def test_no_base64(text: str) -> None:
    with pytest.raises(MessageError):
        decode_base64(text, "x")


@pytest.mark.parametrize("value", [None, True, 1.0, "1", [], {}, -1])
def test_numbers(value: object) -> None:
    with pytest.raises(MessageError):
        members(x=value).number("x")
    assert members(x=0).number("x") == 0


@pytest.mark.parametrize("value", [None, True, 1, [1], {}, ["x", None]])
def test_texts(value: object) -> None:
    for read in (members(x=value).text, members(x=value).texts):
        with pytest.raises(MessageError):
            read("x")
    assert members(x=["a", "b"]).texts("x") == ("a", "b")


@pytest.mark.parametrize("value", [None, True, 1, "x", []])
def test_objects(value: object) -> None:
    for read in (members(x=value).object, members(x=value).tree):
        with pytest.raises(MessageError):
            read("x")


@pytest.mark.parametrize(
    "text", ["", "[]", "1", "null", '"x"', "{", "[" * 100000, '{"x":NaN}', '{"x":Infinity}', "\ud800"]
)
def test_no_object(text: str) -> None:
    with pytest.raises(MessageError):
        Members.loads(text, "test")


def test_a_number_of_a_million_digits_costs_nothing() -> None:
    with pytest.raises(MessageError):
        Members.loads('{"x":' + "9" * 1_000_000 + "}", "test")
    with pytest.raises(MessageError):
        Members.loads('{"x":' + "9" * 21 + "}", "test")
    assert Members.loads('{"x":18446744073709551615}', "test").number("x") == 2**64 - 1


@pytest.mark.parametrize("version", [None, 1, 3, "2", 2.0, True])
def test_versions(version: object) -> None:
    with pytest.raises(MessageError):
        members(v=version).version(2)
    members(v=2).version(2)


@pytest.mark.parametrize(
    "text", ["", "x", "0F4B6C50-0000-4000-8000-000000000000", "0f4b6c50-0000-4000-8000-000000000000\n"]
)
def test_no_uuid(text: str) -> None:
    with pytest.raises(MessageError):
        check_uuid(text, "x")


@given(st.text(st.characters(exclude_categories=()), max_size=50))
def test_json_is_ascii_and_compact(text: str) -> None:
    dumped = dumps({"x": [text, 1]})
    assert dumped.isascii() and json.loads(dumped) == json.loads(json.dumps({"x": [text, 1]}))
    assert dumps({"a": [1, 2]}) == '{"a":[1,2]}'


def test_what_was_read_is_told_nowhere() -> None:
    read = members(x="hunter2")
    assert "hunter2" not in repr(read)
    with pytest.raises(MessageError) as caught:
        read.number("x")
    assert "hunter2" not in repr(caught.value)
    with pytest.raises(MessageError) as caught:
        Members.loads('{"x": "hunter2', "test")
    assert "hunter2" not in repr(caught.value) and caught.value.__suppress_context__
