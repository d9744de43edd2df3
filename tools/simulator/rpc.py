"""Remote calls and their values between the wire formats (xmlrpc.py, jsonrpc.py) and what calls work on.

A value on its way is a tree of plain Python values, as in ocaml-rpc's rpc.ml: str, int, float, bool, None, list and
dict, where two kinds of leaves are marked: Date, which is no string in XML-RPC, and Int32, which alone is a true int
there.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from .model import Model, Type
from .values import Date, text

MAX_DEPTH = 100
"""How deep arrays and structs may be nested in a request. XenAPI's own types need five; ours bounds recursion."""

_INT64 = re.compile(
    r"(?P<sign>[-+]?)(?:0(?P<base>[xob])(?P<digits>[0-9a-f][0-9a-f_]*)|(?P<decimal>[0-9][0-9_]*))\Z", re.I | re.A
)
_BASES = {"x": 16, "o": 8, "b": 2}
_MAX_DIGITS = 70
"""No int of 64 bits needs more characters: 64 binary digits, a sign and a prefix. int() of a long text is slow."""


class DecodeError(ValueError):
    """Raised when a request cannot be read, or breaks a limit. The message holds none of its content."""


class MethodCall(NamedTuple):
    """A request: the method's name and its parameters, untyped."""

    name: str
    parameters: list[Any]


class Result(NamedTuple):
    """What a call that ended well gives back. `bare`: XML-RPC leaves the envelope away (system.listMethods only)."""

    value: Any
    bare: bool = False


class Int32(int):
    """An int that XML-RPC writes as `<i4>`. Only event.from has such: in `valid_ref_counts`."""


def marshal(model: Model, wanted: Type, value: Any) -> Any:
    """The tree of a value of the datamodel.

    Options that are None are left out of records. The kinds `any` and `batch` cannot be told from the datamodel: their
    values are trees already.
    """
    kind, item = wanted.kind, wanted.item
    if kind == "void":
        return ""
    if kind == "bool":
        return bool(value)
    if kind == "int":
        return int(value)
    if kind == "float":
        return float(value)
    if kind == "datetime":
        return Date(value)
    if kind == "set":
        assert item is not None
        return [marshal(model, item, member) for member in value]
    if kind == "map":
        assert item is not None
        return {text(key): marshal(model, item, member) for key, member in value.items()}
    if kind == "record":
        return _record(model, wanted.name, value)
    if kind == "option":
        assert item is not None
        return None if value is None else marshal(model, item, value)
    return value if kind in ("any", "batch") else text(value)


def _record(model: Model, cls: str, record: dict[str, Any]) -> dict[str, Any]:
    fields = model.classes[cls].fields
    return {
        name: marshal(model, fields[name].type, value)
        for name, value in record.items()
        if value is not None or fields[name].type.kind != "option"
    }


def parse_int64(untrusted_text: str) -> int:
    """The int that OCaml's Int64.of_string reads: 64 bits, signed; also `0x1f`, `0o17`, `0b11` and `1_000`.

    DecodeError for anything else, and for spaces around it.
    """
    match = _INT64.match(untrusted_text) if len(untrusted_text) <= _MAX_DIGITS else None
    if match is None:
        raise DecodeError("malformed int")
    base = _BASES[match["base"].lower()] if match["base"] else 10
    try:
        value = int((match["digits"] or match["decimal"]).replace("_", ""), base)
    except ValueError:
        raise DecodeError("malformed int") from None
    # Written in another base than ten it is a pattern of bits, which may have the highest one set.
    if match["base"] and 2**63 <= value < 2**64:
        value -= 2**64
    value = -value if match["sign"] == "-" else value
    if not -(2**63) <= value < 2**63:
        raise DecodeError("an int of more than 64 bits")
    return value
