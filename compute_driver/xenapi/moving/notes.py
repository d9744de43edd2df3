"""What VM.other_config says of a resize until it is confirmed or reverted: the way back."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_protocol.outcomes import Failed

from ...driver import Instance
from ..guests.removal import RESIZE_KEY
from ..guests.vms import MIB


class Step(str, enum.Enum):
    """How far a resize is: noted; the root disk kept; the sizes changed, or on their way; on the way back."""

    BEGUN = "begun"
    KEPT = "kept"
    FINISHED = "finished"
    REVERTING = "reverting"


@dataclass(frozen=True)
class Sizes:
    """Of a VM. memory: bytes, XenServer's four limits in ascending order. vcpus: at its start, and at most."""

    memory: tuple[int, int, int, int]
    vcpus: tuple[int, int]

    @classmethod
    def of(cls, untrusted_record: Mapping[str, Any]) -> Sizes:
        """Those of a VM's record."""
        static_min, dynamic_min, dynamic_max, static_max = (
            int(untrusted_record[f"memory_{name}"])
            for name in ("static_min", "dynamic_min", "dynamic_max", "static_max")
        )
        vcpus = int(untrusted_record["VCPUs_at_startup"]), int(untrusted_record["VCPUs_max"])
        return cls((static_min, dynamic_min, dynamic_max, static_max), vcpus)

    def resized(self, instance: Instance) -> Sizes:
        """Those that an instance should have in their place."""
        memory = instance.memory_mb * MIB
        return Sizes((min(self.memory[0], memory), memory, memory, memory), (instance.vcpus, instance.vcpus))


@dataclass(frozen=True)
class WayBack:
    """What a guest was before its resize.

    root: uuid of its root disk, empty when that is a volume or there is none; device: its number; size: bytes. kept:
    uuid of the clone. places: by device number the uuids of the repositories of its disks. origin: the node where it
    ran, empty for one that was off; node: the one where it goes, empty for any. begun: when, as marks have it.
    """

    step: Step
    sizes: Sizes
    root: str = ""
    device: str = ""
    size: int = 0
    kept: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    node: str = ""
    begun: str = "0"

    def to_text(self) -> str:
        """As it stands in VM.other_config."""
        told = {**vars(self), "step": self.step.value, "places": dict(self.places)}
        return json.dumps({**told, "sizes": {"memory": self.sizes.memory, "vcpus": self.sizes.vcpus}})

    @classmethod
    def from_text(cls, untrusted_text: str) -> WayBack:
        """From that. Failed (`bad_resize_note`) when somebody changed it."""
        try:
            it = json.loads(untrusted_text)
            static_min, dynamic_min, dynamic_max, static_max = (int(each) for each in it["sizes"]["memory"])
            at_startup, at_most = (int(each) for each in it["sizes"]["vcpus"])
            return cls(
                step=Step(it["step"]),
                sizes=Sizes((static_min, dynamic_min, dynamic_max, static_max), (at_startup, at_most)),
                root=str(it["root"]),
                device=str(it["device"]),
                size=int(it["size"]),
                kept=str(it["kept"]),
                places={str(device): str(uuid) for device, uuid in it["places"].items()},
                origin=str(it["origin"]),
                node=str(it["node"]),
                begun=str(it["begun"]),
            )
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise Failed("bad_resize_note", f"what VM.other_config says as {RESIZE_KEY} cannot be read") from None
