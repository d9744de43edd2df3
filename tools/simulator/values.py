"""From what a caller sent to values of the datamodel, and from those to the strings that xapi's database holds.

How much is tolerated follows ocaml-rpc's rpc.ml: an int may come as decimal text, a float as int or text; a bool only
as a bool, a string only as a string.
"""

from __future__ import annotations

import datetime
from typing import Any

from . import errors
from .model import Model, Type

_DATE_FORMS = ("%Y%m%dT%H:%M:%SZ", "%Y%m%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S")
_INT_LIMIT = 2**63
"""XenAPI's ints have 64 bits, signed."""


class Date(str):
    """Text that came as `<dateTime.iso8601>`, which is no string to XenAPI."""


def format_date(moment: datetime.datetime) -> str:
    """XenAPI's compact form, in UTC."""
    return moment.astimezone(datetime.timezone.utc).strftime("%Y%m%dT%H:%M:%SZ")


def now() -> str:
    """This second, in XenAPI's compact form."""
    return format_date(datetime.datetime.now(datetime.timezone.utc))


def coerce(model: Model, wanted: Type, untrusted_value: Any) -> Any:
    """The value of type `wanted` that the caller meant.

    ApiError INTERNAL_ERROR for a wrong wire type, INVALID_VALUE for an unknown enum value or a malformed date. The
    errors never hold the value of a string, which may be a secret.
    """
    kind = wanted.kind
    if kind in ("string", "ref"):
        if isinstance(untrusted_value, str) and not isinstance(untrusted_value, Date):
            return untrusted_value
    elif kind == "bool":
        if isinstance(untrusted_value, bool):
            return untrusted_value
    elif kind == "int":
        return _coerce_int(untrusted_value)
    elif kind == "float":
        return _coerce_float(untrusted_value)
    elif kind == "enum":
        if isinstance(untrusted_value, str):
            if untrusted_value not in model.enums[wanted.name]:
                raise errors.invalid_value(wanted.name, untrusted_value)
            return untrusted_value
    elif kind == "datetime":
        if isinstance(untrusted_value, str):
            return _coerce_date(untrusted_value)
    elif kind == "set":
        if isinstance(untrusted_value, list):
            assert wanted.item is not None
            return [coerce(model, wanted.item, item) for item in untrusted_value]
    elif kind == "map":
        if isinstance(untrusted_value, dict):
            key, item = wanted.key, wanted.item
            assert key is not None
            assert item is not None
            return {coerce(model, key, name): coerce(model, item, value) for name, value in untrusted_value.items()}
    elif kind == "record" and isinstance(untrusted_value, dict):
        return untrusted_value
    raise _wrong_type(kind, untrusted_value)


def _wrong_type(kind: str, untrusted_value: Any) -> errors.ApiError:
    return errors.failure(f"{kind}_of_rpc: got {type(untrusted_value).__name__}")


def _coerce_int(untrusted_value: Any) -> int:
    if isinstance(untrusted_value, bool) or not isinstance(untrusted_value, (int, str)):
        raise _wrong_type("int", untrusted_value)
    if isinstance(untrusted_value, str) and len(untrusted_value) > len(str(-_INT_LIMIT)):
        raise errors.failure("Int64.of_string")
    try:
        value = int(untrusted_value)
    except ValueError:
        raise errors.failure("Int64.of_string") from None
    if not -_INT_LIMIT <= value < _INT_LIMIT:
        raise errors.failure("Int64.of_string")
    return value


def _coerce_float(untrusted_value: Any) -> float:
    if isinstance(untrusted_value, bool) or not isinstance(untrusted_value, (int, float, str)):
        raise _wrong_type("float", untrusted_value)
    try:
        return float(untrusted_value)
    except ValueError:
        raise errors.failure("float_of_string") from None


def _coerce_date(untrusted_value: str) -> str:
    for form in _DATE_FORMS:
        try:
            moment = datetime.datetime.strptime(untrusted_value, form)
        except ValueError:
            continue
        return moment.replace(tzinfo=datetime.timezone.utc).strftime(_DATE_FORMS[0]).rjust(18, "0")
    raise errors.invalid_value("datetime", untrusted_value)


def text(value: Any) -> str:
    """A simple value as xapi prints it, on the wire and in its database."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format(value, ".16g")
    return str(value)


def database_string(value: Any) -> str:
    """A value as the string in xapi's database, which `where` expressions compare.

    Sets and maps are the s-expressions of ocaml/libs/sexpr: `('a' 'b')`, `(('key' 'value'))`.
    """
    if isinstance(value, list):
        return "(" + " ".join(_quoted(text(item)) for item in value) + ")"
    if isinstance(value, dict):
        return "(" + " ".join(f"({_quoted(text(key))} {_quoted(text(item))})" for key, item in value.items()) + ")"
    return text(value)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
