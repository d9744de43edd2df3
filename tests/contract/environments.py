"""The environments in which the contract tests run, each a step nearer to the truth, and what is particular to each.

The tests in suite/ run in all of them; those in xenstore/ where a XenStore can be had without guests. A module that
wants another choice has the fixture

    @pytest.fixture(params=environments.parameters())
    def environment(request: pytest.FixtureRequest) -> Environment:
        return request.param

A further environment is an instance of a class with these methods, and a line in one of the lists at the end.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from agent_protocol.xenstore import Client, StoreError
from tools.labs.xenstored.server import XenstoredServer
from tools.simulator.settings import XenStore
from tools.simulator.xenstore.requests import MAX_PATH
from tools.simulator.xenstore.server import StoreServer, XenStoreServer
from tools.simulator.xenstore.transactions import MAX_TRANSACTIONS
from tools.simulator.xenstore.watches import MAX_WATCHES

from .house import House, house
from .inside import Inside, SimulatedInside
from .real_xen import RealHouse, real_house


@dataclass(frozen=True)
class Limits:
    """What the daemon of an environment bounds, in its default configuration, and the errno name that it answers then.

    guest_value, dom0_value: the largest value, in bytes; `guest_value_code` and `dom0_value_code` for a larger one.
    dom0's is None where the packet ends before.
    names: names of the length of a uuid in one directory of a guest.
    watches, transactions: of one guest, over all its connections.
    quota_code: for one more name or transaction; `watch_code` for one more watch.
    path: characters of a path, not counting `/local/domain/<domid>/`. EINVAL beyond.
    parts: whether a list of names that is larger than a packet can be read in parts (DIRECTORY_PART). Otherwise dom0
    gets it in one, larger than the specification allows, and a guest cannot get it at all (E2BIG).
    """

    guest_value: int
    guest_value_code: str
    dom0_value: int | None
    dom0_value_code: str
    names: int
    watches: int
    watch_code: str
    transactions: int
    quota_code: str
    path: int
    parts: bool


@dataclass(frozen=True)
class Manners:
    """Where the two real daemons differ, and no test may expect either.

    missing_elsewhere: what a guest is told of a node that is missing where it may not look.
    gave_away: what a guest is told that gives a node away.
    unknown_transaction: what whoever uses a transaction that has ended is told.
    guest_owns_what_it_makes: whether that holds below a node of another owner, too.
    snapshot: whether a transaction sees a node as it was when the transaction began, rather than when it first looked.
    sees_blind_conflicts: whether a transaction that changed a node without reading anything fails when somebody else
    changed it meanwhile. Otherwise the last one wins.
    """

    missing_elsewhere: str
    gave_away: str
    unknown_transaction: str
    guest_owns_what_it_makes: bool
    snapshot: bool
    sees_blind_conflicts: bool


class GuestEnvironment(Protocol):
    """One environment. `limits` and `manners` are of its XenStore daemon.

    large_file: bytes of a file that takes many frames, and not too long.
    """

    @property
    def name(self) -> str: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def manners(self) -> Manners: ...

    @property
    def large_file(self) -> int: ...

    def house(self, directory: Path, *arguments: str) -> AbstractContextManager[House]:
        """A whole xenward in it. arguments: further ones for the simulated XenServer."""

    def inside(self, home: House, instance: str) -> AbstractContextManager[Inside]:
        """A guest of a house of this environment, looked into."""


class Environment(GuestEnvironment, Protocol):
    """One whose XenStore can be had alone."""

    def store(self) -> AbstractContextManager[StoreServer]:
        """A XenStore of its own, with no domain but dom0."""


@dataclass(frozen=True)
class Simulated:
    """A simulated XenServer; its guests are processes on a root directory. `name` is its XenStore daemon's, too."""

    name: str
    xenstore: XenStore
    limits: Limits
    manners: Manners
    large_file: int = 1024 * 1024

    def house(self, directory: Path, *arguments: str) -> AbstractContextManager[House]:
        return house(directory, "--xenstore", self.xenstore, *arguments)

    @contextlib.contextmanager
    def inside(self, home: House, instance: str) -> Iterator[Inside]:
        inside = SimulatedInside(home.simulator, home.vm(instance)["uuid"], lambda: int(home.vm(instance)["domid"]))
        try:
            yield inside
        finally:
            inside.close()

    @contextlib.contextmanager
    def store(self) -> Iterator[StoreServer]:
        # Short: unix sockets allow 107 bytes.
        with tempfile.TemporaryDirectory(prefix="xs-") as name:
            server: StoreServer
            if self.xenstore == "simulated":
                server = XenStoreServer(Path(name))
            else:
                server = XenstoredServer(Path(name), "c" if self.xenstore == "xenstored" else "ocaml")
            server.start()
            try:
                yield server
            finally:
                server.stop()


