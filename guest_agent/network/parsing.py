"""Reading addresses and networks that somebody else wrote. Whatever is wrong becomes Refused, `bad_network_data`."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from typing import Any

from .data import Address, InterfaceAddress, Network, bad

_MAX_TEXT = 64
"""Characters of an address with its prefix; the longest have 49."""


def parse_object(untrusted_text: str | bytes, what: str) -> Mapping[str, Any]:
    """The members of a JSON object, their types unchecked. what: a name for it, in errors."""
    try:
        members = json.loads(untrusted_text)
    except (ValueError, RecursionError):
        raise bad(f"{what} is not JSON") from None
    return as_object(members, what)


def as_object(untrusted: object, what: str) -> Mapping[str, Any]:
    """The same, if it is an object."""
    if not isinstance(untrusted, dict):
        raise bad(f"{what} must be a JSON object")
    return untrusted


def as_list(untrusted: object, what: str, limit: int) -> list[Any]:
    """A list of at most `limit` entries; empty for null."""
    if untrusted is None:
        return []
    if not isinstance(untrusted, list):
        raise bad(f"{what} must be a list")
    if len(untrusted) > limit:
        raise bad(f"{what} has at most {limit} entries, this one {len(untrusted)}")
    return untrusted


def as_text(untrusted: object, what: str) -> str:
    """A string."""
    if not isinstance(untrusted, str):
        raise bad(f"{what} must be a string")
    return untrusted


def as_address(untrusted: object, what: str) -> Address:
    """An address of either family, alone."""
    try:
        return ipaddress.ip_address(_short(untrusted, what))
    except ValueError:
        raise bad(f"{what} must be an IP address") from None


def as_interface(untrusted: object, what: str) -> InterfaceAddress:
    """An address with its prefix, as 192.0.2.5/24."""
    try:
        return ipaddress.ip_interface(_with_prefix(untrusted, what))
    except ValueError:
        raise bad(f"{what} must be an IP address with its prefix, as 192.0.2.5/24") from None


def as_network(untrusted: object, what: str) -> Network:
    """A network, as 10.0.0.0/8; what the prefix leaves free must be zero."""
    try:
        return ipaddress.ip_network(_with_prefix(untrusted, what))
    except ValueError:
        raise bad(f"{what} must be a network with its prefix, as 10.0.0.0/8") from None


def as_prefix(untrusted: object, version: int, what: str) -> int:
    """The length of a prefix: a number, digits, or a mask written as an address is."""
    bits = 32 if version == 4 else 128
    if isinstance(untrusted, str) and not (untrusted.isascii() and untrusted.isdigit()):
        mask = as_address(untrusted, what)
        if mask.version != version:
            raise bad(f"{what} is of the other family")
        length = bin(int(mask)).count("1")
        if int(mask) != (1 << bits) - (1 << (bits - length)):
            raise bad(f"{what} has holes")
        return length
    if isinstance(untrusted, bool) or not isinstance(untrusted, (int, str)) or len(str(untrusted)) > 3:
        raise bad(f"{what} must be a netmask or the length of a prefix")
    length = int(untrusted)
    if not 0 <= length <= bits:
        raise bad(f"{what} must be at most {bits}")
    return length


def _with_prefix(untrusted: object, what: str) -> str:
    text = _short(untrusted, what)
    prefix = text.rpartition("/")[2]
    if "/" not in text or not (prefix.isascii() and prefix.isdigit()):
        raise ValueError
    return text


def _short(untrusted: object, what: str) -> str:
    text = as_text(untrusted, what)
    if len(text) > _MAX_TEXT or "%" in text:
        raise ValueError
    return text
