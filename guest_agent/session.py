"""One connection to the store: the agent waits on a watch, takes one request at a time, carries it out and answers it.

The conversation is honest about crashes, on both sides, because each step leaves its mark before the next:

1. The agent writes the claim `data/xenward/claims/<id>`.
2. Only then it reads the request `data/host/<id>`. A missing one was withdrawn: the claim is dropped, nothing done.
3. It carries the request out.
4. It writes the reply `data/guest/<id>`.
5. It removes the request, and then the claim.

A host that no longer wants to wait looks at reply, request and claim and removes the request, all in one
transaction. When it saw the request without a claim, the agent did not carry it out and will not; when it saw a
claim, the agent may have. The reply to a request that was withdrawn while the agent worked is removed at once,
since nobody waits for it.

A claim and a request that stand together when a session starts mean that an earlier run ended between steps 2 and 5:
the answer is `unknown`, and the request is not carried out again. Unless the claim is this run's own, from before it
lost the store: then it knows better. A request that it had carried out gets its answer, one that it had not read yet
is carried out now. An answer whose request is gone, with the store or without, is dropped.

No id is carried out twice in one run, as far as the last 10,000 of them go; a sealed request that is older than that
was sealed to a key that is long forgotten.

Every request gets one reply, whatever it holds. A reply that the store does not take (its quota is full of replies
that the host has not removed) is kept, and tried again at the next event.

Sealed requests (sealed.py) take the same course. Theirs and their replies may come in frames (transfer.py): those of
the request are read in step 3, those of the reply are written in step 4 and removed by the host before step 5.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable

from agent_protocol.frames import FRAMES
from agent_protocol.messages import ADVERT, CLAIMS, REPLIES, REQUESTS, MessageError, Request, parse_request
from agent_protocol.outcomes import Failed, Unknown, Unsuccessful
from agent_protocol.sealed import SEALED, parse_sealed_reply
from agent_protocol.wire import WireError
from agent_protocol.xenstore import StoreError, XenStoreError

from .answers import Answer, answer_in_the_clear, attempt, error_in_the_clear
from .commands import Commands, Context
from .memory import Memory
from .nodes import VM, Events, Nodes, claim_path, frames_path, reply_path, request_path
from .presence import Presence
from .store import Store
from .transfer import Stopped, Transfer, TransferEnded, Withdrawn
from .update.running import PROCESS

_STOP = "stop"
"""Token of the watch that wakes an agent in the middle of a transfer when it is to end."""

_log = logging.getLogger(__name__)


class Session:
    """The agent on one connection to the store.

    presence, memory: what it brings from earlier ones. Every method may raise StoreClosed and StoreTimeout: then the
    store is lost, and with it the session.
    """

    def __init__(self, store: Store, commands: Commands, context: Context, presence: Presence, memory: Memory) -> None:
        self._store = store
        self._nodes = Nodes(store)
        self._events = Events(store)
        self._commands = commands
        self._context = context
        context.nodes = self._nodes
        self._presence = presence
        self._memory = memory
        self._stopping = False
        self._turn = threading.Lock()  # held while a request is served, so that nothing ends in the middle of one
        self._interrupted: set[str] = set()
        self._watching_replies = False

    def start(self) -> None:
        """Clear away what earlier runs left, and tell hosts that the agent is there. StoreError: it cannot serve."""
        # Without the claims the agent could carry something out twice.
        claims, requests = set(self._nodes.children(CLAIMS)), set(self._nodes.children(REQUESTS))
        ours = {request_id for request_id in claims | requests if self._memory.is_ours(request_id)}
        self._interrupted = (claims & requests) - ours
        for request_id in claims - requests:
            # An earlier run ended after it had answered, or while the host was withdrawing.
            self._nodes.remove(claim_path(request_id))
        for request_id in set(self._nodes.children(FRAMES)) - (requests - claims) - ours:
            self._nodes.remove(frames_path(request_id))
        self._memory.unread.find(set(self._nodes.children(REPLIES)) - requests)
        self._presence.arrive(self._nodes)
        self._renew_advert()
        # A live migration moves the guest to a new part of the store, where the advert is missing. The kernel
        # renews the watches there, and each tells itself once.
        self._store.watch(ADVERT, ADVERT)
        self._store.watch(VM, VM)
        self._store.watch(REQUESTS, REQUESTS)

    def serve(self) -> None:
        """Serve until the store is lost, or closed by stop(). Returns when an update is to take its place."""
        while not self._has_to_restart():
            token = self._events.next(self._presence.seconds_until_renewal())
            if token == FRAMES:
                continue  # the echo of a transfer that is over
            if token not in (None, ADVERT, VM) and not self._stopping:
                self._sweep()
            self._renew_advert(token)

    def _has_to_restart(self) -> bool:
        """Whether there is an update to start, and nobody waits for this run's answer. Then the advert is gone."""
        if not PROCESS.restart_wanted or self._memory.answers:
            return False
        self._nodes.remove(ADVERT)
        return True

    def stop(self) -> None:
        """Close the store as soon as the request in hand is answered, and take the advert away. For another thread."""
        self._stopping = True
        try:
            self._store.watch(FRAMES, _STOP)  # which fires at once
        except XenStoreError as error:
            _log.warning("a transfer that is under way goes on: %s", error)
        with self._turn:
            try:
                self._nodes.remove(ADVERT)
            except XenStoreError as error:
                _log.warning("the advert stays: %s", error)
            self._store.close()

    def _renew_advert(self, changed: str | None = None) -> None:
        """Write the advert if it does not tell the current key. changed: what else may have made it untrue, a node."""
        with self._turn:
            if self._stopping:
                return
            try:
                if changed == VM:
                    self._presence.look(self._nodes)
                elif changed == ADVERT and self._nodes.read(ADVERT) is None:
                    self._presence.arrive(self._nodes)
                self._presence.advertise(self._nodes)
            except (StoreError, Unsuccessful) as error:
                # Each receipt names the next key, so conversations go on without it.
                _log.warning("the advert cannot be written: %s", error)
                self._watch_replies()

    def _sweep(self) -> None:
        """Look at everything once: what is to be delivered, what is asked for, what is to be cleared away."""
        try:
            requests = self._nodes.children(REQUESTS)
        except StoreError as error:
            _log.warning("the requests cannot be listed: %s", error)
            requests = []
        for request_id in sorted({*requests, *self._memory.answers}):
            with self._turn:
                if self._stopping:
                    return
                try:
                    self._serve(request_id)
                except (StoreError, WireError) as error:
                    # Quota, mostly. Whatever step it was, it is tried again at the next event.
                    _log.warning("request %s waits: %s", request_id, error)
                    self._watch_replies()

    def _serve(self, request_id: str) -> None:
        if request_id in self._memory.answers:
            self._deliver_again(request_id)
        elif request_id in self._interrupted:
            self._interrupted.discard(request_id)
            self._memory.take(request_id)
            if self._was_answered(request_id):
                # The earlier run ended right after its answer, which stands.
                self._nodes.remove(request_path(request_id))
                self._nodes.remove(claim_path(request_id))
            else:
                self._refuse(request_id, Unknown("agent_restarted", _RESTARTED))
        elif self._memory.has_taken(request_id):
            self._refuse(request_id, Unknown("request_id_reused", _REUSED))
        else:
            self._take(request_id)

    def _was_answered(self, request_id: str) -> bool:
        reply = self._nodes.read(reply_path(request_id))
        if reply is None:
            return False
        try:
            # A reply whose frames did not all get there is none.
            return parse_sealed_reply(reply).frames is None
        except MessageError:
            return True

    def _refuse(self, request_id: str, error: Unsuccessful) -> None:
        """Answer a request that is not carried out, in the form in which it came, if that can be told."""
        try:
            untrusted = self._nodes.read(request_path(request_id)) or b""
        except StoreError:
            untrusted = b""
        request = attempt(request_id, lambda: parse_request(untrusted))
        sealed = self._presence.sealed
        if sealed is not None and not isinstance(request, Unsuccessful) and request.name == SEALED:
            self._answer(request_id, _sealed_answer(request_id, request, lambda: sealed.error(request_id, error)))
        else:
            self._answer(request_id, error_in_the_clear(error))

    def _take(self, request_id: str) -> None:
        self._memory.claiming = request_id
        # When the claim cannot be written nothing may be done: the host could not tell that it was.
        self._nodes.write(claim_path(request_id), b"")
        try:
            untrusted = self._nodes.read(request_path(request_id))
        except StoreError as error:
            failed = Failed("unreadable_request", f"the agent cannot read the request: {error.code}")
            self._answer(request_id, error_in_the_clear(failed))
            return
        if untrusted is None:
            self._nodes.remove(claim_path(request_id))
            return
        self._memory.take(request_id)
        started = time.monotonic()
        try:
            answer = self._carry_out(request_id, untrusted)
        except Withdrawn:
            _log.info("request %s - %.3f s withdrawn", request_id, time.monotonic() - started)
            self._nodes.remove(claim_path(request_id))
            return
        self._answer(request_id, answer, time.monotonic() - started)

    def _carry_out(self, request_id: str, untrusted: bytes) -> Answer:
        request = attempt(request_id, lambda: parse_request(untrusted))
        if isinstance(request, Unsuccessful):
            return error_in_the_clear(request)
        sealed, unsealed = self._presence.sealed, self._presence.unsealed
        if request.name == SEALED and sealed is not None:
            receive = self._transfer(request_id).receive
            return _sealed_answer(request_id, request, lambda: sealed.answer(request_id, request.value, receive))
        if request.name == SEALED and unsealed is not None:
            return _sealed_answer(request_id, request, lambda: error_in_the_clear(unsealed))
        return answer_in_the_clear(request_id, request, self._commands, self._context)

    def _transfer(self, request_id: str) -> Transfer:
        return Transfer(self._store, self._events, request_id, lambda: self._stopping)

    def _answer(self, request_id: str, answer: Answer, seconds: float = 0.0) -> None:
        outcome = f"{answer.outcome} {answer.code}".strip()
        _log.info("request %s %s %.3f s %s", request_id, answer.name, seconds, outcome)
        self._memory.answers[request_id] = answer
        self._deliver(request_id)

    def _deliver_again(self, request_id: str) -> None:
        """Deliver an answer after the store refused it, or was lost meanwhile and may be another one now."""
        answer = self._memory.answers[request_id]
        if self._nodes.read(request_path(request_id)) is None:
            if not answer.delivered:
                # Withdrawn. After the delivery it was this agent that removed it, and the reply is the host's.
                self._nodes.remove(reply_path(request_id))
                answer.delivered = True
        elif self._nodes.read(claim_path(request_id)) is None:
            # Asked once more, in a store where nothing of the first time stands.
            answer.start_over()
            self._nodes.write(claim_path(request_id), b"")
        self._deliver(request_id)

    def _deliver(self, request_id: str) -> None:
        answer = self._memory.answers[request_id]
        if not answer.delivered:
            if not answer.written:
                self._write_reply(request_id, answer.message.node)
                answer.written = True
            # The daemons let a missing node be removed without a word, so it must be looked for.
            waited_for = self._nodes.read(request_path(request_id)) is not None
            if waited_for and answer.message.frames:
                try:
                    self._transfer(request_id).send(answer.message.frames, answer.progress)
                except Stopped:
                    # The request and its claim stay: the next run tells that the answer was lost.
                    return
                except TransferEnded as error:
                    reason = type(error).__name__
                    _log.warning("request %s: the host did not read all of the reply (%s)", request_id, reason)
                    waited_for = False
            if waited_for:
                self._memory.unread.add(request_id)
            else:
                self._nodes.remove(reply_path(request_id))
            answer.delivered = True
        if answer.framed:
            # Those that the host wrote before it saw the answer; the reply's own are gone by now.
            self._nodes.remove(frames_path(request_id))
        self._nodes.remove(request_path(request_id))
        self._nodes.remove(claim_path(request_id))
        del self._memory.answers[request_id]

    def _write_reply(self, request_id: str, value: bytes) -> None:
        while True:
            try:
                self._nodes.write(reply_path(request_id), value)
            except StoreError:
                # Most likely full of replies that the host has read and left.
                if not self._memory.unread.make_room(self._nodes):
                    raise
            else:
                return

    def _watch_replies(self) -> None:
        """From now on wake up when the host removes replies too: that makes room for what waits."""
        if self._watching_replies:
            return
        try:
            self._store.watch(REPLIES, REPLIES)
            self._watching_replies = True
        except StoreError as error:
            _log.warning("%s cannot be watched: %s", REPLIES, error)


def _sealed_answer(request_id: str, request: Request, work: Callable[[], Answer]) -> Answer:
    """What `work` makes, or that it made nothing: a sealed request is answered like any other."""
    made = attempt(request_id, work)
    answer = error_in_the_clear(made) if isinstance(made, Unsuccessful) else made
    answer.framed = _announces_frames(request)
    return answer


def _announces_frames(request: Request) -> bool:
    # Whether it is well-formed does not matter here: what may stand there is to be removed.
    return '"frames"' in request.value


_RESTARTED = "the agent ended while it worked on this request; it may or may not have been carried out"
_REUSED = "a request with this id was taken before; it is not carried out again"
