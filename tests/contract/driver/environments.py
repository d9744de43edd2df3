"""The drivers that are tried, each with a way to look behind its back: nothing here asks the driver itself."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from compute_driver.agents import AgentMemory, AgentsInMemory
from compute_driver.driver import ComputeDriver, Instance
from compute_driver.errors import InstanceNotFound
from compute_driver.fake.driver import FakeDriver
from compute_driver.fake.nodes import Node
from compute_driver.fencing import Fence
from compute_driver.images import Image
from compute_driver.states import PowerState
from compute_driver.volumes import VdiConnection, Volume

from .wanted import WITH_AGENT
from .xenserver import simulator


class Core(Protocol):
    """What every environment can tell of guests."""

    driver: ComputeDriver
    image: Image | None
    """One whose guests have an agent."""

    def state(self, instance: Instance) -> PowerState | None:
        """None when there is no guest."""

    def life(self, instance: Instance) -> object:
        """Another one after each boot."""

    def opens(self, instance: Instance, password: str) -> bool:
        """Whether the password is that of the guest's administrator."""

    def file(self, instance: Instance, path: str) -> tuple[bytes, int] | None:
        """Content and mode of a file in the guest."""

    def ssh_keys(self, instance: Instance) -> list[str]:
        """The administrator's."""

    def left(self) -> list[str]:
        """What there is that was not there at the beginning."""


class Environment(Core, Protocol):
    """What those tell of guests whose insides are no machines. nodes: two, the one to try things with last.

    can_freeze: whether anything runs in guests that could be frozen.
    """

    memory: AgentMemory
    nodes: tuple[str, str]
    can_freeze: bool

    def beside(self, fence: Fence | None = None) -> ComputeDriver:
        """Another service's driver of the same hypervisor, for the caller to close."""

    def shut_down_inside(self, instance: Instance) -> None:
        """Have the guest's own user shut it down."""

    @contextmanager
    def slow_shutdown(self, instance: Instance) -> Iterator[None]:
        """Another client asks the guest, which has an agent, to shut down; at the end of the block the guest does."""

    @contextmanager
    def silence(self) -> Iterator[None]:
        """While it is entered, the driver is told of no changes; its connection for that is broken."""

    def restart(self) -> None:
        """Have the hypervisor's service begin anew. Guests run on."""

    def node(self, instance: Instance) -> str | None:
        """Where it runs, None if it does not."""

    def sizes(self, instance: Instance) -> tuple[int, int, int]:
        """MiB of memory, processors, GiB of the root disk (0 if that is a volume)."""

    def volumes(self, instance: Instance) -> set[str]:
        """Ids of those that are attached."""

    def new_volume(self) -> Volume:
        """One that nobody has."""

    def has_volume(self, volume: Volume) -> bool:
        """Whether it exists still."""

    def remove_volume(self, volume: Volume) -> None:
        """Destroy it."""

    def macs(self, instance: Instance) -> set[str]:
        """Of the guest's interfaces."""

    def metadata(self, instance: Instance) -> dict[str, str]:
        """As the guest reads it."""

    def has_config_drive(self, instance: Instance) -> bool:
        """Whether a disc is in a drive."""

    def let_configure(self, instance: Instance) -> None:
        """See to it that the guest's agent knows where its system keeps the configuration of the network."""

    def configures(self, instance: Instance, address: str) -> bool:
        """Whether the guest's own configuration has this address."""

    def replace_agent(self, instance: Instance) -> None:
        """Have another agent in the running guest, that nobody has met."""

    def write_disk(self, instance: Instance, content: bytes) -> None:
        """Have this at the beginning of the root disk of a guest that is off."""

    def read_disk(self, instance: Instance, size: int) -> bytes:
        """The beginning of the disk that it boots from."""

    def is_enabled(self, node: str) -> bool:
        """Whether the node takes guests."""

    def is_live(self, node: str) -> bool:
        """Whether the node runs."""

    def let_be_started(self, node: str, possible: bool) -> None:
        """Whether the hypervisor knows how to start the node from afar."""


