"""Methods of the bus that tell something, and those about nodes."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

from ..context import RequestContext
from .answers import Endpoint, a_flag, a_string, a_string_or_none, answered, strings


class QuestionEndpoint(Endpoint):
    """What is there, what was done, and what the hypervisor consists of."""

    @answered
    def get_instance(self, _context: RequestContext, *, target: str) -> dict[str, Any]:
        instance, agent, power_state = self._manager.get_instance(a_string("target", target))
        return {**instance.to_dict(), "power_state": power_state, "agent": agent.to_dict() if agent else None}

    @answered
    def get_devices(self, _context: RequestContext, *, target: str) -> dict[str, Any]:
        volumes, interfaces = self._manager.get_devices(a_string("target", target))
        return {
            "volumes": [{**volume.to_dict(), "device": device} for volume, device in volumes],
            "interfaces": [interface.to_dict() for interface in interfaces],
        }

    @answered
    def list_instances(self, _context: RequestContext) -> list[dict[str, Any]]:
        return [instance.to_dict() for instance in self._manager.list_instances()]

    @answered
    def list_actions(
        self, _context: RequestContext, *, target: str | None, request_id: str | None = None
    ) -> list[dict[str, Any]]:
        named = a_string_or_none("target", target), a_string_or_none("request_id", request_id)
        return [action.to_dict() for action in self._manager.list_actions(*named)]

    @answered
    def get_order(self, _context: RequestContext, *, order_id: str) -> dict[str, Any]:
        return self._manager.get_order(a_string("order_id", order_id)).to_dict()

    @answered
    def list_services(self, _context: RequestContext) -> list[dict[str, Any]]:
        return [
            {**service.to_dict(), "lease": host.to_dict() if host else None}
            for service, host in self._manager.list_services()
        ]

    @answered
    def get_console_output(self, _context: RequestContext, *, target: str) -> str:
        return base64.b64encode(self._manager.get_console_output(a_string("target", target))).decode("ascii")

    @answered
    def get_vnc_console(self, _context: RequestContext, *, target: str) -> dict[str, Any]:
        return dict(vars(self._manager.get_vnc_console(a_string("target", target))))

    @answered
    def get_diagnostics(self, _context: RequestContext, *, target: str) -> dict[str, Any]:
        return dataclasses.asdict(self._manager.get_diagnostics(a_string("target", target)))

    @answered
    def list_nodes(self, _context: RequestContext) -> list[dict[str, Any]]:
        return self._manager.list_nodes()

    @answered
    def check_nodes(self, _context: RequestContext, *, names: list[str]) -> list[dict[str, Any]]:
        return [state.to_dict() for state in self._manager.check_nodes(strings("names", names))]

    @answered
    def get_inventory(self, _context: RequestContext, *, node: str) -> dict[str, dict[str, Any]]:
        return self._manager.get_inventory(a_string("node", node))

    @answered
    def get_host_uptime(self, _context: RequestContext, *, node: str) -> float:
        return self._manager.get_host_uptime(a_string("node", node))

    @answered
    def set_host_enabled(self, _context: RequestContext, *, node: str, enabled: bool) -> None:
        self._manager.set_host_enabled(a_string("node", node), a_flag("enabled", enabled))

    @answered
    def host_maintenance_mode(self, _context: RequestContext, *, node: str, enabled: bool) -> None:
        self._manager.host_maintenance_mode(a_string("node", node), a_flag("enabled", enabled))

    @answered
    def host_power_action(self, _context: RequestContext, *, node: str, action: str) -> None:
        self._manager.host_power_action(a_string("node", node), a_string("action", action))
