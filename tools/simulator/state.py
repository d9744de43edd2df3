"""A running simulated pool: everything that calls work on, handed to them as one object."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, Callable

from . import errors, tasks
from .database import Database
from .disks import Disks
from .domain import DomainTree
from .events import Events
from .faults.conditions import Conditions
from .guest import Guest, Guests
from .hypervisor import Hypervisor
from .machine import Host
from .messages import Messages
from .model import Model
from .plugins import Plugins
from .settings import Settings
from .tasks import Tasks
from .turns import Turn


@dataclass
class State:
    """The parts of a simulated pool.

    guests: those of the simulated hypervisor.
    hosts: its machines, by reference. pool, coordinator: references into the database.
    disks: the bytes of virtual disks. open_consoles: those that clients see, one entry each.
    flush: makes sure that what was changed until now survives a kill, if the pool is kept.
    arrivals: VMs that other pools send or have sent, by the id of each's way (between_pools/receiver.py).
    conditions: what tests let go wrong. changing_hosts: held by what changes hosts' power or roles (hosts.py).
    """

    settings: Settings
    model: Model
    database: Database
    guests: Guests | None = None
    hosts: dict[str, Host] = field(default_factory=dict)
    pool: str = ""
    coordinator: str = ""
    disks: Disks = field(init=False)
    open_consoles: list[str] = field(default_factory=list)
    flush: Callable[[], None] = lambda: None
    arrivals: dict[str, str] = field(default_factory=dict)
    changing_hosts: Any = field(default_factory=threading.RLock)
    messages: Messages = field(init=False)
    events: Events = field(init=False)
    tasks: Tasks = field(init=False)
    conditions: Conditions = field(init=False)
    _turns: dict[str, Turn] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.conditions = Conditions(self.model, self.database)
        self.messages = Messages(self.database)
        self.events = Events(self.model, self.database, self.messages)
        self.tasks = Tasks(self.database, lambda: self.coordinator, self.settings.completed_task_timeout)
        self.disks = Disks(self.settings.state / "disks")

    def live_host(self, ref: str) -> Host:
        """A host's machine. ApiError HANDLE_INVALID when there is none, HOST_OFFLINE when it has no power."""
        self.database.record("host", ref)
        host = self.hosts[ref]
        if not host.is_up:
            raise errors.ApiError("HOST_OFFLINE", ref)
        return host

    def host_of(self, vm: str) -> Host:
        """The machine that a VM runs on; the coordinator for one that runs nowhere. ApiError as of live_host()."""
        resident = self.database.get("VM", vm, "resident_on")
        return self.live_host(resident if resident in self.hosts else self.coordinator)

    def hypervisor_of(self, vm: str) -> Hypervisor:
        """What carries a VM's domain; the coordinator's for a VM that runs nowhere. ApiError as of live_host()."""
        return self.host_of(vm).hypervisor

    def domains_of(self, vm: str) -> DomainTree:
        """The nodes of the domains among which a VM's is. ApiError as of live_host()."""
        return self.hypervisor_of(vm).domains

    def plugins(self, host: str) -> Plugins:
        """The plugins of a host's dom0. ApiError as of live_host()."""
        return self.live_host(host).hypervisor.plugins

    def guest(self, vm_uuid: str) -> Guest:
        """The guest of a VM, by its uuid."""
        assert self.guests is not None
        return self.guests.of(vm_uuid)

    def turn(self, vm: str) -> Turn:
        """Held by the operation that has the VM's turn; others wait for it."""
        with self._guard:
            return self._turns.setdefault(vm, Turn())


@dataclass(frozen=True)
class Context:
    """What a call knows besides its arguments. host: the one that was called."""

    state: State
    session: str
    host: Host

    @property
    def task(self) -> str:
        """The task that the call belongs to: in the database, unless the call has no asynchronous form."""
        return tasks.current().ref

    @property
    def database(self) -> Database:
        """The pool's objects."""
        return self.state.database
