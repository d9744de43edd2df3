"""The agent's loop: it waits on a watch, takes one request at a time, carries it out and answers it.

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

A claim and a request that stand together when the agent starts mean that an earlier run ended between steps 2
and 5: the answer is `unknown`, and the request is not carried out again. No id is carried out twice in one run.

Every request gets one reply, whatever it holds. A reply that the store does not take (its quota is full of replies
that the host has not removed) is kept, and tried again at the next event.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from agent_protocol.messages import (
    ADVERT,
    CLAIMS,
    REPLIES,
    REQUESTS,
    Advert,
    Reply,
    encode_advert,
    encode_reply,
    parse_request,
    reply_to_error,
)
from agent_protocol.outcomes import Failed, Outcome, Unknown, Unsuccessful, Unsupported
from agent_protocol.wire import WireError
from agent_protocol.xenstore import Client, StoreClosed, StoreError, XenStoreError

from .commands import Command, Context

_log = logging.getLogger(__name__)


@dataclass
class _Answer:
    """A reply on its way. written: whether the store has it already."""

    reply: Reply
    written: bool = False


class Agent:
    """One agent on one connection to the store.

    commands: what it can do, by name. context: what the commands work with.
    """

    def __init__(self, store: Client, commands: Mapping[str, Command], context: Context) -> None:
        self._store = store
        self._commands = commands
        self._context = context
        self._stopping = False
        self._turn = threading.Lock()  # held while a request is served, so that nothing ends in the middle of one
        self._interrupted: set[str] = set()
        self._taken: set[str] = set()
        self._answers: dict[str, _Answer] = {}
        self._watching_replies = False

    def run(self) -> None:
        """Serve until stop(). StoreClosed or StoreTimeout for a lost store, StoreError for one that refuses a start."""
        try:
            self._start()
            while True:
                event = self._store.next_event(None)
                if event is not None and event.token == ADVERT:
                    self._publish(again=True)
                elif not self._stopping:
                    self._sweep()
        except StoreClosed:
            if not self._stopping:
                raise

    def stop(self) -> None:
        """End run() as soon as the request in hand is answered, and take the advert away. For another thread."""
        self._stopping = True
        with self._turn:
            try:
                self._remove(ADVERT)
            except XenStoreError as error:
                _log.warning("the advert stays: %s", error)
            self._store.close()

    def _start(self) -> None:
        # An error here ends the agent: without the claims it could carry something out twice.
        claims = set(self._children(CLAIMS))
        self._interrupted = claims & set(self._children(REQUESTS))
        for request_id in claims - self._interrupted:
            # An earlier run ended after it had answered, or while the host was withdrawing.
            self._remove(_claim(request_id))
        self._publish(again=False)
        # A live migration moves the guest to a new part of the store, where the advert is missing. The kernel
        # renews the watches there, and each tells itself once.
        self._store.watch(ADVERT, ADVERT)
        self._store.watch(REQUESTS, REQUESTS)
        _log.info("version %s serves %d commands", self._context.version, len(self._commands))

    def _publish(self, *, again: bool) -> None:
        """Write the advert; `again`, only if it is gone."""
        with self._turn:
            try:
                if self._stopping or (again and self._read(ADVERT) is not None):
                    return
                advert = Advert(self._context.version, self._context.system.boot_id(), self._context.features)
                self._store.write(ADVERT, encode_advert(advert))
            except StoreError as error:
                _log.warning("the advert cannot be written: %s", error)

    def _sweep(self) -> None:
        """Look at everything once: what is to be delivered, what is asked for, what is to be cleared away."""
        try:
            requests = self._children(REQUESTS)
        except StoreError as error:
            _log.warning("the requests cannot be listed: %s", error)
            requests = []
        for request_id in sorted({*requests, *self._answers}):
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
        if request_id in self._answers:
            self._deliver(request_id)
        elif request_id in self._interrupted:
            self._interrupted.discard(request_id)
            self._taken.add(request_id)
            if self._read(_reply(request_id)) is None:
                self._answer(request_id, Unknown("agent_restarted", _RESTARTED))
            else:
                # The earlier run ended right after its answer, which stands.
                self._remove(_request(request_id))
                self._remove(_claim(request_id))
        elif request_id in self._taken:
            self._answer(request_id, Unknown("request_id_reused", _REUSED))
        else:
            self._take(request_id)

    def _take(self, request_id: str) -> None:
        # When the claim cannot be written nothing may be done: the host could not tell that it was.
        self._store.write(_claim(request_id), b"")
        try:
            untrusted = self._read(_request(request_id))
        except StoreError as error:
            self._answer(request_id, Failed("unreadable_request", f"the agent cannot read the request: {error.code}"))
            return
        if untrusted is None:
            self._remove(_claim(request_id))
            return
        self._taken.add(request_id)
        self._carry_out(request_id, untrusted)

    def _carry_out(self, request_id: str, untrusted: bytes) -> None:
        started = time.monotonic()
        name = "-"
        result: Reply | Unsuccessful
        try:
            request = parse_request(untrusted)
            command = self._commands.get(request.name)
            if command is None:
                raise Unsupported("unknown_command", "this agent does not have that command")
            name = command.name
            result = Reply(command.returncode, command(self._context, request.value), Outcome.SUCCEEDED)
        except Unsuccessful as error:
            result = error
        except BaseException as error:
            # Really everything: a panic inside `cryptography`, for one, is no Exception. Signals raise nothing here.
            _log.error("request %s %s: %s", request_id, name, _where(error))
            result = Failed("internal_error", "the agent met an error of its own; its log tells where")
        self._answer(request_id, result, name, time.monotonic() - started)

    def _answer(self, request_id: str, result: Reply | Unsuccessful, name: str = "-", seconds: float = 0.0) -> None:
        reply = result if isinstance(result, Reply) else reply_to_error(result)
        _log.info("request %s %s %.3f s %s", request_id, name, seconds, f"{reply.outcome} {reply.code}".strip())
        self._answers[request_id] = _Answer(reply)
        self._deliver(request_id)

    def _deliver(self, request_id: str) -> None:
        answer = self._answers[request_id]
        if not answer.written:
            self._store.write(_reply(request_id), encode_reply(answer.reply))
            answer.written = True
        # The daemons let a missing node be removed without a word, so it must be looked for.
        if self._read(_request(request_id)) is None:
            self._remove(_reply(request_id))
        else:
            self._remove(_request(request_id))
        self._remove(_claim(request_id))
        del self._answers[request_id]

    def _watch_replies(self) -> None:
        """From now on wake up when the host removes replies too: that makes room for what waits."""
        if self._watching_replies:
            return
        try:
            self._store.watch(REPLIES, REPLIES)
            self._watching_replies = True
        except StoreError as error:
            _log.warning("%s cannot be watched: %s", REPLIES, error)

    # The store, with a missing node as an ordinary answer.

    def _children(self, path: str) -> list[str]:
        try:
            return self._store.directory(path)
        except StoreError as error:
            if error.code != "ENOENT":
                raise
            return []

    def _read(self, path: str) -> bytes | None:
        try:
            return self._store.read(path)
        except StoreError as error:
            if error.code != "ENOENT":
                raise
            return None

    def _remove(self, path: str) -> None:
        try:
            self._store.remove(path)
        except StoreError as error:
            if error.code != "ENOENT":
                raise


_RESTARTED = "the agent ended while it worked on this request; it may or may not have been carried out"
_REUSED = "a request with this id was taken before; it is not carried out again"


def _request(request_id: str) -> str:
    return f"{REQUESTS}/{request_id}"


def _reply(request_id: str) -> str:
    return f"{REPLIES}/{request_id}"


def _claim(request_id: str) -> str:
    return f"{CLAIMS}/{request_id}"


def _where(error: BaseException) -> str:
    """The error's type and the lines it passed through; not its text, which can hold what must not be logged."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(frames)]
    return " < ".join([type(error).__name__, *places])
