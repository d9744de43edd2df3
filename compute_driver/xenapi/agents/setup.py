"""What a guest is told through its agent once it runs: by spawn, and again by rebuild."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused

from ...driver import Progress
from ...files import InjectedFile
from ...images import Image
from ...network import Interface
from ..guests.vms import VM
from .agent import GuestAgents

_NO = frozenset({"no", "false", "0", "off"})

NETWORK_APPLY = "network_apply"
"""The agent's command, and how it announces it."""


@dataclass(frozen=True)
class Setup:
    """interfaces: those whose configuration the guest has from nobody else."""

    admin_password: Password | None = None
    injected_files: Sequence[InjectedFile] = ()
    ssh_keys: Sequence[str] = ()
    interfaces: Sequence[Interface] = ()

    @property
    def needs_agent(self) -> bool:
        """Whether there is something that only an agent can do."""
        return self.admin_password is not None or bool(self.injected_files) or bool(self.ssh_keys)

    def check(self, image: Image | None, *, power_on: bool) -> None:
        """Refused when this cannot be carried out: nothing runs, or the image says that it has no agent."""
        if not self.needs_agent:
            return
        if not power_on:
            raise Refused("agent_not_running", "password, keys and files need the guest's agent, which is not to run")
        if not has_agent(image):
            raise Refused("agent_not_in_image", "password, keys and files need an agent; the image says it has none")

    def carry_out(self, agents: GuestAgents, vm: VM, progress: Progress) -> None:
        """Wait for the agent of a guest that was just started, then give it everything."""
        with progress.step("wait_for_agent"):
            agent = agents.await_boot(vm)
        if NETWORK_APPLY in agent.features and any(_is_static(interface) for interface in self.interfaces):
            with progress.step("apply_network"):
                agents.apply_network(vm, self.interfaces)
        if self.admin_password is not None:
            with progress.step("set_admin_password"):
                agents.set_password(vm, self.admin_password)
        if self.ssh_keys:
            with progress.step("add_ssh_keys"):
                agents.add_ssh_keys(vm, self.ssh_keys)
        for file in self.injected_files:
            with progress.step("inject_file"):
                agents.put_file(vm, file)


def has_agent(image: Image | None) -> bool:
    """Whether there is to be an agent in the guest: always, unless the image's img_use_agent says no (Nova's word)."""
    return image is None or image.properties.get("img_use_agent", "yes").lower() not in _NO


def _is_static(interface: Interface) -> bool:
    """Whether the guest has to be told about it: DHCP and router advertisements, images come with."""
    return bool(interface.addresses or interface.routes or interface.gateways or interface.dns or interface.search)
