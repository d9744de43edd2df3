"""A running simulated pool: everything that calls work on, handed to them as one object."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from . import tasks
from .database import Database
from .disks import Disks
from .domain import DomainTree
from .events import Events
from .guest_watch import GuestWatch
from .hypervisor import Hypervisor
from .messages import Messages
from .model import Model
from .plugins import Plugins
from .settings import Settings
from .tasks import Tasks
from .turns import Turn


@dataclass
class State:
    """The parts of a simulated pool.

    pool, host, control_domain: references into the database.
    disks: the bytes of virtual disks. open_consoles: those that clients see, one entry each.
    local_sessions: logins to the host itself, which are in no database.
    guests: follows what guests write into XenStore, once the pool is prepared.
    """

    settings: Settings
    model: Model
    database: Database
    hypervisor: Hypervisor
    pool: str = ""
    host: str = ""
    control_domain: str = ""
    guests: GuestWatch = field(init=False)
    disks: Disks = field(init=False)
    open_consoles: list[str] = field(default_factory=list)
    messages: Messages = field(init=False)
    events: Events = field(init=False)
    tasks: Tasks = field(init=False)
    local_sessions: set[str] = field(default_factory=set)
    _turns: dict[str, Turn] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.messages = Messages(self.database)
        self.events = Events(self.model, self.database, self.messages)
        self.tasks = Tasks(self.database, lambda: self.host, self.settings.completed_task_timeout)
        self.disks = Disks(self.settings.state / "disks")

    @property
    def domains(self) -> DomainTree:
        """The domains' nodes in XenStore."""
        return self.hypervisor.domains

    @property
    def plugins(self) -> Plugins:
        """The plugins of dom0."""
        return self.hypervisor.plugins

    def turn(self, vm: str) -> Turn:
        """Held by the operation that has the VM's turn; others wait for it."""
        with self._guard:
            return self._turns.setdefault(vm, Turn())


@dataclass(frozen=True)
class Context:
    """What a call knows besides its arguments."""

    state: State
    session: str

    @property
    def task(self) -> str:
        """The task that the call belongs to: in the database, unless the call has no asynchronous form."""
        return tasks.current().ref

    @property
    def database(self) -> Database:
        """The pool's objects."""
        return self.state.database
