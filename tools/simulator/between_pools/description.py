"""What a pool tells another one of a VM that it sends: its records, without what only means something in one pool."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import errors
from ..formats.streams import FormatError
from ..model import NULL_REF, Model, Type
from ..values import coerce
from .frames import VERSION

_NEVER_TOLD = {
    "VM": frozenset(
        {
            "allowed_operations",
            "current_operations",
            "domid",
            "is_control_domain",
            "is_default_template",
            "memory_overhead",
            "power_state",
        }
    ),
    "VBD": frozenset({"uuid", "allowed_operations", "current_operations"}),
    "VIF": frozenset({"uuid", "allowed_operations", "current_operations"}),
    "VDI": frozenset({"uuid", "location", "allowed_operations", "current_operations", "managed", "sm_config"}),
    "VM_metrics": frozenset({"uuid"}),
    "VM_guest_metrics": frozenset({"uuid"}),
}
"""By class, the fields that are made anew."""


def told(model: Model, cls: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an object that mean the same in every pool."""
    return {name: value for name, value in record.items() if _is_told(model, cls, name)}


def _is_told(model: Model, cls: str, name: str) -> bool:
    field = model.classes[cls].fields.get(name)
    return field is not None and name not in _NEVER_TOLD[cls] and not _refers(field.type)


def _refers(kind: Type) -> bool:
    inner = [each for each in (kind.key, kind.item) if each is not None]
    return kind.kind == "ref" or any(_refers(each) for each in inner)


@dataclass(frozen=True)
class Disk:
    """A disk that goes along. name: by which frames call it. repository: where it shall be, a reference there."""

    name: str
    repository: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Device:
    """A VBD or VIF. to: the name of its disk, empty for none; or its network, a reference there."""

    to: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Description:
    """A VM that is sent.

    host: where to, a reference there. vm: its reference at the source, for errors. power_state: Halted, Suspended or
    Running. image: the name of the disk with the memory of a suspended one, empty for none. is_copy: whether it is
    another one than that at the source. fields: of the VM; metrics, guest_metrics: likewise, the latter None for none.
    """

    host: str
    vm: str
    power_state: str
    image: str
    is_copy: bool
    fields: dict[str, Any]
    metrics: dict[str, Any]
    guest_metrics: dict[str, Any] | None
    disks: tuple[Disk, ...]
    vbds: tuple[Device, ...]
    vifs: tuple[Device, ...]

    def to_dict(self) -> dict[str, Any]:
        """As it travels."""
        return {
            **vars(self),
            "version": VERSION,
            "disks": [vars(disk) for disk in self.disks],
            "vbds": [vars(vbd) for vbd in self.vbds],
            "vifs": [vars(vif) for vif in self.vifs],
        }

    @classmethod
    def from_dict(cls, model: Model, untrusted: Mapping[str, Any]) -> Description:
        """What a source says. FormatError when it makes no sense, ApiError when a field has a wrong type.

        ApiError VM_HOST_INCOMPATIBLE_VERSION_MIGRATE when the other side is a simulator of another version.
        """
        try:
            if untrusted["version"] != VERSION:
                raise errors.ApiError(
                    "VM_HOST_INCOMPATIBLE_VERSION_MIGRATE", str(untrusted["host"]), str(untrusted["vm"])
                )
            guest_metrics = untrusted["guest_metrics"]
            it = cls(
                host=_text(untrusted["host"]),
                vm=_text(untrusted["vm"]),
                power_state=_text(untrusted["power_state"]),
                image=_text(untrusted["image"]),
                is_copy=untrusted["is_copy"] is True,
                fields=_fields(model, "VM", untrusted["fields"]),
                metrics=_fields(model, "VM_metrics", untrusted["metrics"]),
                guest_metrics=None if guest_metrics is None else _fields(model, "VM_guest_metrics", guest_metrics),
                disks=tuple(
                    Disk(_text(each["name"]), _text(each["repository"]), _fields(model, "VDI", each["fields"]))
                    for each in untrusted["disks"]
                ),
                vbds=tuple(_device(model, "VBD", each) for each in untrusted["vbds"]),
                vifs=tuple(_device(model, "VIF", each) for each in untrusted["vifs"]),
            )
            it._check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError("a VM's description makes no sense") from error
        return it

    def _check(self) -> None:
        # It becomes the name of a directory.
        if str(uuids.UUID(self.fields["uuid"])) != self.fields["uuid"]:
            raise ValueError
        names = [disk.name for disk in self.disks]
        used = {*(vbd.to for vbd in self.vbds), self.image} - {""}
        if len(set(names)) < len(names) or not used <= set(names) or NULL_REF in names:
            raise ValueError
        if self.power_state not in ("Halted", "Suspended", "Running"):
            raise ValueError


def _text(untrusted_value: object) -> str:
    if not isinstance(untrusted_value, str):
        raise TypeError
    return untrusted_value


def _device(model: Model, cls: str, untrusted: Mapping[str, Any]) -> Device:
    return Device(_text(untrusted["to"]), _fields(model, cls, untrusted["fields"]))


def _fields(model: Model, cls: str, untrusted: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as the database has them: all that told() gives, and no others. KeyError when one is missing."""
    fields = [field for name, field in model.classes[cls].fields.items() if _is_told(model, cls, name)]
    return {field.name: coerce(model, field.type, untrusted[field.name]) for field in fields}
