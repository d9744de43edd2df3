"""Reading what the other side wrote, strictly: JSON objects whose members have exactly the type and size they should.

Limits come before work, unknown members are ignored, and no error holds what was read.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from .messages import MessageError

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
"""The form of VM uuids and request ids, as the dom0 plugin demands it too."""

SHA256_HEX = re.compile(r"[0-9a-f]{64}\Z")

_MAX_DIGITS = 20
"""Characters of a number: 64 bits and a sign. Older Pythons take very long over a million digits."""


def dumps(members: Mapping[str, object]) -> str:
    """Compact JSON in ASCII."""
    return json.dumps(members, ensure_ascii=True, separators=(",", ":"))


def check_uuid(untrusted_text: str, what: str) -> str:
    """The same text, if it is a UUID in lower case; MessageError otherwise. what: a name for it."""
    if not UUID.match(untrusted_text):
        raise MessageError(f"{what} is not a UUID")
    return untrusted_text


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(untrusted_text: str, what: str) -> bytes:
    """The bytes in standard base64, of which each sequence of bytes has one spelling only. MessageError otherwise."""
    try:
        data = base64.b64decode(untrusted_text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise MessageError(f"{what} is not base64") from None
    if encode_base64(data) != untrusted_text:
        raise MessageError(f"{what} is not base64 as it should be spelt")
    return data


class Members:
    """The members of one JSON object. Each method returns a member of one exact type, or raises MessageError."""

    def __init__(self, untrusted_members: object, what: str) -> None:
        if not isinstance(untrusted_members, dict):
            raise MessageError(f"the {what} is not a JSON object")
        self._members: dict[str, Any] = untrusted_members
        self._what = what

    @classmethod
    def loads(cls, untrusted_text: str | bytes, what: str) -> Members:
        """The object in a JSON text. what: a name for it, in errors."""
        try:
            if isinstance(untrusted_text, bytes):
                untrusted_text = untrusted_text.decode("utf-8")
            return cls(json.loads(untrusted_text, parse_int=_number, parse_constant=_refuse_constant), what)
        except (ValueError, RecursionError):
            raise MessageError(f"the {what} is not JSON") from None

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def __repr__(self) -> str:
        return f"Members({self._what})"

    def fail(self, name: str, expected: str) -> NoReturn:
        """Raise the MessageError for a member that is not as expected."""
        raise MessageError(f"{name} of the {self._what} must be {expected}")

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        """A string, of that form if one is given."""
        value = self._members.get(name)
        if not isinstance(value, str) or (pattern is not None and not pattern.match(value)):
            self.fail(name, "a string" if pattern is None else "a string of the form that the protocol says")
        return value

    def number(self, name: str) -> int:
        """A whole number, not negative."""
        value = self._members.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.fail(name, "a whole number")
        return value

    def data(self, name: str, size: int) -> bytes:
        """Bytes in base64, exactly that many."""
        text = self.text(name)
        if len(text) != (size + 2) // 3 * 4:
            self.fail(name, f"{size} bytes in base64")
        data = decode_base64(text, f"{name} of the {self._what}")
        if len(data) != size:
            self.fail(name, f"{size} bytes in base64")
        return data

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self._members.get(name)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self.fail(name, "a list of strings")
        return tuple(values)

    def object(self, name: str) -> Members:
        """An object, for reading its members."""
        return Members(self._members.get(name), f"{name} of the {self._what}")

    def tree(self, name: str) -> dict[str, Any]:
        """An object as it is, for whoever knows what it should hold."""
        value = self._members.get(name)
        if not isinstance(value, dict):
            self.fail(name, "a JSON object")
        return value

    def version(self, expected: int) -> None:
        """Check that `v` is the protocol's version."""
        if self.number("v") != expected:
            raise MessageError(f"the {self._what} is of another version of the protocol than {expected}")


def _number(untrusted_digits: str) -> int:
    if len(untrusted_digits) > _MAX_DIGITS:
        raise ValueError("too many digits")
    return int(untrusted_digits)


def _refuse_constant(untrusted_name: str) -> NoReturn:
    # NaN and the infinities, which Python takes for JSON.
    raise ValueError(untrusted_name)
