"""The description of a VM in an archive, `ova.xml`: records of all that belongs to it, as one XML-RPC value.

Source: ocaml/xapi/{export,importexport}.ml. References are small names there, such as `Ref:3`, and those to what is not
in the archive are null.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import errors, xmlrpc
from ..model import NULL_REF, Model, Type
from ..rpc import marshal
from ..state import State

NAME = "ova.xml"
_EXPORT_VERSION = 2
_XAPI_VERSION = ("1", "20")
_CLASSES = ("VM", "VM_guest_metrics", "VBD", "VIF", "network", "VDI", "SR")
"""What is described, in this order."""

_RUNTIME: dict[str, dict[str, Any]] = {
    "VM": {"power_state": "Halted", "domid": -1, "current_operations": {}, "allowed_operations": []},
    "VBD": {"currently_attached": False, "device": "", "current_operations": {}, "allowed_operations": []},
    "VIF": {"currently_attached": False, "current_operations": {}, "allowed_operations": []},
    "VDI": {"current_operations": {}, "allowed_operations": []},
    "SR": {"current_operations": {}, "allowed_operations": []},
    "network": {"current_operations": {}, "allowed_operations": []},
}
"""What is said of a VM that may have run meanwhile, so that it can be imported halted."""


class Described(NamedTuple):
    """An object of a description. record: as it came, so not to be trusted."""

    cls: str
    name: str
    record: dict[str, Any]


def members(state: State, vm: str) -> dict[str, str]:
    """What belongs to a VM: class by reference, in the order in which it is described."""
    database = state.database
    record = database.record("VM", vm)
    found: dict[str, set[str]] = {cls: set() for cls in _CLASSES}
    found["VM"].add(vm)
    found["VM_guest_metrics"].add(record["guest_metrics"])
    for vif in record["VIFs"]:
        found["VIF"].add(vif)
        found["network"].add(database.get("VIF", vif, "network"))
    for vbd in record["VBDs"]:
        found["VBD"].add(vbd)
        vdi = database.get("VBD", vbd, "VDI")
        if database.exists("VDI", vdi):
            found["VDI"].add(vdi)
            found["SR"].add(database.get("VDI", vdi, "SR"))
    return {ref: cls for cls in _CLASSES for ref in sorted(found[cls]) if database.exists(cls, ref)}


def describe(state: State, refs: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The document, and the names in it by reference."""
    names = {ref: f"Ref:{number}" for number, ref in enumerate(refs)}
    objects = []
    for ref, cls in refs.items():
        record = {**state.database.record(cls, ref), **_RUNTIME.get(cls, {})}
        fields = state.model.classes[cls].fields
        renamed = {name: _renamed(fields[name].type, value, names) for name, value in record.items()}
        snapshot = marshal(state.model, Type("record", cls), renamed)
        objects.append({"class": cls, "id": names[ref], "snapshot": snapshot})
    software = state.database.get("host", state.coordinator, "software_version")
    version = {
        "hostname": state.database.get("host", state.coordinator, "hostname"),
        "date": software.get("date", ""),
        "product_version": software.get("product_version", ""),
        "product_brand": software.get("product_brand", ""),
        "build_number": software.get("build_number", ""),
        "xapi_major": _XAPI_VERSION[0],
        "xapi_minor": _XAPI_VERSION[1],
        "export_vsn": str(_EXPORT_VERSION),
    }
    return xmlrpc.encode_value(state.model, Type("any"), {"version": version, "objects": objects}), names


def _renamed(kind: Type, value: Any, names: dict[str, str]) -> Any:
    if kind.kind == "ref":
        return names.get(value, NULL_REF)
    if kind.kind == "set" and kind.item is not None and kind.item.kind == "ref":
        return [names[ref] for ref in value if ref in names]
    if kind.kind == "map" and kind.key is not None and kind.item is not None:
        return {} if "ref" in (kind.key.kind, kind.item.kind) else value
    return value


def read(model: Model, untrusted_document: bytes) -> list[Described]:
    """The objects of a description. ApiError IMPORT_ERROR when it is none."""
    _, declaration, rest = untrusted_document.partition(b"?>")
    value = rest if declaration and untrusted_document.lstrip().startswith(b"<?xml") else untrusted_document
    response = b"<methodResponse><params><param>" + value.strip() + b"</param></params></methodResponse>"
    try:
        untrusted_tree = xmlrpc.decode_response(response)
        described = [
            Described(untrusted_object["class"], untrusted_object["id"], untrusted_object["snapshot"])
            for untrusted_object in untrusted_tree["objects"]
        ]
        for cls, name, record in described:
            if not (isinstance(cls, str) and isinstance(name, str) and isinstance(record, dict)):
                raise TypeError
    except (xmlrpc.DecodeError, KeyError, TypeError, IndexError):
        raise errors.ApiError("IMPORT_ERROR", "malformed ova.xml") from None
    return [item for item in described if item.cls in model.classes]
