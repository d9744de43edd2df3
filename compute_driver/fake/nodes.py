"""The nodes of a fake hypervisor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent_protocol.outcomes import Outcome, Refused, Unsupported

from ..resources import InventoryItem, NodeResources, NodeState
from ..states import PowerState
from .guest import Guest

POWER_ACTIONS = ("shutdown", "reboot", "startup")

_VERSION = 1_000_000
"""1.0.0, as a whole number."""


@dataclass
class Node:
    """One node. memory_mb: MiB. local_gb: GiB. enabled: whether it takes new guests. live: whether it runs.

    can_be_started: whether anybody could start it from afar.
    """

    name: str
    vcpus: int = 16
    memory_mb: int = 65536
    local_gb: int = 512
    enabled: bool = True
    live: bool = True
    can_be_started: bool = True
    started: float = field(default_factory=time.monotonic)

    @property
    def takes_guests(self) -> bool:
        """Whether a guest can be started there."""
        return self.enabled and self.live

    def state(self) -> NodeState:
        """As ComputeDriver.check_node gives it."""
        if self.live:
            return NodeState(self.name, self.enabled, True, Outcome.SUCCEEDED, "fake")
        return NodeState(
            self.name, self.enabled, False, Outcome.UNREACHABLE, "", "node_down", f"the node {self.name} is down"
        )

    def resources(self, guests: Sequence[Guest]) -> NodeResources:
        """guests: those that are here."""
        running = [it for it in guests if it.state in (PowerState.RUNNING, PowerState.PAUSED)]
        return NodeResources(
            hypervisor_hostname=self.name,
            hypervisor_type="fake",
            hypervisor_version=_VERSION,
            vcpus=self.vcpus,
            vcpus_used=sum(it.vcpus for it in running),
            memory_mb=self.memory_mb,
            memory_mb_used=sum(it.memory_mb for it in running),
            local_gb=self.local_gb,
            local_gb_used=sum(it.system.size_gb for it in guests),
        )

    def inventory(self) -> dict[str, InventoryItem]:
        """As ComputeDriver.get_inventory gives it."""
        totals = {"VCPU": self.vcpus, "MEMORY_MB": self.memory_mb, "DISK_GB": self.local_gb}
        return {name: InventoryItem(total, max_unit=total) for name, total in totals.items() if total}

    def uptime(self) -> float:
        """Seconds since it started."""
        return time.monotonic() - self.started

    def act(self, action: str, *, is_empty: bool) -> None:
        """`shutdown`, `reboot` or `startup`. is_empty: whether no guest runs here. Errors as of the verb."""
        if action == "startup":
            if not self.live:
                if not self.can_be_started:
                    raise Unsupported("power_on_not_configured", f"nobody can start the node {self.name} from afar")
                self._start()
            return
        if self.enabled or not is_empty:
            raise Refused("node_not_in_maintenance", f"the node {self.name} takes or has guests")
        self.live = False
        if action == "reboot":
            self._start()

    def _start(self) -> None:
        self.live = self.enabled = True
        self.started = time.monotonic()


def check_action(action: str) -> None:
    """Refused unless it is one of POWER_ACTIONS."""
    if action not in POWER_ACTIONS:
        raise Refused("bad_power_action", f"a node's power action is {', '.join(POWER_ACTIONS)}")
