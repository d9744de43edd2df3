"""The XenAPI datamodel, as far as this simulator serves it: classes, fields, types, enums, relations, signatures.

The facts come from model.json, which extract_model.py makes from xapi's own datamodel; nothing about a single class
is written here. What the datamodel does not say (database columns) stands below with its source.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NULL_REF = "OpaqueRef:NULL"
"""The reference that points nowhere."""

EPOCH = "19700101T00:00:00Z"
"""The date of what never happened, in XenAPI's compact form."""

_NAMESPACES = {
    "VM": ("name", "memory", "VCPUs", "actions", "PV", "HVM"),
    "VM_metrics": ("memory", "VCPUs"),
    "host": ("name", "API_version", "memory"),
    "host_metrics": ("memory",),
    "VBD": ("qos",),
    "VIF": ("qos",),
    "VDI": ("name",),
    "SR": ("name",),
    "network": ("name",),
    "task": ("name",),
}
"""Fields that xapi declares inside a namespace, which its database spells with two underscores (`name__label`).

Source: ocaml/idl/datamodel*.ml. A pool's labels are plain fields there, so `pool` is missing here.
"""

_MAP = re.compile(r"\((?P<key>.+?) -> (?P<value>.+)\) map\Z")


@dataclass(frozen=True)
class Type:
    """A type of the datamodel.

    kind: string, int, float, bool, datetime, void, enum, ref, record, set or map.
    name: of the enum, or of the class that a ref or a record belongs to.
    key, item: of a map; a set has an item only.
    """

    kind: str
    name: str = ""
    key: Type | None = None
    item: Type | None = None

    def empty(self, enums: dict[str, tuple[str, ...]]) -> Any:
        """The value of a field that nobody set (xapi's gen_empty_db_val): the first of an enum, the null ref, …"""
        if self.kind == "enum":
            return enums[self.name][0]
        simple: dict[str, Any] = {"string": "", "int": 0, "float": 0.0, "bool": False, "datetime": EPOCH}
        return simple[self.kind] if self.kind in simple else {"ref": NULL_REF, "set": [], "map": {}}[self.kind]


@functools.cache
def parse_type(text: str) -> Type:
    """The type that model.json spells as `text`, such as `(string -> VDI ref) map`. ValueError for anything else."""
    match = _MAP.match(text)
    if match:
        return Type("map", key=parse_type(match["key"]), item=parse_type(match["value"]))
    if text.endswith(" set"):
        return Type("set", item=parse_type(text[: -len(" set")]))
    if text.startswith("enum "):
        return Type("enum", name=text[len("enum ") :])
    for kind in ("ref", "record"):
        if text.endswith(" " + kind):
            return Type(kind, name=text[: -len(kind) - 1])
    if text not in ("string", "int", "float", "bool", "datetime", "void"):
        raise ValueError(f"unknown type {text!r}")
    return Type(text)


@dataclass(frozen=True)
class Field:
    """A field of a class. `default` means something only when `has_default`; without one it is mandatory to create."""

    name: str
    type: Type
    qualifier: str
    has_default: bool
    default: Any
    column: str

    @property
    def writable(self) -> bool:
        """Whether xapi generates setters for it."""
        return self.qualifier == "RW"

    @property
    def constructor(self) -> bool:
        """Whether the record given to `create` may hold it."""
        return self.qualifier in ("RW", "RO/constructor")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a call; one with a default may be left out at the end of the list."""

    name: str
    type: Type
    has_default: bool = False
    default: Any = None


@dataclass(frozen=True)
class Signature:
    """What a call takes, besides the session, and what it gives back."""

    name: str
    parameters: tuple[Parameter, ...]
    result: Type
    needs_session: bool = True


@dataclass(frozen=True)
class Class:
    """A class of the datamodel. `implicit` names the generated calls that xapi offers for it, such as `get_all`."""

    name: str
    fields: dict[str, Field]
    implicit: frozenset[str]
    columns: dict[str, Field]


class Model:
    """All that is served.

    relations: (many class, its ref field, one class, its set-of-refs field): two ends of one fact.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.enums: dict[str, tuple[str, ...]] = {name: tuple(values) for name, values in document["enums"].items()}
        self.relations: list[tuple[str, str, str, str]] = [
            (many, ref, one, refs) for many, ref, one, refs in document["relations"]
        ]
        self.signatures: dict[str, Signature] = {}
        self.classes: dict[str, Class] = {}
        for name, content in document["classes"].items():
            fields = {field: _field(name, field, *facts) for field, facts in content["fields"].items()}
            columns = {field.column: field for field in fields.values()}
            self.classes[name] = Class(name, fields, frozenset(content["implicit"]), columns)
        for name, (parameters, result, needs_session) in document["calls"].items():
            self.signatures[name] = Signature(
                name, tuple(_parameter(*facts) for facts in parameters), parse_type(result), needs_session
            )

    def record_type(self, cls: str) -> Type:
        """The type of a record of `cls`."""
        return Type("record", name=cls)


def load() -> Model:
    """The model beside this file."""
    return Model(json.loads(Path(__file__).with_name("model.json").read_text("utf-8")))


def _column(cls: str, field: str) -> str:
    for namespace in _NAMESPACES.get(cls, ()):
        if field.startswith(namespace + "_"):
            return namespace + "__" + field[len(namespace) + 1 :]
    return field


def _field(cls: str, name: str, type_name: str, qualifier: str, *default: Any) -> Field:
    value = default[0] if default else None
    return Field(name, parse_type(type_name), qualifier, bool(default), value, _column(cls, name))


def _parameter(name: str, type_name: str, *default: Any) -> Parameter:
    return Parameter(name, parse_type(type_name), bool(default), default[0] if default else None)