class FakeEnvironment:
    """The fake, which answers a test's questions itself."""

    can_freeze = True
    image: Image | None = WITH_AGENT

    def __init__(self) -> None:
        self.memory = AgentsInMemory()
        self.nodes = ("fake-1", "fake-2")
        self.driver = FakeDriver(self.memory, nodes=[Node(name) for name in self.nodes])
        self._volumes: set[str] = set()

    def state(self, instance: Instance) -> PowerState | None:
        try:
            return self.driver.guest(instance).state
        except InstanceNotFound:
            return None

    def life(self, instance: Instance) -> object:
        return self.driver.guest(instance).boots

    def opens(self, instance: Instance, password: str) -> bool:
        return self.driver.opens(instance, password)

    def file(self, instance: Instance, path: str) -> tuple[bytes, int] | None:
        file = self.driver.guest(instance).system.files.get(path)
        return None if file is None else (file.content, 0o600 if file.mode is None else file.mode)

    def ssh_keys(self, instance: Instance) -> list[str]:
        return self.driver.guest(instance).system.ssh_keys

    def left(self) -> list[str]:
        return [f"guest {guest.uuid}" for guest in self.driver.guests]

    def beside(self, fence: Fence | None = None) -> ComputeDriver:
        return FakeDriver(fence=fence, beside=self.driver)

    def shut_down_inside(self, instance: Instance) -> None:
        self.driver.shut_down_inside(instance)

    @contextmanager
    def slow_shutdown(self, instance: Instance) -> Iterator[None]:
        with self.driver.busy(instance, "clean_shutdown"):
            yield
            self.driver.shut_down_inside(instance)

    @contextmanager
    def silence(self) -> Iterator[None]:
        with self.driver.steering.blocked("tell"):
            yield
            self.driver.interrupt_events()

    def restart(self) -> None:
        self.driver.interrupt_events()

    def node(self, instance: Instance) -> str | None:
        guest = self.driver.guest(instance)
        return guest.node if guest.state in (PowerState.RUNNING, PowerState.PAUSED) else None

    def sizes(self, instance: Instance) -> tuple[int, int, int]:
        guest = self.driver.guest(instance)
        return guest.memory_mb, guest.vcpus, guest.system.size_gb

    def volumes(self, instance: Instance) -> set[str]:
        return set(self.driver.guest(instance).volumes)

    def new_volume(self) -> Volume:
        volume = Volume(f"volume-{uuid.uuid4()}", VdiConnection(str(uuid.uuid4())))
        self._volumes.add(volume.id)
        return volume

    def has_volume(self, volume: Volume) -> bool:
        return volume.id in self._volumes

    def remove_volume(self, volume: Volume) -> None:
        self._volumes.remove(volume.id)

    def macs(self, instance: Instance) -> set[str]:
        return {it.mac for it in self.driver.guest(instance).interfaces}

    def metadata(self, instance: Instance) -> dict[str, str]:
        return self.driver.guest(instance).metadata

    def has_config_drive(self, instance: Instance) -> bool:
        return bool(self.driver.guest(instance).config_drive)

    def let_configure(self, instance: Instance) -> None:
        assert self.driver.guest(instance)

    def configures(self, instance: Instance, address: str) -> bool:
        network = self.driver.guest(instance).system.network
        return any(str(each.ip) == address for it in network for each in it.addresses)

    def replace_agent(self, instance: Instance) -> None:
        self.driver.replace_agent(instance)

    def write_disk(self, instance: Instance, content: bytes) -> None:
        self.driver.write_disk(instance, content)

    def read_disk(self, instance: Instance, size: int) -> bytes:
        return self.driver.guest(instance).system.content[:size]

    def is_enabled(self, node: str) -> bool:
        return self.driver.node(node).enabled

    def is_live(self, node: str) -> bool:
        return self.driver.node(node).live

    def let_be_started(self, node: str, possible: bool) -> None:
        self.driver.node(node).can_be_started = possible


@contextmanager
def fake() -> Iterator[FakeEnvironment]:
    """The fake."""
    yield FakeEnvironment()


ENVIRONMENTS: dict[str, Callable[[], Any]] = {"fake": fake, "simulator": simulator}
