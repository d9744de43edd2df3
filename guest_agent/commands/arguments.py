"""Parsing what a host wrote, for all commands alike. Whatever is wrong becomes Refused, code `bad_arguments`."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Mapping
from typing import Any

from agent_protocol.outcomes import Refused

MAX_FILE = 1024 * 1024
"""Bytes of a file's content: what the protocol promises to carry."""


def bad(message: str) -> Refused:
    """The error for an argument that breaks a rule; the message names the rule and holds no secret."""
    return Refused("bad_arguments", message)


def ignored(untrusted_value: str) -> None:
    """The parser of commands that take nothing: what old hosts send along is not looked at."""
    del untrusted_value


def json_object(untrusted_value: str, required: Collection[str], optional: Collection[str] = ()) -> Mapping[str, Any]:
    """The members of a JSON object that has the required ones and no others than these. Their types are unchecked."""
    try:
        members = json.loads(untrusted_value)
    except (ValueError, RecursionError):
        raise bad("the value is not JSON") from None
    if not isinstance(members, dict):
        raise bad("the value is not a JSON object")
    for name in required:
        if name not in members:
            raise bad(f"{name} is missing")
    if not members.keys() <= {*required, *optional}:
        raise bad("the value has members besides " + ", ".join([*required, *optional]))
    return members


def text(members: Mapping[str, Any], name: str) -> str:
    """The member `name`, which must be a string that is not empty."""
    untrusted = members[name]
    if not isinstance(untrusted, str) or not untrusted:
        raise bad(f"{name} must be a string that is not empty")
    return untrusted


def optional_text(members: Mapping[str, Any], name: str) -> str | None:
    """As text; None when the member is missing or null."""
    return None if members.get(name) is None else text(members, name)


def flag(members: Mapping[str, Any], name: str) -> bool:
    """The member `name`, true or false; false when it is missing."""
    untrusted = members.get(name, False)
    if not isinstance(untrusted, bool):
        raise bad(f"{name} must be true or false")
    return untrusted


def text_list(members: Mapping[str, Any], name: str, limit: int) -> tuple[str, ...]:
    """The member `name`, a list of at most `limit` strings; empty when it is missing."""
    untrusted = members.get(name, [])
    if not isinstance(untrusted, list) or not all(isinstance(entry, str) for entry in untrusted):
        raise bad(f"{name} must be a list of strings")
    if len(untrusted) > limit:
        raise bad(f"{name} has at most {limit} entries, this one {len(untrusted)}")
    return tuple(untrusted)


def from_base64(untrusted: object, name: str, limit: int = MAX_FILE) -> bytes:
    """The bytes in a base64 text, which may be empty and may hold line breaks; at most `limit` bytes."""
    if not isinstance(untrusted, str):
        raise bad(f"{name} must be a base64 string")
    try:
        content = base64.b64decode("".join(untrusted.split()), validate=True)
    except (binascii.Error, ValueError):
        raise bad(f"{name} is not base64") from None
    if len(content) > limit:
        raise bad(f"{name} has at most {limit} bytes, this one {len(content)}")
    return content
