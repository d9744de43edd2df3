"""Many guests on one simulated host, with the real agent in each, as threads of this process."""

from __future__ import annotations

import functools
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent_protocol.legacy import AgentExchange
from agent_protocol.xenstore import connect
from compute_driver.xenapi.connection.session import Connection, XenServer
from compute_driver.xenapi.guests import vms
from guest_agent import VERSION
from guest_agent.agent import Agent
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context, features
from guest_agent.system.directory import DirectorySystem

from .house import SECONDS, House


@dataclass(frozen=True)
class _Wanted:
    """The least that a VM is made from."""

    display_name: str
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    memory_mb: int = 64
    vcpus: int = 1
    root_gb: int = 1


@dataclass(frozen=True)
class FleetGuest:
    """One guest of the fleet. vm: its uuid. root: its root directory."""

    vm: str
    domid: str
    root: Path


@contextmanager
def xenserver(home: House) -> Iterator[XenServer]:
    """XenServer through the driver's own session."""
    simulator = home.simulator
    server = XenServer(Connection(simulator.url, simulator.username, simulator.password, timeout=SECONDS))
    yield server
    server.close()


def boot(home: House, server: XenServer, size: int) -> list[FleetGuest]:
    """That many guests, without disks or interfaces. `home` must boot its guests without an agent."""
    guests = []
    for number in range(size):
        ref = vms.create(server, _Wanted(f"fleet-{number}")).ref
        server.call("VM.start", ref, False, False)
        record = server.call("VM.get_record", ref)
        guests.append(FleetGuest(record["uuid"], record["domid"], home.simulator.guest_root(record["uuid"])))
    return guests


@contextmanager
def agents_in(home: House, guests: list[FleetGuest]) -> Iterator[None]:
    """The real agent in each of the guests, while the block runs."""
    with ExitStack() as stack:
        for guest in guests:
            socket = home.simulator.xenstore_socket.with_name(f"domain-{guest.domid}")
            context = Context(DirectorySystem(str(guest.root)), AgentExchange(), VERSION, features(COMMANDS))
            open_store = functools.partial(connect, str(socket), timeout=SECONDS)
            agent = Agent(open_store, COMMANDS, SEALED_COMMANDS, context)
            thread = threading.Thread(target=agent.run, name=f"agent-{guest.domid}", daemon=True)
            thread.start()
            stack.callback(thread.join, SECONDS)
            stack.callback(agent.stop)
        yield
