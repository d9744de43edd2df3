"""What all drivers of one fake hypervisor share: nodes, guests, what is being done to them, sessions and listeners."""

from __future__ import annotations

import logging
import queue
import threading
import uuid as uuids
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..states import PowerState
from .guest import Guest
from .nodes import Node
from .steering import Steering

LOG = logging.getLogger(__name__)


class Listener:
    """Tells somebody of changes, in a thread of its own, one after the other."""

    def __init__(self, changed: Callable[[str], None], steering: Steering) -> None:
        self._changed = changed
        self._steering = steering
        self._news: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="fake-events", daemon=True)
        self._thread.start()

    def tell(self, uuid: str) -> None:
        """An instance has changed."""
        self._news.put(uuid)

    def stop(self) -> None:
        """Tell nothing any more; what is being told comes to its end by itself."""
        self._news.put(None)

    def _run(self) -> None:
        while (uuid := self._news.get()) is not None:
            self._steering.await_telling()
            try:
                self._changed(uuid)
            except Exception as error:
                LOG.error("who listens for changes of instance %s failed with %s", uuid, type(error).__name__)


class Shared:
    """lock: held by whoever reads or changes what is here. sessions: public ids of those that have not ended."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.pool = str(uuids.uuid4())
        self.lock = threading.RLock()
        self.nodes = {node.name: node for node in nodes}
        self.guests: dict[str, Guest] = {}
        self.sessions: set[str] = set()
        self.listeners: list[Listener] = []
        self._told: dict[str, tuple[PowerState, str, str]] = {}
        self._operations: Counter[tuple[str, str]] = Counter()
        self._quiet = threading.Condition(self.lock)

    def note(self) -> None:
        """Have everybody told of the guests that are not as they were when this was called the last time."""
        with self.lock:
            now = {guest.uuid: (guest.state, guest.place, guest.internal_id) for guest in self.guests.values()}
            changed = [uuid for uuid in {**self._told, **now} if self._told.get(uuid) != now.get(uuid)]
            self._told = now
            self.tell(changed)

    def tell(self, instances: Sequence[str]) -> None:
        """Have everybody told of these (uuids)."""
        with self.lock:
            for listener in self.listeners:
                for uuid in instances:
                    listener.tell(uuid)

    @contextmanager
    def busy(self, uuid: str, operation: str) -> Iterator[None]:
        """While it is entered, the hypervisor does this to a guest."""
        with self.lock:
            self._operations[uuid, operation] += 1
        try:
            yield
        finally:
            with self.lock:
                self._operations[uuid, operation] -= 1
                self._quiet.notify_all()

    def operations(self, uuid: str) -> list[str]:
        """What it does to a guest; of one that is not there nothing."""
        with self.lock:
            found = {name for (guest, name), number in self._operations.items() if guest == uuid and number}
            return sorted(found) if uuid in self.guests else []

    def await_quiet(self, uuid: str, timeout: float) -> bool:
        """Wait until that is nothing; whether it was so within `timeout` seconds."""
        with self._quiet:
            return self._quiet.wait_for(lambda: not self.operations(uuid), timeout)
