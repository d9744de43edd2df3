"""A running simulated pool: everything that calls work on, handed to them as one object."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .database import Database
from .domain import DomainTree
from .guest import Guest
from .model import Model
from .plugins import Plugins
from .settings import Settings
from .watchdog import Watchdog

if TYPE_CHECKING:
    from .xenstore.server import XenStoreServer


@dataclass
class State:
    """The parts of a simulated pool. `pool`, `host` and `control_domain` are references into the database."""

    settings: Settings
    model: Model
    database: Database
    watchdog: Watchdog
    xenstore: XenStoreServer
    domains: DomainTree
    plugins: Plugins
    pool: str = ""
    host: str = ""
    control_domain: str = ""
    domids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    """A domain id is never used twice."""
    _guests: dict[str, Guest] = field(default_factory=dict)
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def guest(self, vm_uuid: str) -> Guest:
        """The guest of a VM, whether it runs or not."""
        with self._guard:
            if vm_uuid not in self._guests:
                directory = self.settings.state / "guests" / vm_uuid
                self._guests[vm_uuid] = Guest(directory, self.settings.agent_command, self.watchdog)
            return self._guests[vm_uuid]

    def forget_guest(self, vm_uuid: str) -> None:
        """The VM is gone for good: delete its guest's directory."""
        guest = self.guest(vm_uuid)
        guest.delete()
        with self._guard:
            del self._guests[vm_uuid]

    def guests(self) -> list[Guest]:
        """All guests."""
        with self._guard:
            return list(self._guests.values())

    def turn(self, vm: str) -> threading.Lock:
        """Held by the operation that has the VM's turn; others wait for it."""
        with self._guard:
            return self._locks.setdefault(vm, threading.Lock())


@dataclass(frozen=True)
class Context:
    """What a call knows besides its arguments."""

    state: State
    session: str

    @property
    def database(self) -> Database:
        """The pool's objects."""
        return self.state.database
