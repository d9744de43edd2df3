"""What event.from answers, checked: nothing past this point sees what a host sent as it came."""

from __future__ import annotations

import re
import xmlrpc.client
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

CLASSES = (
    "VM",
    "VM_metrics",
    "VM_guest_metrics",
    "VBD",
    "VDI",
    "VIF",
    "SR",
    "PBD",
    "SM",
    "network",
    "PIF",
    "host",
    "host_metrics",
    "pool",
    "task",
)
"""The classes that the driver reads, spelt as in calls."""

_BY_NAME = {cls.lower(): cls for cls in CLASSES}
"""Events name classes in small letters."""

_TOKEN = re.compile(r"(?P<generation>[0-9]{1,20}),[0-9]{1,20}\Z", re.ASCII)
_MAX_DEPTH = 8
"""How deep a record's fields may be nested; XenAPI's own are at most a map of sets."""

Row = Mapping[str, Any]
"""A record, as XenServer sent it: whole numbers are text. Neither it nor anything in it can be changed: arrays are
tuples, and structs are read-only mappings."""


class MalformedBatch(Exception):
    """Raised when what came is no answer of event.from. args[0] says why, without anything of its content."""


@dataclass(frozen=True)
class Event:
    """One object that changed. row: its record now, None when it is gone."""

    cls: str
    ref: str
    row: Row | None


@dataclass(frozen=True)
class Batch:
    """What one event.from told.

    events: of CLASSES only. counts: how many objects of each class there are. token: to ask with the next time;
    generation: its place in the order of all changes.
    """

    events: tuple[Event, ...]
    counts: Mapping[str, int]
    token: str
    generation: int

    @classmethod
    def parse(cls, untrusted_answer: Any) -> Batch:
        """The batch; MalformedBatch when it is none."""
        if not isinstance(untrusted_answer, dict):
            raise MalformedBatch("no struct")
        untrusted_events = untrusted_answer.get("events")
        untrusted_counts = untrusted_answer.get("valid_ref_counts")
        if not isinstance(untrusted_events, list) or not isinstance(untrusted_counts, dict):
            raise MalformedBatch("no events, or no counts")
        token = untrusted_answer.get("token")
        generation = parse_token(token)
        events = tuple(event for event in map(_event, untrusted_events) if event is not None)
        counts = {}
        for name, untrusted_count in untrusted_counts.items():
            # xapi sends a true integer here, and nowhere else.
            if type(untrusted_count) is not int or untrusted_count < 0:
                raise MalformedBatch("a count that is none")
            if name in _BY_NAME:
                counts[_BY_NAME[name]] = untrusted_count
        return cls(events, MappingProxyType(counts), str(token), generation)


def parse_token(untrusted_token: Any) -> int:
    """A token's place in the order of all changes; MalformedBatch when it is none."""
    match = _TOKEN.match(untrusted_token) if isinstance(untrusted_token, str) else None
    if match is None:
        raise MalformedBatch("no token")
    return int(match["generation"])


def _event(untrusted: Any) -> Event | None:
    if not isinstance(untrusted, dict):
        raise MalformedBatch("an event that is no struct")
    name, ref, operation = untrusted.get("class"), untrusted.get("ref"), untrusted.get("operation")
    if not isinstance(name, str) or not isinstance(ref, str) or not ref:
        raise MalformedBatch("an event of nothing")
    if operation not in ("add", "mod", "del"):
        raise MalformedBatch("an event that is none")
    if name.lower() not in _BY_NAME:
        return None
    if operation == "del":
        return Event(_BY_NAME[name.lower()], ref, None)
    return Event(_BY_NAME[name.lower()], ref, freeze_record(untrusted.get("snapshot")))


def freeze_record(untrusted_record: Any) -> Row:
    """A record that nobody can change; MalformedBatch when it is none."""
    if not isinstance(untrusted_record, dict) or not isinstance(untrusted_record.get("uuid"), str):
        raise MalformedBatch("no record")
    row: Row = _frozen(untrusted_record, _MAX_DEPTH)
    return row


def _frozen(untrusted: Any, depth: int) -> Any:
    if type(untrusted) is str:
        return untrusted
    if not depth:
        raise MalformedBatch("a record that is nested too deep")
    if isinstance(untrusted, dict):
        return MappingProxyType({str(name): _frozen(value, depth - 1) for name, value in untrusted.items()})
    if isinstance(untrusted, list):
        return tuple([_frozen(value, depth - 1) for value in untrusted])
    if isinstance(untrusted, xmlrpc.client.DateTime):
        return str(untrusted)
    if untrusted is None or isinstance(untrusted, (bool, int, float)):
        return untrusted
    raise MalformedBatch("a value of no type that XenAPI knows")
