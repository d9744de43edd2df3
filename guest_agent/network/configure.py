"""Configuring the network of a guest whose files tell it: by the stack that is in use, where nobody else owns it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_protocol.outcomes import Refused

from ..configuration import OVERRIDE, Configuration
from ..system.paths import GuestPath
from . import renderers
from .apply import Applied, apply
from .data import NetworkData
from .renderer import Change
from .stacks import stack_of
from .undo import undo_pending

if TYPE_CHECKING:
    from ..system.base import System

CLOUD_INIT_FILE = GuestPath("/etc/cloud/cloud.cfg.d/99-xenward-network.cfg")

_CLOUD_INIT_CONTENT = b"""\
# Written by the xenward guest agent, which configures this guest's network.
network: {config: disabled}
"""


def configure(system: System, data: NetworkData, configuration: Configuration) -> Applied:
    """As System.apply_network; errors as apply() and stack_of() besides."""
    also = _check_cloud_init(system, configuration)
    renderer = renderers.RENDERERS[stack_of(system, configuration).name]
    # Something that could not be put back at the agent's start, for want of room, say.
    undo_pending(system, renderers.RENDERERS)
    return apply(system, renderer, data, also=also)


def _check_cloud_init(system: System, configuration: Configuration) -> list[Change]:
    """The changes that take the network from cloud-init. Refused (`cloud_init_owns_network`) when it may keep it.

    Where the configuration lets the agent take the network over, cloud-init is told so in its own configuration: it
    would otherwise write its files again at the next boot or for the next instance, and undo what the host was told.
    """
    if not system.cloud_init().owns_network:
        return []
    if configuration.cloud_init_network != OVERRIDE:
        raise Refused(
            "cloud_init_owns_network",
            "cloud-init configures this guest's network; to let the agent do it, set network = override in section "
            f"[cloud-init] of {system.configuration_name}",
        )
    return [Change(CLOUD_INIT_FILE, _CLOUD_INIT_CONTENT)]
