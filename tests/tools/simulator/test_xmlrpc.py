"""xmlrpc.py: the exact bytes of C.2, and that Python's own client reads and writes the same."""

from __future__ import annotations

import math
import xmlrpc.client
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.simulator import model
from tools.simulator import xmlrpc as ours
from tools.simulator.model import Type, parse_type
from tools.simulator.rpc import Int32, Result, marshal
from tools.simulator.values import Date

MODEL = model.load()
ENVELOPE = '<?xml version="1.0"?><methodResponse><params><param>%s</param></params></methodResponse>'
SUCCESS = (
    "<value><struct><member><name>Status</name><value>Success</value></member>"
    "<member><name>Value</name>%s</member></struct></value>"
)


@pytest.mark.parametrize(
    ("type_name", "value", "expected"),
    [
        ("string", 'a<b>&"c"\x00\x1f\t\n', "<value>a&lt;b&gt;&amp;&quot;c&quot;\t\n</value>"),
        ("int", 2**62, f"<value>{2**62}</value>"),
        ("float", 1.0, "<value><double>1</double></value>"),
        ("float", 0.1, "<value><double>0.1</double></value>"),
        ("float", math.nan, "<value><double>nan</double></value>"),
        ("float", math.inf, "<value><double>inf</double></value>"),
        ("bool", True, "<value><boolean>1</boolean></value>"),
        (
            "datetime",
            "20260821T02:00:23Z",
            "<value><dateTime.iso8601>20260821T02:00:23Z</dateTime.iso8601></value>",
        ),
        ("VM ref set", ["a"], "<value><array><data><value>a</value></data></array></value>"),
        ("(int -> float) map", {3: 0.5}, "<value><struct><member><name>3</name><value><double>0.5</double></value>"
         "</member></struct></value>"),
        ("(string -> string) map", {"a&b": ""}, "<value><struct><member><name>a&b</name><value></value></member>"
         "</struct></value>"),
        ("void", None, "<value></value>"),
    ],
)  # fmt: skip
def test_exact_bytes(type_name: str, value: Any, expected: str) -> None:
    result = Result(marshal(MODEL, parse_type(type_name), value))
    assert ours.encode_result(result).decode() == ENVELOPE % (SUCCESS % expected)
    assert ours.encode_value(MODEL, parse_type(type_name), value) == expected


def test_failure_is_a_value_not_a_fault() -> None:
    inside = (
        "<value><struct><member><name>Status</name><value>Failure</value></member><member><name>ErrorDescription</name>"
        "<value><array><data><value>CODE</value><value>x</value></data></array></value></member></struct></value>"
    )
    assert ours.encode_failure(["CODE", "x"]).decode() == ENVELOPE % inside


# XML itself turns a carriage return into a line feed, and has no room for these.
texts = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"))
names = texts.filter(lambda name: not set(name) & set("<>&"))
typed = st.recursive(
    st.one_of(
        texts.map(lambda value: (Type("string"), value, value)),
        st.integers(-(2**63), 2**63 - 1).map(lambda value: (Type("int"), value, str(value))),
        st.booleans().map(lambda value: (Type("bool"), value, value)),
        st.floats(allow_nan=False).map(lambda value: (Type("float"), value, float(f"{value:.16g}"))),
    ),
    lambda inner: st.one_of(
        inner.map(lambda one: (Type("set", item=one[0]), [one[1], one[1]], [one[2], one[2]])),
        st.tuples(names, inner).map(
            lambda two: (
                Type("map", key=Type("string"), item=two[1][0]), {two[0]: two[1][1]}, {two[0]: two[1][2]},
            )
        ),
    ),
    max_leaves=5,
)  # fmt: skip


@given(typed)
def test_pythons_client_reads_it(item: tuple[Type, Any, Any]) -> None:
    wanted, value, expected = item
    (document,), _ = xmlrpc.client.loads(ours.encode_result(Result(marshal(MODEL, wanted, value))))
    assert document == {"Status": "Success", "Value": expected}


sent = st.recursive(
    st.one_of(texts, st.integers(-(2**31), 2**31 - 1), st.booleans(), st.floats(allow_nan=False)),
    # xapi cannot read a member without a name.
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(texts.filter(bool), inner)),
    max_leaves=10,
)


