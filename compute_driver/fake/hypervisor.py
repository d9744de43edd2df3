"""What a fake hypervisor has: nodes and guests, and what is known of the agents in them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from agent_protocol.outcomes import Refused, Unreachable

from ..agents import AgentMemory
from ..driver import Instance, Progress
from ..errors import InstanceNotFound, VolumeInUse
from ..fencing import Fence
from ..network import MAX_INTERFACES, Interface
from ..states import PowerState
from ..volumes import Volume
from .access import Access
from .guest import Guest
from .nodes import Node
from .shared import Shared
from .steering import Steering

_MAX_DEVICES = 16


class Hypervisor:
    """One driver's view of it; what is `shared` may be seen by others, too.

    lock: held by whoever reads or changes what is there; never while a step begins or ends. neighbours: other
    hypervisors, to which guests can be sent.
    """

    def __init__(self, shared: Shared, memory: AgentMemory, fence: Fence | None) -> None:
        self.shared = shared
        self.access = Access(shared, fence)
        self.steering = Steering()
        self.memory = memory
        self.neighbours: list[Hypervisor] = []
        self._nodes = shared.nodes
        self._guests = shared.guests

    @property
    def pool(self) -> str:
        """Its uuid."""
        return self.shared.pool

    @property
    def lock(self) -> threading.RLock:
        """See above."""
        return self.shared.lock

    @contextmanager
    def step(self, progress: Progress, name: str) -> Iterator[None]:
        """Surrounds a step that changes something: reported, steered, fenced, and told to whoever listens."""
        try:
            with self.steering.step(progress, name):
                self.access.admit()
                yield
        finally:
            self.shared.note()

    # Guests

    def find(self, instance: Instance) -> Guest:
        """The guest of an instance. InstanceNotFound when there is none."""
        with self.lock:
            try:
                return self._guests[instance.uuid]
            except KeyError:
                raise InstanceNotFound(instance.uuid) from None

    def running(self, instance: Instance) -> Guest:
        """The same, if it runs. Refused (`instance_not_running`) otherwise."""
        guest = self.find(instance)
        guest.require(PowerState.RUNNING)
        return guest

    def has(self, instance: Instance) -> bool:
        """Whether there is one."""
        with self.lock:
            return instance.uuid in self._guests

    def add(self, guest: Guest) -> None:
        """Refused (`guest_exists`) when the instance has one."""
        with self.lock:
            if guest.uuid in self._guests:
                raise Refused("guest_exists", f"there is a guest of instance {guest.uuid} already")
            self._guests[guest.uuid] = guest

    def remove(self, uuid: str) -> None:
        """Have no such guest any more; nothing happens when there is none."""
        with self.lock:
            self._guests.pop(uuid, None)

    def guests(self, node: str | None = None) -> list[Guest]:
        """All of them, or those that belong to a node."""
        with self.lock:
            return [it for it in self._guests.values() if node in (None, it.node)]

    # Agents

    def talk(self, guest: Guest) -> None:
        """Hear from the agent of a running guest, and remember it. Unreachable and Refused as of any conversation."""
        if not guest.system.has_agent:
            raise Unreachable("agent_silent", "the guest has no agent")
        known = self.memory.recall(guest.uuid)
        if known is not None and known.identity not in (None, guest.system.identity.public):
            raise Refused(
                "identity_changed", "the guest's agent is another one than was known; trust it if it is right"
            )
        self.memory.remember(guest.uuid, guest.agent)

    # Nodes

    @property
    def nodes(self) -> list[Node]:
        """All of them."""
        return list(self._nodes.values())

    def node(self, name: str) -> Node:
        """The node of that name. Refused (`node_not_found`) when there is none."""
        try:
            return self._nodes[name]
        except KeyError:
            raise Refused("node_not_found", f"there is no node {name!r}") from None

    def taking(self, name: str) -> Node:
        """The same, if it takes guests. Refused (`node_disabled`) otherwise."""
        node = self.node(name)
        if not node.takes_guests:
            raise Refused("node_disabled", f"the node {name} takes no guests now")
        return node

    def choose(self) -> Node:
        """The node with the fewest guests. Refused (`node_disabled`) when none takes any."""
        with self.lock:
            usable = [node for node in self.nodes if node.takes_guests]
            if not usable:
                raise Refused("node_disabled", "no node takes guests now")
            return min(usable, key=lambda node: len(self.guests(node.name)))

    # Devices

    def attach_volume(self, guest: Guest, volume: Volume) -> str:
        """Gives the device; of what is attached already, too."""
        with self.lock:
            guest.require_settled()
            if volume.id in guest.volumes:
                return guest.volumes[volume.id][1]
            for other in self.guests():
                held = other.volumes.get(volume.id)
                if held is not None and not (held[0].read_only and volume.read_only):
                    raise VolumeInUse(volume.id)
            taken = {device for _, device in guest.volumes.values()}
            if not guest.system.is_volume:
                taken.add(_device(0))
            if volume.device is not None:
                device = _device(int(volume.device)) if volume.device.isdigit() else volume.device.removeprefix("/dev/")
            else:
                free = [name for name in map(_device, range(_MAX_DEVICES)) if name not in taken]
                if not free:
                    raise Refused("no_free_device", "the guest has as many disks as it can have")
                device = free[0]
            if device in taken:
                raise Refused("device_in_use", f"the guest has another disk as {device}")
            guest.volumes[volume.id] = volume, device
            return device

    def attach_interface(self, guest: Guest, interface: Interface) -> None:
        """Nothing happens when the guest has one with this MAC address."""
        with self.lock:
            guest.require_settled()
            if any(it.mac == interface.mac for it in guest.interfaces):
                return
            if any(it.id == interface.id for it in guest.interfaces):
                raise Refused("port_attached", f"port {interface.id} is attached with another MAC address")
            if len(guest.interfaces) == MAX_INTERFACES:
                raise Refused("no_free_device", "the guest has as many interfaces as it can have")
            guest.interfaces.append(interface)

    def detach_interface(self, guest: Guest, interface: Interface) -> None:
        """Nothing happens when the guest does not have it."""
        with self.lock:
            left = [it for it in guest.interfaces if it.id != interface.id and it.mac != interface.mac]
            if left != guest.interfaces:
                guest.require_settled()
                guest.interfaces = left

    def detach_volume(self, guest: Guest, volume: Volume) -> None:
        """Likewise."""
        with self.lock:
            if volume.id in guest.volumes:
                guest.require_settled()
                del guest.volumes[volume.id]


def _device(number: int) -> str:
    if number > 25:
        raise Refused("bad_device", "a guest cannot have a disk of that number")
    return f"xvd{chr(ord('a') + number)}"