SIMULATOR = Simulated(
    "simulator",
    "simulated",
    Limits(
        guest_value=2015,
        guest_value_code="ENOSPC",
        dom0_value=2048,
        dom0_value_code="E2BIG",
        names=54,
        watches=MAX_WATCHES,
        watch_code="E2BIG",
        transactions=MAX_TRANSACTIONS,
        quota_code="ENOSPC",
        path=MAX_PATH,
        parts=True,
    ),
    Manners(
        missing_elsewhere="EACCES",
        gave_away="EPERM",
        unknown_transaction="ENOENT",
        guest_owns_what_it_makes=True,
        snapshot=True,
        sees_blind_conflicts=True,
    ),
)

XENSTORED = Simulated(
    "xenstored",
    "xenstored",
    Limits(
        guest_value=2015,
        guest_value_code="ENOSPC",
        dom0_value=None,
        dom0_value_code="",
        names=54,
        # Each of its checks lets one more pass than the quota says.
        watches=129,
        watch_code="E2BIG",
        transactions=11,
        quota_code="ENOSPC",
        path=2048,
        parts=True,
    ),
    Manners(
        missing_elsewhere="EACCES",
        gave_away="EPERM",
        unknown_transaction="ENOENT",
        guest_owns_what_it_makes=True,
        snapshot=False,
        sees_blind_conflicts=True,
    ),
)

OXENSTORED = Simulated(
    "oxenstored",
    "oxenstored",
    Limits(
        guest_value=2048,
        guest_value_code="E2BIG",
        dom0_value=2048,
        dom0_value_code="E2BIG",
        names=998,
        watches=101,
        watch_code="EQUOTA",
        transactions=11,
        quota_code="EQUOTA",
        path=1024,
        parts=False,
    ),
    Manners(
        missing_elsewhere="ENOENT",
        gave_away="EACCES",
        unknown_transaction="EIO",
        guest_owns_what_it_makes=False,
        snapshot=True,
        sees_blind_conflicts=False,
    ),
)


@dataclass(frozen=True)
class RealXen:
    """Real Xen below the simulated API, with real guests. `limits` and `manners` are of C xenstored, its daemon."""

    name: str = "real-xen"
    limits: Limits = XENSTORED.limits
    manners: Manners = XENSTORED.manners
    large_file: int = 100 * 1024 + 1

    def house(self, directory: Path, *arguments: str) -> AbstractContextManager[House]:
        return real_house(directory, *arguments)

    @contextlib.contextmanager
    def inside(self, home: House, instance: str) -> Iterator[Inside]:
        assert isinstance(home, RealHouse)
        yield home.inside(instance)


REAL_XEN = RealXen()


def parameters() -> list[Any]:
    """Those with simulated guests, for a fixture's params. What needs more than Python has the marker `services`."""
    return [pytest.param(SIMULATOR, id=SIMULATOR.name), *real_daemons()]


def real_daemons() -> list[Any]:
    """Those in which the XenStore daemon is a real one, and a process of its own; in the same form."""
    return [pytest.param(real, id=real.name, marks=pytest.mark.services) for real in (XENSTORED, OXENSTORED)]


def with_real_guests() -> list[Any]:
    """Those in which a guest has a kernel; in the same form."""
    return [pytest.param(REAL_XEN, id=REAL_XEN.name, marks=[pytest.mark.services])]


def all_of_them() -> list[Any]:
    """All."""
    return [*parameters(), *with_real_guests()]


def children(store: Client, path: str) -> list[str]:
    """The names below a node; none when it is missing."""
    try:
        return store.directory(path)
    except StoreError as error:
        if error.code != "ENOENT":
            raise
        return []