def parameter(value: str) -> Any:
    """What one parameter is read as."""
    call = f"<methodCall><methodName>a</methodName><params><param>{value}</param></params></methodCall>"
    return ours.decode_call(call.encode()).parameters[0]


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ("", ""),
        ("x", "x"),
        ("  x ", "  x "),
        ("  ", "  "),
        ("&lt;&#65;", "<A"),
        ("<string></string>", ""),
        ("<string/>", ""),
        ("<string> x</string>", " x"),
        (" \n\t<string>x</string>\n", "x"),
        ("<int>7</int>", 7),
        ("<i4>-7</i4>", -7),
        ("<i8>+7</i8>", 7),
        ("<int>9223372036854775807</int>", 2**63 - 1),
        ("<int>-9223372036854775808</int>", -(2**63)),
        ("<int>0x1F</int>", 31),
        ("<int>0o17</int>", 15),
        ("<int>0b101</int>", 5),
        ("<int>-0x10</int>", -16),
        ("<int>0xFFFFFFFFFFFFFFFF</int>", -1),
        ("<int>1_000</int>", 1000),
        ("<boolean>1</boolean>", True),
        ("<boolean>0</boolean>", False),
        ("<boolean>true</boolean>", False),
        ("<boolean> 1</boolean>", False),
        ("<double>0.5</double>", 0.5),
        ("<double>-1e3</double>", -1000.0),
        ("<double>inf</double>", math.inf),
        ("<double>7</double>", 7.0),
        ("<dateTime.iso8601>20260821T02:00:23Z</dateTime.iso8601>", "20260821T02:00:23Z"),
        ("<base64>AAE=</base64>", b"\x00\x01"),
        ("<nil/>", None),
        ("<nil></nil>", None),
        ("<array/>", []),
        ("<array><data/></array>", []),
        ("<array>\n<data>\n<value>1</value> <value><i4>1</i4></value></data></array>", ["1", 1]),
        ("<struct/>", {}),
        ("<struct> </struct>", {}),
        ("<struct><member><name>a b</name><value/></member></struct>", {"a b": ""}),
        (
            "<struct><member><name>a</name><value>1</value></member>"
            "<member> <name>a</name>\n<value>2</value></member></struct>",
            {"a": "1"},
        ),
    ],
)
def test_spellings_that_are_read(inside: str, expected: Any) -> None:
    value = parameter(f"<value>{inside}</value>")
    assert value == expected
    assert type(value) is (Date if "dateTime" in inside else type(expected))


@pytest.mark.parametrize(
    "inside",
    [
        "x<int>1</int>",
        "<int>1</int>x",
        "<int>1</int><int>1</int>",
        "<int/>",
        "<int> 1</int>",
        "<int>1 </int>",
        "<int>1.0</int>",
        "<int>9223372036854775808</int>",
        "<int>-9223372036854775809</int>",
        "<int>0x1FFFFFFFFFFFFFFFF</int>",
        "<int>0x</int>",
        "<int>0b2</int>",
        "<int>\u0661</int>",
        "<int>" + "1" * 100_000 + "</int>",
        "<int><i4>1</i4></int>",
        "<boolean/>",
        "<double/>",
        "<double>1 </double>",
        "<double>x</double>",
        "<double>\u0661</double>",
        "<dateTime.iso8601/>",
        "<base64>AAE</base64>",
        "<base64>AA\nE=</base64>",
        "<nil>x</nil>",
        "<nil><nil/></nil>",
        "<float>1</float>",
        "<Int>1</Int>",
        "<array> </array>",
        "<array><value>1</value></array>",
        "<array><data>x</data></array>",
        "<array><data><int>1</int></data></array>",
        "<struct><member><value>1</value><name>a</name></member></struct>",
        "<struct><member><name>a</name></member></struct>",
        "<struct><member><name></name><value>1</value></member></struct>",
        "<struct><member><name/><value>1</value></member></struct>",
        "<struct><name>a</name><value>1</value></struct>",
        "<struct>x</struct>",
    ],
)
def test_spellings_that_are_refused(inside: str) -> None:
    with pytest.raises(ours.DecodeError):
        parameter(f"<value>{inside}</value>")


