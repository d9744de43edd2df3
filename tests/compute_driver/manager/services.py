"""Compute services that share a database and a hypervisor, and end without a word at a moment that a test names."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from agent_protocol.outcomes import Unsuccessful
from compute_driver.db.records import Lease
from compute_driver.db.repository import Repository
from compute_driver.fencing import LeaseLost
from compute_driver.manager import ComputeManager
from compute_driver.memory import RepositoryMemory
from compute_driver.recording import Recorder

from ..bench import Bench, Hypervisor, Images, hypervisor

WRITES = frozenset(
    {
        "begin_task",
        "conclude",
        "create_instance",
        "create_migration",
        "delete_agent",
        "delete_interface",
        "delete_volume",
        "finish_action",
        "save_agent",
        "save_interface",
        "save_interfaces",
        "save_volume",
        "set_migration",
        "start_action",
        "update_instance",
    }
)
"""The repository's methods that orders change something with."""


class Died(BaseException):
    """The process is gone: nothing of it is carried out any more."""


class Life:
    """How long a service lives. moments: the changes of database and hypervisor that it was about to make."""

    def __init__(self) -> None:
        self.moments = 0
        self.ends_at: int | None = None

    def go_on(self) -> None:
        """Died at the moment that was named, and ever after."""
        if self.ends_at is not None and self.moments >= self.ends_at:
            raise Died
        self.moments += 1


class Mortal:
    """A repository that a service uses as long as it lives."""

    def __init__(self, repository: Repository, life: Life) -> None:
        self._repository = repository
        self._life = life

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._repository, name)
        if name not in WRITES:
            return method

        def write(*arguments: Any, **named: Any) -> Any:
            self._life.go_on()
            return method(*arguments, **named)

        return write


class Keeping:
    """Fence and keeper of one service. Open until the test closes it."""

    def __init__(self, lease: Lease, life: Life) -> None:
        self._lease = lease
        self._life = life
        self.closed_now = False

    @property
    def lease(self) -> Lease:
        if self.closed_now:
            raise LeaseLost(self._lease.host)
        return self._lease

    def check(self) -> None:
        self._life.go_on()
        if self.closed_now:
            raise LeaseLost(self._lease.host)

    def opened(self, session: str) -> None:
        """Nobody asks for them here."""

    def closed(self, session: str) -> None:
        """Likewise."""


class Service(Bench):
    """A bench whose manager has the lease of host `here`."""

    life: Life
    keeping: Keeping

    @classmethod
    def first(cls, repository: Repository) -> Service:
        """The one that has the host at the beginning."""
        return cls._with(repository, hypervisor(repository), Images())

    def next(self) -> Service:
        """Takes the host over."""
        self.repository.release_lease(self.keeping._lease)
        return self._with(self.repository, self.driver, self.images)

    @classmethod
    def _with(cls, repository: Repository, beside: Any, images: Images) -> Service:
        life = Life()
        lease = repository.acquire_lease("here", f"service-{next(_NUMBERS)}", seconds=3600.0)
        keeping = Keeping(lease, life)
        mortal: Any = Mortal(repository, life)
        driver = Hypervisor(RepositoryMemory(mortal), beside=beside, fence=keeping)
        manager = ComputeManager(mortal, driver, "here", images, keeper=keeping, recorder=Recorder(0.0))
        it = cls(repository, driver, manager, images)
        it.life, it.keeping = life, keeping
        return it

    def take_turns(self) -> None:
        """What the test itself does on the bench does not count."""
        self.life.moments = 0


_NUMBERS = itertools.count(1)


def count_moments(service: Service, order: Callable[[], object]) -> int:
    """How many changes an order makes that comes to its end."""
    service.take_turns()
    order()
    return service.life.moments


@contextmanager
def dying(service: Service, moment: int) -> Iterator[None]:
    """The block gives an order, in the middle of which the service ends: before its change of that number."""
    service.take_turns()
    service.life.ends_at = moment
    try:
        yield
    except (Died, Unsuccessful):
        if service.life.moments != moment:
            raise


def snapshot(service: Bench) -> list[Any]:
    """All that there is: rows, and guests."""
    repository = service.repository
    guests = [
        (
            it.uuid,
            it.state,
            it.node,
            it.memory_mb,
            it.vcpus,
            it.boots,
            sorted(it.volumes),
            [i.id for i in it.interfaces],
        )
        for it in service.driver.guests
    ]
    instances = repository.list_instances()
    devices = [(repository.list_volumes(it.uuid), repository.list_interfaces(it.uuid)) for it in instances]
    moves = [repository.open_migration(it.uuid) for it in instances]
    faults = [repository.list_faults(it.uuid) for it in instances]
    return [repository.list_actions(), instances, devices, moves, faults, guests]
