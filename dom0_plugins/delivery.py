"""The life of one request: written, with its frames, answered or not, and taken back when the time is up.

Agents of ours put a claim beside a request and look at the request once more before they begin; so a request that is
removed while no claim stands was not and will not be executed. Neither is one whose frames were not all written:
an agent compares the checksum of the whole first, and agents that know nothing of frames cannot read it at all.
"""

from typing import Dict, List, Optional

from agent_protocol.xenstore import Client, StoreError, Transaction

from . import unread
from .conversation import ADVERT, ATTEMPTS, CLAIMS, FRAMES, REPLIES, REQUESTS, read, remove, vm_of
from .frames import INCOMPLETE, REFUSED, Collector, Slice, announced_by, is_acceptable

# What became of a request.
ANSWERED = "answered"
"""The agent replied; `value` is what it wrote, `box` the text of the frames that the reply announces, if any.
Where that could not be had, `frames` says why, in a word of frames.py."""
CONTINUE = "continue"
"""The frames of this slice have been written, and more are to come: call again."""
ABSENT = "absent"
"""No running domain of that VM appeared on this host: nothing was written."""
REJECTED = "rejected"
"""XenStore refused to take the request or its frames; `errno` says why. It was not and will not be executed."""
WITHDRAWN = "withdrawn"
"""The agent did not take it in time, or not all of its frames: it was not and will not be executed."""
TAKEN = "taken"
"""The agent took it and did not reply in time."""
UNANSWERED = "unanswered"
"""No reply, and no agent that tells whether it took the request."""
GONE = "gone"
"""The domain disappeared (reboot, migration, shutdown) after the request was written."""
LOST = "lost"
"""XenStore stopped answering after the request was written, or while it was."""


