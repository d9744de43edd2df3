"""Methods of the bus that reach into a guest, or change what it has."""

from __future__ import annotations

from typing import Any

from agent_protocol.outcomes import Refused

from ..context import RequestContext
from ..network import Interface, interfaces_from_list
from ..volumes import Volume
from .answers import Endpoint, a_file, a_password, a_string, a_string_or_none, answered, seconds, strings


class GuestEndpoint(Endpoint):
    """Passwords, files, keys, networks, metadata; volumes and interfaces."""

    @answered
    def set_admin_password(self, context: RequestContext, *, target: str, new_pass: str) -> None:
        self._manager.set_admin_password(context, a_string("target", target), a_password(new_pass))

    @answered
    def inject_file(self, context: RequestContext, *, target: str, file: dict[str, Any]) -> None:
        self._manager.inject_file(context, a_string("target", target), a_file(file))

    @answered
    def add_ssh_keys(self, context: RequestContext, *, target: str, keys: list[str]) -> None:
        self._manager.add_ssh_keys(context, a_string("target", target), strings("keys", keys))

    @answered
    def send_sealed(
        self, context: RequestContext, *, target: str, action: str, request_id: str, value: str, box: str
    ) -> dict[str, str]:
        answer = self._manager.send_sealed(
            context,
            a_string("target", target),
            a_string("action", action),
            request_id=a_string("request_id", request_id),
            value=a_string("value", value),
            box=a_string("box", box),
        )
        return answer.to_dict()

    @answered
    def trust_agent(self, context: RequestContext, *, target: str) -> dict[str, Any]:
        return self._manager.trust_agent(context, a_string("target", target)).to_dict()

    @answered
    def get_agent(self, context: RequestContext, *, target: str, action: str | None) -> dict[str, Any] | None:
        agent = self._manager.get_agent(context, a_string("target", target), a_string_or_none("action", action))
        return None if agent is None else agent.to_dict()

    @answered
    def inject_network_info(
        self, context: RequestContext, *, target: str, interfaces: list[dict[str, Any]] | None = None
    ) -> None:
        wanted = None if interfaces is None else interfaces_from_list(interfaces)
        self._manager.inject_network_info(context, a_string("target", target), wanted)

    @answered
    def reset_network(self, context: RequestContext, *, target: str) -> None:
        self._manager.reset_network(context, a_string("target", target))

    @answered
    def change_instance_metadata(
        self, context: RequestContext, *, target: str, diff: dict[str, list[str]]
    ) -> dict[str, str]:
        if not isinstance(diff, dict) or not all(isinstance(key, str) for key in diff):
            raise Refused("bad_argument", "diff must map keys to changes")
        changes = {key: strings("a change of metadata", change) for key, change in diff.items()}
        return self._manager.change_instance_metadata(context, a_string("target", target), changes)

    @answered
    def quiesce_instance(self, context: RequestContext, *, target: str, timeout: float = 60.0) -> None:
        self._manager.quiesce_instance(context, a_string("target", target), timeout=seconds("timeout", timeout))

    @answered
    def unquiesce_instance(self, context: RequestContext, *, target: str) -> None:
        self._manager.unquiesce_instance(context, a_string("target", target))

    @answered
    def attach_volume(self, context: RequestContext, *, target: str, volume: dict[str, Any]) -> str:
        return self._manager.attach_volume(context, a_string("target", target), Volume.from_dict(volume))

    @answered
    def detach_volume(self, context: RequestContext, *, target: str, volume_id: str) -> None:
        self._manager.detach_volume(context, a_string("target", target), a_string("volume_id", volume_id))

    @answered
    def attach_interface(self, context: RequestContext, *, target: str, interface: dict[str, Any]) -> None:
        self._manager.attach_interface(context, a_string("target", target), Interface.from_dict(interface))

    @answered
    def detach_interface(self, context: RequestContext, *, target: str, interface_id: str) -> None:
        self._manager.detach_interface(context, a_string("target", target), a_string("interface_id", interface_id))
