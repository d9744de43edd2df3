"""A test's own questions to a fake driver, and its hands in the guests."""

from __future__ import annotations

from contextlib import AbstractContextManager

from ..driver import Instance
from .guest import Guest
from .hypervisor import Hypervisor
from .nodes import Node
from .steering import Steering


class Hands:
    """What a fake driver can do besides its verbs. Nothing here asks the fence, and nothing is logged."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._it = hypervisor

    @property
    def steering(self) -> Steering:
        """Its knobs, and its log."""
        return self._it.steering

    def guest(self, instance: Instance) -> Guest:
        """A copy of all that there is of a guest. InstanceNotFound when there is none."""
        with self._it.lock:
            return self._it.find(instance).copy()

    @property
    def guests(self) -> list[Guest]:
        """Copies of all guests."""
        with self._it.lock:
            return [guest.copy() for guest in self._it.guests()]

    @property
    def sessions(self) -> set[str]:
        """Of all drivers of this hypervisor that have a fence: the sessions that have not ended."""
        with self._it.lock:
            return set(self._it.shared.sessions)

    def opens(self, instance: Instance, password: str) -> bool:
        """Whether this is the password of the guest's administrator."""
        kept = self.guest(instance).system.password
        return kept is not None and kept.opens(password)

    def node(self, name: str) -> Node:
        """A node, to be read and changed."""
        return self._it.node(name)

    def introduce(self, other: Hands) -> None:
        """Let guests be sent to another driver, and back."""
        self._it.neighbours.append(other._it)
        other._it.neighbours.append(self._it)

    def replace_agent(self, instance: Instance) -> None:
        """Have another agent in the guest, that nobody has met."""
        with self._it.lock:
            system = self._it.find(instance).system
            system.identity = type(system.identity).generate()

    def write_console(self, instance: Instance, content: bytes) -> None:
        """Have the guest write to its serial console."""
        with self._it.lock:
            self._it.find(instance).console += content

    def write_disk(self, instance: Instance, content: bytes) -> None:
        """Have this on the guest's root disk, in place of what a snapshot would show."""
        with self._it.lock:
            self._it.find(instance).system.content = content

    def shut_down_inside(self, instance: Instance) -> None:
        """Have the guest's own user shut it down."""
        with self._it.lock:
            self._it.find(instance).stop()
        self._it.shared.note()

    def busy(self, instance: Instance, operation: str) -> AbstractContextManager[None]:
        """While it is entered, the hypervisor does something to the guest that another client asked for."""
        return self._it.shared.busy(instance.uuid, operation)

    def interrupt_events(self) -> None:
        """As if changes might have been missed: whoever listens is told of every guest."""
        with self._it.lock:
            self._it.shared.tell(list(self._it.shared.guests))
