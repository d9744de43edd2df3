"""The XenAPI datamodel: classes, fields, types, enums, relations, signatures, errors.

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
    "VM": ("memory", "VCPUs", "actions", "PV", "HVM"),
    "VM_metrics": ("memory", "VCPUs"),
    "host": ("API_version", "memory"),
    "host_metrics": ("memory",),
    "VBD": ("qos",),
    "VIF": ("qos",),
    "VBD_metrics": ("io",),
    "VIF_metrics": ("io",),
    "PIF_metrics": ("io",),
}
"""Fields that xapi declares inside a namespace, which its database spells with two underscores (`memory__target`).

Source: ocaml/idl/datamodel*.ml. Labels and descriptions are `name__label` and `name__description` in every class but
the pool, where they are plain fields.
"""

_LABELS = ("name_label", "name_description")

_SPECIAL = {"<class> record": "any", "event record": "any", "an event batch": "batch"}
_MAP = re.compile(r"\((?P<key>.+?) -> (?P<value>.+)\) map\Z")


@dataclass(frozen=True)
class Type:
    """A type of the datamodel.

    kind: string, int, float, bool, datetime, void, enum, ref, record, set, map or option; `any` is a record whose
        class stands beside it (event.snapshot), or an event, whose members on the wire are not those of the datamodel;
        `batch` is what event.from answers.
    name: of the enum, or of the class that a ref or a record belongs to.
    key, item: of a map; a set and an option have an item only.
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
        return simple[self.kind] if self.kind in simple else {"ref": NULL_REF, "set": [], "map": {}}.get(self.kind)


@functools.cache
def parse_type(text: str) -> Type:
    """The type that model.json spells as `text`, such as `(string -> VDI ref) map`. ValueError for anything else."""
    if text in _SPECIAL:
        return Type(_SPECIAL[text])
    match = _MAP.match(text)
    if match:
        return Type("map", key=parse_type(match["key"]), item=parse_type(match["value"]))
    for kind in ("set", "option"):
        if text.endswith(" " + kind):
            return Type(kind, item=parse_type(text[: -len(kind) - 1]))
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
    """What a call takes, besides the session, and what it gives back.

    has_async: whether there is an `Async.` form of it.
    is_internal: only hosts of the pool may call it.
    is_removed: xapi does not do it any more.
    is_hidden: it is not in the reference that is published.
    """

    name: str
    parameters: tuple[Parameter, ...]
    result: Type
    needs_session: bool = True
    has_async: bool = False
    is_internal: bool = False
    is_removed: bool = False
    is_hidden: bool = False


@dataclass(frozen=True)
class Class:
    """A class of the datamodel.

    implicit: which of the calls that do not belong to a field xapi generates, such as `get_all`.
    removed: generated calls that xapi does not answer any more, by their names without the class.
    columns: the fields by their names in xapi's database.
    """

    name: str
    fields: dict[str, Field]
    implicit: frozenset[str]
    columns: dict[str, Field]
    removed: frozenset[str] = frozenset()

    @property
    def is_stored(self) -> bool:
        """Whether its objects are rows of xapi's database. Events and messages, say, are not."""
        return "get_record" in self.implicit


def generated_names(cls: Class) -> set[str]:
    """The calls that xapi generates for a class, without the class' name and but for `create` and `destroy`."""
    names = set(cls.implicit) - {"create", "destroy"}
    if "get_all" in names:
        names |= {"get_all_records", "get_all_where", "get_all_records_where"}
    for field in cls.fields.values() if cls.is_stored else ():
        names.add(f"get_{field.name}")
        if field.writable:
            names.add(f"set_{field.name}")
            if field.type.kind == "map":
                names |= {f"add_to_{field.name}", f"remove_from_{field.name}"}
            elif field.type.kind == "set":
                names |= {f"add_{field.name}", f"remove_{field.name}"}
    return names


class Model:
    """The whole datamodel.

    source: which of xapi's versions it was taken from.
    relations: (class, its field, other class, its field): two ends of one fact. The other field is always a set of
        refs; the first is a ref, or for many-to-many relations a set of refs too.
    signatures: of all calls but the generated ones, and of `create` and `destroy`.
    errors: the documented error codes with the names of their parameters.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.source: str = document["source"]
        self.enums: dict[str, tuple[str, ...]] = {name: tuple(values) for name, values in document["enums"].items()}
        self.relations: list[tuple[str, str, str, str]] = [
            (many, ref, one, refs) for many, ref, one, refs in document["relations"]
        ]
        self.signatures: dict[str, Signature] = {}
        self.classes: dict[str, Class] = {}
        for name, content in document["classes"].items():
            fields = {field: _field(name, field, *facts) for field, facts in content["fields"].items()}
            columns = {field.column: field for field in fields.values()}
            implicit, removed = frozenset(content["implicit"]), frozenset(content["removed"])
            self.classes[name] = Class(name, fields, implicit, columns, removed)
        self.errors: dict[str, tuple[str, ...]] = {code: tuple(names) for code, names in document["errors"].items()}
        for name, (parameters, result, flags) in document["calls"].items():
            self.signatures[name] = Signature(
                name,
                tuple(_parameter(*facts) for facts in parameters),
                parse_type(result),
                needs_session="no session" not in flags,
                has_async="async" in flags,
                is_internal="internal" in flags,
                is_removed="removed" in flags,
                is_hidden="hidden" in flags,
            )

    def record_type(self, cls: str) -> Type:
        """The type of a record of `cls`."""
        return Type("record", name=cls)


def load() -> Model:
    """The model beside this file."""
    return Model(json.loads(Path(__file__).with_name("model.json").read_text("utf-8")))


def _column(cls: str, field: str) -> str:
    if field in _LABELS and cls != "pool":
        return field.replace("_", "__")
    for namespace in _NAMESPACES.get(cls, ()):
        if field.startswith(namespace + "_"):
            return namespace + "__" + field[len(namespace) + 1 :]
    return field


def _field(cls: str, name: str, type_name: str, qualifier: str, *default: Any) -> Field:
    value = default[0] if default else None
    return Field(name, parse_type(type_name), qualifier, bool(default), value, _column(cls, name))


def _parameter(name: str, type_name: str, *default: Any) -> Parameter:
    return Parameter(name, parse_type(type_name), bool(default), default[0] if default else None)