class Delivery:
    """One request on its way. `result` is None until it is known what became of it.

    part: the frames that this call brings. reply_limit: characters that the reply may bring in frames.
    """

    def __init__(self, vm: str, identity: str, value: str, part: Optional[Slice], reply_limit: int) -> None:
        self.vm = vm
        self.identity = identity
        self.result: Optional[Dict[str, str]] = None
        self.domain: Optional[str] = None
        """Path of the domain that the request was written to."""
        self._value = value
        self._part = part
        self._reply_limit = reply_limit
        self._reply = ""
        self._collector: Optional[Collector] = None
        self._frames_expected = part is not None

    @property
    def resumed(self) -> bool:
        """Whether an earlier call wrote the request and its first frames."""
        return self._part is not None and self._part.first > 0

    @property
    def until(self) -> Optional[float]:
        """When to `withdraw` even before the call's time is up, on the monotonic clock."""
        return None if self._collector is None else self._collector.until

    def start(self, store: Client, domain: str) -> None:
        """Write the request to the domain of its VM, or go on where an earlier call stopped."""
        self.domain = domain
        if self.resumed:
            self._watch(store)
            self.proceed(store)
            return
        try:
            self._watch(store)
            self._write(store)
        except StoreError as error:
            self._finish(REJECTED, errno=error.code)

    def miss(self) -> None:
        """There is no domain of its VM, and waiting for one has ended."""
        self._finish(GONE if self.resumed else ABSENT)

    def lose(self) -> None:
        """XenStore failed. What is known by now stays known."""
        if self.result is not None:
            return
        if self._collector is not None:
            self._finish(ANSWERED, value=self._reply, frames=INCOMPLETE)
        else:
            self._finish(ABSENT if self.domain is None and not self.resumed else LOST)

    def proceed(self, store: Client) -> None:
        """Something happened in the domain: take the reply if it is there, write frames if there is room for them."""
        if self.domain is None:
            return
        self._look(store)
        if self.result is None and self._collector is None and self._part and not self._part.all_written:
            newest = self._part.newest
            if newest is None or read(store, "%s/%d" % (self._path(FRAMES), newest)) is None:
                self._write_more(store)

    def withdraw(self, store: Client) -> None:
        """Time is up: take the request back, and tell from the same moment what its state was."""
        if self.domain is None:
            self.miss()
            return
        if self._collector is not None:
            # The request was answered. What the guest does to the reply now does not change that.
            self._look(store)
            self._end_collecting(store)
            return
        for _ in range(ATTEMPTS):
            transaction = store.transaction()
            if vm_of(transaction, self.domain) != self.vm or transaction.exists(self._path(REPLIES)):
                transaction.abort()
                self._look(store)
                self._end_collecting(store)
                if self.result is not None:
                    return
                # The guest took its reply back in between.
                continue
            requested = transaction.exists(self._path(REQUESTS))
            claimed = transaction.exists(self._path(CLAIMS))
            promising = transaction.exists("%s/%s" % (self.domain, ADVERT))
            if requested:
                transaction.remove(self._path(REQUESTS))
            if transaction.exists(self._path(FRAMES)):
                transaction.remove(self._path(FRAMES))
            word = self._state(requested, claimed, promising)
            if word != WITHDRAWN:
                unread.remember(transaction, self.domain, self.identity)
            if transaction.commit():
                self._finish(word)
                return
        # A guest that changes its nodes without end: whether it took the request cannot be told.
        self._finish(self._state(requested=False, claimed=True, promising=False))
        self._clear(store)

    def _state(self, requested: bool, claimed: bool, promising: bool) -> str:
        if self._part is not None and not (self._part.last and self._part.all_written):
            return WITHDRAWN
        if claimed or not requested:
            return TAKEN
        return WITHDRAWN if promising else UNANSWERED

    def _write(self, store: Client) -> None:
        # In a transaction, so that the domain is still that VM's at the moment of the write.
        for _ in range(ATTEMPTS):
            transaction = store.transaction()
            if vm_of(transaction, str(self.domain)) != self.vm:
                transaction.abort()
                self._unwatch(store)
                self.domain = None
                return
            try:
                transaction.write(self._path(REQUESTS), self._value.encode("utf-8"))
                self._write_window(transaction)
            except StoreError:
                transaction.abort()
                raise
            if transaction.commit():
                self._wrote_window(store)
                return
        self._finish(REJECTED, errno="EAGAIN")

    def _write_more(self, store: Client) -> None:
        """Write the next frames, unless the request is not there any more."""
        for _ in range(ATTEMPTS):
            transaction = store.transaction()
            if vm_of(transaction, str(self.domain)) != self.vm or transaction.exists(self._path(REPLIES)):
                transaction.abort()
                # It is looked at in the event that this causes.
                return
            if not transaction.exists(self._path(REQUESTS)):
                claimed = transaction.exists(self._path(CLAIMS))
                transaction.abort()
                self._finish(TAKEN if claimed else GONE)
                return
            try:
                self._write_window(transaction)
            except StoreError as error:
                transaction.abort()
                self._give_up(store, error.code)
                return
            if transaction.commit():
                self._wrote_window(store)
                return
        self._give_up(store, "EAGAIN")

    def _write_window(self, transaction: Transaction) -> None:
        for number, frame in self._part.window().items() if self._part else ():
            transaction.write("%s/%d" % (self._path(FRAMES), number), frame.encode("ascii"))

    def _wrote_window(self, store: Client) -> None:
        if self._part is None:
            return
        self._part.advance()
        if self._part.all_written and not self._part.last:
            self._finish(CONTINUE)
            self._unwatch(store)

    def _give_up(self, store: Client, code: str) -> None:
        self.withdraw(store)
        if self.result is not None and self.result["delivery"] == WITHDRAWN:
            self._finish(REJECTED, errno=code)

    def _look(self, store: Client) -> None:
        """Take the reply, or the rest of it, if it is there; notice if the domain is not."""
        if self._collector is None:
            untrusted_reply = read(store, self._path(REPLIES))
            if untrusted_reply is not None:
                self._take(store, untrusted_reply)
            elif vm_of(store, str(self.domain)) != self.vm:
                self._finish(GONE)
        elif self._collector.collect(store) or vm_of(store, str(self.domain)) != self.vm:
            self._end_collecting(store)

    def _take(self, store: Client, untrusted_reply: bytes) -> None:
        self._reply = untrusted_reply.decode("utf-8", "replace")
        untrusted_announced = announced_by(untrusted_reply)
        self._frames_expected = self._frames_expected or untrusted_announced is not None
        if untrusted_announced is None:
            # Finished first: what was read counts even if the store dies now.
            self._finish(ANSWERED, value=self._reply)
        elif is_acceptable(untrusted_announced, self._reply_limit):
            if self._part is None:
                store.watch(self._path(FRAMES), self.identity)
            self._collector = Collector(self._path(FRAMES), untrusted_announced)
            self._look(store)
            return
        else:
            self._finish(ANSWERED, value=self._reply, frames=REFUSED)
        self._unwatch(store)
        self._clear(store)

    def _end_collecting(self, store: Client) -> None:
        """Be content with what came of the reply's frames."""
        if self._collector is None or self.result is not None:
            return
        if self._collector.text is None:
            self._finish(ANSWERED, value=self._reply, frames=self._collector.problem)
        else:
            self._finish(ANSWERED, value=self._reply, box=self._collector.text)
        self._unwatch(store)
        self._clear(store)

    def _finish(self, delivery: str, **details: str) -> None:
        self.result = dict(details, id=self.identity, delivery=delivery)

    def _path(self, directory: str) -> str:
        return "%s/%s/%s" % (self.domain, directory, self.identity)

    def _watched(self) -> List[str]:
        """What to watch while waiting: the reply, that the domain is still there, and the frames.

        The second, because not every daemon tells watchers of a missing node that its parent went.
        """
        paths = [self._path(REPLIES), "%s/vm" % self.domain]
        if self._part is not None or self._collector is not None:
            paths.append(self._path(FRAMES))
        return paths

    def _watch(self, store: Client) -> None:
        for path in self._watched():
            store.watch(path, self.identity)

    def _unwatch(self, store: Client) -> None:
        for path in self._watched():
            store.unwatch(path, self.identity)

    def _clear(self, store: Client) -> None:
        # The reply goes first: it says to an agent that still writes frames that nobody reads them.
        remove(store, self._path(REPLIES))
        remove(store, self._path(REQUESTS))
        if self._frames_expected:
            remove(store, self._path(FRAMES))