def test_method_names_are_taken_as_they_are() -> None:
    assert ours.decode_call(b"<methodCall> <methodName> a\n</methodName>\n<params/></methodCall>") == (" a\n", [])


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (None, "<nil/>"),
        (Int32(-7), "<i4>-7</i4>"),
        (7, "7"),
        (False, "<boolean>0</boolean>"),
        (Date("d"), "<dateTime.iso8601>d</dateTime.iso8601>"),
        (b"\x00", "<base64>AA==</base64>"),
        (1 / 3, "<double>0.3333333333333333</double>"),
        ({"a": [Int32(1)]}, "<struct><member><name>a</name><value><array><data><value><i4>1</i4></value>"
         "</data></array></value></member></struct>"),
    ],
)  # fmt: skip
def test_trees(tree: Any, expected: str) -> None:
    assert ours.encode_result(Result(tree)).decode() == ENVELOPE % (SUCCESS % f"<value>{expected}</value>")


def test_a_bare_result_has_no_envelope_of_xapis() -> None:
    expected = ENVELOPE % "<value><array><data><value>a</value></data></array></value>"
    assert ours.encode_result(Result(["a"], bare=True)).decode() == expected


def test_absent_options_are_left_out_of_records() -> None:
    cls, name = next(
        (cls.name, field.name)
        for cls in MODEL.classes.values()
        for field in cls.fields.values()
        if field.type == parse_type("string option")
    )
    assert marshal(MODEL, MODEL.record_type(cls), {name: None}) == {}
    assert marshal(MODEL, MODEL.record_type(cls), {name: "x"}) == {name: "x"}


@given(st.lists(sent, max_size=4))
def test_it_reads_pythons_client(parameters: list[Any]) -> None:
    call = ours.decode_call(xmlrpc.client.dumps(tuple(parameters), "VM.start").encode())
    assert call == ("VM.start", parameters)


@given(texts, st.dictionaries(names, texts))
def test_a_plugin_reads_its_argument(session: str, arguments: dict[str, str]) -> None:
    document = ours.encode_call("function", session, arguments)
    assert not document.startswith("<?xml")
    assert xmlrpc.client.loads(document) == ((session, arguments), "function")


def test_empty_strings_for_plugins() -> None:
    assert "<param><value/></param>" in ours.encode_call("f", "", {})


ENTITIES = '<!DOCTYPE a [<!ENTITY e "eeeeeeeeee">]>'


@pytest.mark.parametrize(
    "document",
    [
        "",
        "no xml",
        "<methodCall>",
        "<methodCall></methodCall>",
        "<methodCall><methodName>a</methodName></methodCall>",
        "<methodCall><methodName></methodName><params/></methodCall>",
        "<methodCall><params/><methodName>a</methodName></methodCall>",
        "<methodCall><methodName>a</methodName><params/><params/></methodCall>",
        "<methodCall><methodName>a</methodName>x<params/></methodCall>",
        "<methodCall><methodName>a</methodName><params><param/></params></methodCall>",
        "<other/>",
        "<methodResponse/>",
        "<methodCall><methodName>a</methodName><params><param><value>&e;</value></param></params></methodCall>",
        ENTITIES + "<methodCall><methodName>&e;</methodName></methodCall>",
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><methodCall><methodName>a</methodName></methodCall>',
        "<methodCall><methodName>a</methodName><params><param><int>1</int></param></params></methodCall>",
        "<methodCall><methodName>a</methodName><params><param><value><int>x</int></value></param></params></methodCall>",
        "<methodCall><methodName>a</methodName>" + "<params><param><value>" + "<array><data><value>" * 5000,
    ],
)
def test_malformed(document: str) -> None:
    with pytest.raises(ours.DecodeError):
        ours.decode_call(document.encode())


def test_nesting_is_limited() -> None:
    def nested(depth: int) -> bytes:
        start, end = "<value><array><data>" * depth, "</data></array></value>" * depth
        parameter = f"<param>{start}<value>x</value>{end}</param>"
        return f"<methodCall><methodName>a</methodName><params>{parameter}</params></methodCall>".encode()

    assert ours.decode_call(nested(50)).name == "a"
    with pytest.raises(ours.DecodeError):
        ours.decode_call(nested(5000))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_call_or_an_error(document: bytes) -> None:
    with pytest.raises(ours.DecodeError):
        ours.decode_call(document)
