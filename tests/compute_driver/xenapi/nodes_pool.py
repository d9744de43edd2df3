"""A pool of two hosts whose guests have a real agent, and a driver for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent_protocol.outcomes import Unsuccessful
from compute_driver.agents import AgentsInMemory
from compute_driver.xenapi.connection.session import Connection, XenServer
from compute_driver.xenapi.driver import XenServerDriver
from tools.simulator.process import SimulatorProcess

from .conftest import Steps, Wanted

FIRST, SECOND = "simulated-1", "simulated-2"


class NodesPool:
    """driver: with a memory of its own. server: for what a test wants to know or to spoil."""

    def __init__(self, simulator: SimulatorProcess) -> None:
        self.simulator = simulator
        connection = Connection(simulator.url, simulator.username, simulator.password)
        self.driver = XenServerDriver(connection, AgentsInMemory(), agent_timeout=20.0, boot_timeout=30.0)
        self.server = XenServer(connection)
        self._instances: list[Wanted] = []

    def host(self, node: str) -> str:
        hosts = self.server.call("host.get_all_records").items()
        return next(ref for ref, record in hosts if record["hostname"] == node)

    def guest(self, node: str) -> Wanted:
        """A running instance there, with its agent."""
        instance = Wanted()
        self._instances.append(instance)
        self.driver.spawn(instance, node=node, progress=Steps())
        return instance

    def vm(self, instance: Wanted) -> str:
        (ref,) = self.server.call("VM.get_by_name_label", f"instance-{instance.uuid}")
        return str(ref)

    def node_of(self, instance: Wanted) -> str:
        return str(self.server.call("host.get_hostname", self.server.call("VM.get_resident_on", self.vm(instance))))

    @property
    def plugin(self) -> Path:
        """The file that XAPI runs, on all hosts."""
        (state,) = {host.xenstore_socket.parents[1] for host in self.simulator.hosts[:1]}
        return state / "plugins" / "xenward"

    def restore(self) -> None:
        """As it was: no instances, both hosts enabled."""
        while self._instances:
            instance = self._instances.pop()
            with suppress(Unsuccessful, ValueError):
                self.server.call("VM.remove_from_blocked_operations", self.vm(instance), "pool_migrate")
            self.driver.destroy(instance)
        for ref in self.server.call("host.get_all"):
            self.server.call("host.enable", ref)


@contextmanager
def nodes_pool() -> Iterator[NodesPool]:
    with SimulatorProcess(["--login-failure-delay", "0", "--hosts", "2"]) as simulator:
        pool = NodesPool(simulator)
        yield pool
        pool.driver.close()
        pool.server.close()
