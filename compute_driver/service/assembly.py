"""Database, driver, manager and bus put together, for the resident process or for one that gives a few orders."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

from agent_protocol.outcomes import Unsuccessful

from .. import config, rpc
from ..db import migrate
from ..db.repository import Repository
from ..driver import ComputeDriver
from ..fencing import Fence
from ..images.services import load_service
from ..manager import ComputeManager
from ..manager.following import Follower
from ..manager.reports import Observer
from ..memory import RepositoryMemory
from ..recording import Recorder
from ..xenapi.connection.session import Connection
from ..xenapi.driver import XenServerDriver
from .leases import Flag, LeaseKeeper
from .presence import Presence

LOG = logging.getLogger(__name__)


class Service:
    """The parts of a compute service that has its host."""

    def __init__(
        self, repository: Repository, driver: ComputeDriver, manager: ComputeManager, keeper: LeaseKeeper
    ) -> None:
        self.repository = repository
        self.driver = driver
        self.manager = manager
        self.keeper = keeper
        self._follower = Follower(manager)

    def reconcile(self) -> dict[str, int] | None:
        """End what was left in flight; None when that could not be done now, which is logged."""
        try:
            return self.manager.reconcile()
        except Unsuccessful as error:
            LOG.warning("host %s: cannot be reconciled now: %s", self.manager.host, error)
            return None

    def follow(self) -> None:
        """Follow the guests from now on, by what the hypervisor tells."""
        self._follower.start()
        self.manager.when_idle(self._follower.tell)
        self.driver.listen(self._follower.tell)

    def register(self, version: str) -> str:
        """Show other services that this one runs; gives the id to do that again with."""
        identity = str(uuid.uuid4())
        self.repository.register_service(identity, self.manager.host, rpc.TOPIC, version)
        return identity

    def purge(self, before: datetime) -> None:
        """Forget what ended before that moment."""
        while rows := self.repository.purge(before):
            LOG.info("host %s: %d old rows are purged", self.manager.host, rows)

    def close(self) -> None:
        """Let go of the hypervisor."""
        self._follower.stop()
        self.driver.close()


@contextmanager
def assembled(conf: Any, observers: Sequence[Observer] = ()) -> Iterator[Service]:
    """A service that neither has its host nor serves a bus yet. The database's tables are made or upgraded."""
    with ExitStack() as stack:
        url = config.database_url(conf)
        migrate.upgrade(url)
        repository = Repository(url)
        stack.callback(repository.close)
        presence = Presence(config.state_path(conf) / f"{conf.host}.lock")
        stack.callback(presence.close)
        keeper = LeaseKeeper(repository, presence, conf.host, seconds=conf.service.lease)
        stack.callback(keeper.release)
        recorder = Recorder(conf.service.recording_patience)
        driver = _driver(conf, RepositoryMemory(repository, recorder), keeper)
        images = load_service(conf.images.service, conf)
        manager = ComputeManager(
            repository, driver, conf.host, images, keeper=keeper, observers=observers, recorder=recorder
        )
        keeper.when_new(driver.end_sessions)
        it = Service(repository, driver, manager, keeper)
        stack.callback(it.close)
        yield it


@contextmanager
def embedded(conf: Any, bus: Any) -> Iterator[Service]:
    """Serves the in-process `bus` while the block runs, for one who gives a few orders and waits for every answer.

    He shares the host with others on this machine who do the same. Busy when a service has it.
    """
    with assembled(conf) as it:
        it.keeper.share(it.reconcile)
        server = rpc.server(bus, it.manager, conf.host)
        server.start()
        try:
            yield it
        finally:
            # No wait for the server's idle workers: they take a second to notice the end.
            server.stop()


@contextmanager
def serving(conf: Any, bus: Any, it: Service, *, drain: float) -> Iterator[None]:
    """Serves `bus` while the block runs. Then it takes no new order, and waits for those that were begun.

    drain: seconds for that. What is not done by then is for the next service to end.
    """
    server = rpc.server(bus, it.manager, conf.host)
    server.start()
    try:
        yield
    finally:
        server.stop()
        # Those of a host that is another's by now end by themselves, at their next step.
        is_lost = it.keeper.lost.is_set()
        if not it.manager.drain(0.0 if is_lost else drain):
            LOG.warning("host %s: %d orders are left unfinished", conf.host, len(it.manager.in_flight))
        elif not is_lost:
            # They are recorded; their answers may still be on their way.
            server.wait()
        it.manager.recorder.stop()


def periodically(seconds: float, do: Callable[[], object], stop: Flag) -> threading.Thread:
    """A thread that does something again and again until `stop` is set. What goes wrong is logged."""

    def run() -> None:
        while not stop.wait(seconds):
            try:
                do()
            except Unsuccessful as error:
                LOG.warning("%s: %s", getattr(do, "__name__", "it"), error)
            except Exception:
                LOG.exception("an error that nobody foresaw")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def _driver(conf: Any, memory: RepositoryMemory, fence: Fence) -> ComputeDriver:
    settings = conf.xenserver
    connection = Connection(
        settings.url,
        settings.username,
        settings.password,
        timeout=settings.timeout,
        ca_file=settings.ca_file,
        fingerprints=tuple(settings.fingerprint),
        allow_plain_http=settings.allow_plain_http,
    )
    return XenServerDriver(
        connection,
        memory,
        fence=fence,
        agent_policy=conf.agent.protocol,
        agent_timeout=conf.agent.timeout,
        boot_timeout=conf.agent.boot_timeout,
        repository=settings.sr,
        allow_unlocked=settings.allow_unlocked,
        stall_timeout=conf.images.stall_timeout,
        import_stale_after=conf.images.import_stale_after,
    )
