"""What callers ask and nothing changes by."""

from __future__ import annotations

import logging

from agent_protocol.outcomes import Unsuccessful

from ..db.records import Action, Agent, Host, Instance, Service
from ..errors import InstanceNotFound, OrderNotFound
from ..network import Interface
from ..resources import Diagnostics, VncConsole
from ..volumes import Volume
from .turns import Operations

LOG = logging.getLogger(__name__)


class Questions(Operations):
    """Answers come from the database, or from the hypervisor where that is said."""

    def get_instance(self, target: str) -> tuple[Instance, Agent | None, str]:
        """An instance and its agent as recorded, and its power state as the hypervisor says now, in Nova's words.

        When the hypervisor cannot tell, the word is `unknown`.
        """
        instance = self._repository.find_instance(target)
        agent = self._repository.get_agent(instance.uuid)
        try:
            return instance, agent, self._driver.get_info(instance).state.word
        except Unsuccessful as error:
            LOG.warning("instance %s: its power state is unknown: %s", instance.uuid, error.code)
            return instance, agent, "unknown"

    def get_devices(self, target: str) -> tuple[list[tuple[Volume, str]], list[Interface]]:
        """The volumes of an instance with their devices, and its interfaces, as recorded."""
        instance = self._repository.find_instance(target)
        volumes = [(attached.volume, attached.device) for attached in self._repository.list_volumes(instance.uuid)]
        return volumes, self._repository.list_interfaces(instance.uuid)

    def list_instances(self) -> list[Instance]:
        """All instances that were not deleted, as recorded."""
        return self._repository.list_instances(host=self.host)

    def list_actions(self, target: str | None, request_id: str | None = None) -> list[Action]:
        """The newest actions and steps, oldest first: of all instances or of one, which may be deleted by now.

        target: as everywhere; a deleted instance is known by its uuid only. request_id: only those of one request.
        """
        if target is None:
            return self._repository.list_actions(request_id=request_id)
        try:
            identity = self._repository.find_instance(target).uuid
        except InstanceNotFound:
            actions = self._repository.list_actions(instance_uuid=target, request_id=request_id)
            if not actions:
                raise
            return actions
        return self._repository.list_actions(instance_uuid=identity, request_id=request_id)

    def get_order(self, order_id: str) -> Action:
        """What became of an order. OrderNotFound when it has not arrived."""
        action = self._repository.get_action(order_id)
        if action is None:
            raise OrderNotFound(order_id)
        return action

    def list_services(self) -> list[tuple[Service, Host | None]]:
        """All runs of services that the database knows of, each with the lease of its host."""
        hosts = {host.name: host for host in self._repository.list_hosts()}
        return [(service, hosts.get(service.host)) for service in self._repository.list_services()]

    def get_console_output(self, target: str) -> bytes:
        """The last of what the guest wrote to its serial console: untrusted bytes, from the hypervisor."""
        return self._driver.get_console_output(self._repository.find_instance(target))

    def get_vnc_console(self, target: str) -> VncConsole:
        """Where the guest's screen is, from the hypervisor. The token in it is a secret."""
        self._lease()
        return self._driver.get_vnc_console(self._repository.find_instance(target))

    def get_diagnostics(self, target: str) -> Diagnostics:
        """What the guest uses now, from the hypervisor."""
        return self._driver.get_diagnostics(self._repository.find_instance(target))
