"""Carrying texts that are longer than a node: reading a request's frames, writing a reply's.

Nothing polls: a watch on the frames wakes the agent for each step, the one on the requests when the host withdraws.
While a text is on its way nothing else is served, so whoever stops in the middle is given up after PATIENCE seconds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Callable

from agent_protocol.frames import FRAMES, MAX_ALIVE, FramesInfo, Joiner
from agent_protocol.messages import REQUESTS
from agent_protocol.outcomes import Failed, Refused
from agent_protocol.xenstore import StoreError, XenStoreError

from .nodes import Events, Nodes, frames_path, reply_path, request_path
from .store import Store

PATIENCE = 30.0
"""Seconds without any progress after which the other side is given up."""


class TransferEnded(Exception):
    """The root of the reasons for which a text is not carried to its end."""


class Withdrawn(TransferEnded):
    """Raised when the host took the request back: nobody waits for an answer."""


class Stalled(TransferEnded):
    """Raised when the other side did nothing for PATIENCE seconds."""


class Stopped(TransferEnded):
    """Raised when the agent is to end."""


@dataclass
class Progress:
    """How far a reply's frames have come; it outlives a store that is lost on the way.

    written: frames so far. in_doubt: whether the next one may be there as well, or have been read already. again: those
    that were written again for that reason, and that the host may be past.
    """

    written: int = 0
    in_doubt: bool = False
    again: set[int] = field(default_factory=set)


class Transfer:
    """The frames of one request.

    stopping: whether the agent is to end; looked at after each event. clock: seconds that never go back.
    """

    def __init__(
        self,
        store: Store,
        events: Events,
        request_id: str,
        stopping: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._nodes = Nodes(store)
        self._events = events
        self._request = request_path(request_id)
        self._reply = reply_path(request_id)
        self._directory = frames_path(request_id)
        self._stopping = stopping
        self._clock = clock

    def receive(self, info: FramesInfo) -> str:
        """The text that the host announced. The frames are removed, in any case, unless the store is lost.

        Withdrawn when the host took the request back. Refused `frames_incomplete` when frames are missing for too
        long, the agent is to end, or the store is lost; `frames_corrupt` when they are not those that were announced.
        Failed `unreadable_request` when the store does not give them to the agent.
        """
        joiner = Joiner(info)
        try:
            self._store.watch(self._directory, FRAMES)
            try:
                self._read_all(joiner)
            finally:
                self._end()
        except (Stalled, Stopped):
            raise Refused("frames_incomplete", "not all frames of the request came") from None
        except StoreError as error:
            raise Failed("unreadable_request", f"the agent cannot read the frames: {error.code}") from None
        except XenStoreError:
            raise Refused("frames_incomplete", "the store was lost before all frames of the request came") from None
        return joiner.text()

    def _read_all(self, joiner: Joiner) -> None:
        deadline = self._clock() + PATIENCE
        while not joiner.complete:
            path = f"{self._directory}/{joiner.next_index}"
            untrusted = self._nodes.read(path)
            if untrusted is None:
                self._wait(deadline)
                continue
            joiner.feed(untrusted.decode("ascii", "replace"))
            self._nodes.remove(path)
            deadline = self._clock() + PATIENCE

    def send(self, frames: Sequence[str], progress: Progress) -> None:
        """Write the frames of a reply, of which never more than MAX_ALIVE stand in the store.

        progress: says where to go on, and is kept up to date.

        Returns when the host has removed the last of them. Otherwise all are removed: Withdrawn when the host took the
        request back, Stalled when it stopped reading, Stopped when the agent is to end; or as many as are there stay,
        when the store is lost.
        """
        self._store.watch(self._directory, FRAMES)
        try:
            if progress.in_doubt and self._nodes.read(self._reply) is None:
                return  # The host has all that it wanted.
            self._write_all(frames, progress)
        finally:
            self._end()

    def _write_all(self, frames: Sequence[str], progress: Progress) -> None:
        if progress.in_doubt:
            # The store did not confirm this one. It is written again, although the host may be past it.
            progress.again.add(progress.written)
        removed = 0
        deadline = self._clock() + PATIENCE
        while True:
            names = self._nodes.children(self._directory)
            past = [index for index in progress.again if self._is_past(index, names, progress.written)]
            for index in past:
                self._nodes.remove(f"{self._directory}/{index}")
                progress.again.discard(index)
            alive = len(names) - len(past)
            if progress.written - alive > removed:
                removed = progress.written - alive
                deadline = self._clock() + PATIENCE
            if removed == len(frames):
                return
            window = frames[progress.written : progress.written + MAX_ALIVE - alive]
            try:
                for frame in window:
                    progress.in_doubt = True
                    self._nodes.write(f"{self._directory}/{progress.written}", frame.encode("ascii"))
                    progress.written += 1
                    progress.in_doubt = False
            except StoreError:
                # The quota, mostly: the host makes room by reading, or else this stalls.
                progress.in_doubt = False
            self._wait(deadline)

    @staticmethod
    def _is_past(index: int, names: Sequence[str], written: int) -> bool:
        """Whether a frame stands there that the host does not read any more: it has read a later one, and in order."""
        return str(index) in names and any(str(later) not in names for later in range(index + 1, written))

    def _wait(self, deadline: float) -> None:
        remaining = deadline - self._clock()
        if remaining <= 0:
            raise Stalled
        token = self._events.next_while_busy(remaining)
        if self._stopping():
            raise Stopped
        if token == REQUESTS and self._nodes.read(self._request) is None:
            raise Withdrawn

    def _end(self) -> None:
        self._store.unwatch(self._directory, FRAMES)
        self._nodes.remove(self._directory)
