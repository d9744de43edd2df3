"""Reading plain data that came over the bus: every value has exactly the type that it should, or is refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, TypeVar

from agent_protocol.outcomes import Refused

_T = TypeVar("_T")

_MAX_ADDRESS = 64
"""Characters of an address with its prefix; the longest have 49."""


@dataclass(frozen=True)
class Parser:
    """Reads values of one kind of thing. refusal: makes the error out of a sentence that holds none of the values.

    what: a name for the value, in errors.
    """

    refusal: Callable[[str], Refused]

    def members(self, untrusted: object, what: str, known: Collection[str]) -> Mapping[str, Any]:
        """The members of an object that has no others than these."""
        if not isinstance(untrusted, Mapping):
            raise self.refusal(f"{what} must be an object")
        if not untrusted.keys() <= set(known):
            raise self.refusal(f"{what} has members besides {', '.join(known)}")
        return untrusted

    def sequence(self, untrusted: object, what: str, limit: int) -> list[Any] | tuple[Any, ...]:
        """A list of at most `limit` entries; empty for null."""
        if untrusted is None:
            return []
        if not isinstance(untrusted, (list, tuple)):
            raise self.refusal(f"{what} must be a list")
        if len(untrusted) > limit:
            raise self.refusal(f"{what}: at most {limit} entries, these are {len(untrusted)}")
        return untrusted

    def each(self, untrusted: object, what: str, limit: int, read: Callable[[object, str], _T]) -> tuple[_T, ...]:
        """A list whose entries are all of one kind."""
        return tuple(read(entry, what) for entry in self.sequence(untrusted, what, limit))

    def text(self, untrusted: object, what: str) -> str:
        """A string."""
        if not isinstance(untrusted, str):
            raise self.refusal(f"{what} must be a string")
        return untrusted

    def optional_text(self, untrusted: object, what: str) -> str | None:
        """A string, or null."""
        return None if untrusted is None else self.text(untrusted, what)

    def flag(self, untrusted: object, what: str) -> bool:
        """True or false; null is false."""
        if untrusted is not None and not isinstance(untrusted, bool):
            raise self.refusal(f"{what} must be true or false")
        return bool(untrusted)

    def number(self, untrusted: object, what: str) -> int:
        """A whole number."""
        if isinstance(untrusted, bool) or not isinstance(untrusted, int):
            raise self.refusal(f"{what} must be a whole number")
        return untrusted

    def optional_number(self, untrusted: object, what: str) -> int | None:
        """A whole number, or null."""
        return None if untrusted is None else self.number(untrusted, what)

    def address(self, untrusted: object, what: str) -> IPv4Address | IPv6Address:
        """An address of either family, alone."""
        try:
            return ipaddress.ip_address(self._short(untrusted, what))
        except ValueError:
            raise self.refusal(f"{what} must be an IP address") from None

    def interface_address(self, untrusted: object, what: str) -> IPv4Interface | IPv6Interface:
        """An address with its prefix, as 192.0.2.5/24."""
        try:
            return ipaddress.ip_interface(self._with_prefix(untrusted, what))
        except ValueError:
            raise self.refusal(f"{what} must be an IP address with its prefix, as 192.0.2.5/24") from None

    def network(self, untrusted: object, what: str) -> IPv4Network | IPv6Network:
        """A network, as 10.0.0.0/8; what the prefix leaves free must be zero."""
        try:
            return ipaddress.ip_network(self._with_prefix(untrusted, what))
        except ValueError:
            raise self.refusal(f"{what} must be a network with its prefix, as 10.0.0.0/8") from None

    def _with_prefix(self, untrusted: object, what: str) -> str:
        text = self._short(untrusted, what)
        prefix = text.rpartition("/")[2]
        if "/" not in text or not (prefix.isascii() and prefix.isdigit()):
            raise ValueError
        return text

    def _short(self, untrusted: object, what: str) -> str:
        text = self.text(untrusted, what)
        if len(text) > _MAX_ADDRESS or "%" in text:
            raise ValueError
        return text
