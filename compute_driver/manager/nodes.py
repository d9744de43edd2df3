"""The nodes of the hypervisor, as operators see and steer them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from agent_protocol.outcomes import Unsuccessful

from ..resources import NodeState
from .turns import Operations

LOG = logging.getLogger(__name__)


class NodeOperations(Operations):
    """These are about no instance: they take no turn."""

    def init_host(self) -> None:
        """Get ready. A hypervisor that cannot be used now is logged: each operation then says so itself."""
        try:
            self._driver.init_host(self.host)
        except Unsuccessful as error:
            LOG.error("host %s: %s", self.host, error)

    def list_nodes(self) -> list[dict[str, Any]]:
        """The nodes of the hypervisor, what each has and uses, and whether it can be used.

        What a node that does not answer has is left out of its description.
        """
        return [self._describe_node(node) for node in self._driver.get_available_nodes()]

    def check_nodes(self, names: Sequence[str]) -> list[NodeState]:
        """Whether these nodes can be used, or all when none is named. Refused with `node_not_found`."""
        return [self._driver.check_node(node) for node in names or self._driver.get_available_nodes()]

    def get_inventory(self, node: str) -> dict[str, dict[str, Any]]:
        """What a node offers to a placement service, by resource class."""
        return {name: dict(vars(item)) for name, item in self._driver.get_inventory(node).items()}

    def get_host_uptime(self, node: str) -> float:
        """Seconds since the node started."""
        return self._driver.get_host_uptime(node)

    def set_host_enabled(self, node: str, enabled: bool) -> None:
        """Let a node take new guests, or not."""
        self._lease()
        self._driver.set_host_enabled(node, enabled)

    def host_maintenance_mode(self, node: str, enabled: bool) -> None:
        """Enter maintenance, or leave it; see ComputeDriver."""
        self._lease()
        self._driver.host_maintenance_mode(node, enabled)

    def host_power_action(self, node: str, action: str) -> None:
        """`shutdown`, `reboot` or `startup` of a node; see ComputeDriver."""
        self._lease()
        self._driver.host_power_action(node, action)

    def _describe_node(self, node: str) -> dict[str, Any]:
        state = self._driver.check_node(node).to_dict()
        try:
            return {**state, **vars(self._driver.get_available_resource(node))}
        except Unsuccessful as error:
            LOG.warning("node %s: its resources are unknown: %s", node, error.code)
            return state
