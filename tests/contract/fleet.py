"""Many guests on one simulated host, with the real agent in each, as threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent_protocol.adverts import verify_advert
from agent_protocol.legacy import AgentExchange
from agent_protocol.messages import ADVERT
from agent_protocol.xenstore import Client, connect
from compute_driver.agents import SEALED, AgentInfo
from guest_agent import VERSION
from guest_agent.agent import Agent
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context, features
from guest_agent.system.directory import DirectorySystem

from .house import SECONDS, House


@dataclass
class FleetGuest:
    """One of them. vm: its uuid. agent: what a host knows that has read its advert."""

    vm: str
    domid: str
    root: Path
    agent: AgentInfo = AgentInfo("", (), SEALED)


def boot(xenapi: Any, template: Mapping[str, Any], number: int) -> str:
    """Make a VM and start it; its reference."""
    ref = str(xenapi.VM.create({**template, "name_label": f"fleet-{number}"}))
    xenapi.VM.start(ref, False, False)
    return ref


@contextmanager
def fleet(home: House, size: int) -> Iterator[list[FleetGuest]]:
    """Guests with agents that serve. `home` must boot its guests without any."""
    home.create_without_agent("template")
