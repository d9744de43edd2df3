"""The sealed half of the agent: it opens requests that only it can open, and signs what became of each.

What was in a box (the command's value, the key for its reply) is kept no longer than its command runs, and never
logged. Whatever becomes of a request, its reply carries a receipt that every host can verify.
"""

from __future__ import annotations

import time
from typing import Callable

from agent_protocol.adverts import encode_sealed_advert
from agent_protocol.agent_keys import AgentKeys
from agent_protocol.frames import FramesInfo
from agent_protocol.identity import Identity
from agent_protocol.messages import Advert, MessageError
from agent_protocol.outcomes import Failed, Outcome, Unknown, Unsuccessful
from agent_protocol.sealed import SealedCommand, SealedResult, parse_sealed_value, seal_reply

from .answers import Answer, attempt, error_in_the_clear, find
from .commands import Commands, Context

_TRIAL_CONTEXT = b"trial"
"""Sets what try_signing signs apart from all that means anything."""

Receive = Callable[[FramesInfo], str]
"""Gives the text that stands in the store as frames; raises as Transfer.receive does."""


class SealedRequests:
    """One agent's identity and keys, for the VM that it runs in.

    context.vm must be that VM's uuid. commands: what may be asked sealed. keys: fresh ones by default.
    now: Unix seconds.
    """

    def __init__(
        self,
        identity: Identity,
        commands: Commands,
        context: Context,
        keys: AgentKeys | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._identity = identity
        self._commands = commands
        self._context = context
        self._keys = AgentKeys(context.vm) if keys is None else keys
        self._now = now

    @property
    def key_id(self) -> str:
        """The key that the advert must name; another one after each request that was opened, and after some time."""
        return self._keys.current.id

    def rotate_if_old(self) -> None:
        """Replace the key when it is old enough."""
        self._keys.rotate_if_old()

    def seconds_until_rotation(self) -> float:
        """For how long the agent may sleep before it calls rotate_if_old."""
        return self._keys.seconds_until_rotation()

    def try_signing(self) -> None:
        """Failed (`cryptography_unavailable`) when nothing can be signed; nothing comes of it otherwise."""
        self._identity.statement(_TRIAL_CONTEXT, {})

    def advert(self) -> bytes:
        """The value of the advert's node, as of now. MessageError when it does not fit; Failed as try_signing."""
        context = self._context
        advert = Advert(context.version, context.system.boot_id(), context.features)
        return encode_sealed_advert(advert, self._identity, context.vm, self._keys.current, int(self._now()))

    def answer(self, request_id: str, untrusted_value: str, receive: Receive) -> Answer:
        """Open a request and carry it out. Raises only what Transfer.receive does when the conversation has ended."""
        command = attempt(request_id, lambda: self._open(request_id, untrusted_value, receive))
        if isinstance(command, Unsuccessful):
            return self.error(request_id, command)
        return self._carry_out(request_id, command)

    def error(self, request_id: str, error: Unsuccessful, name: str = "-", reply_key: bytes | None = None) -> Answer:
        """The answer that an error makes. reply_key: from the request's box, if that could be opened."""
        return self._seal(request_id, SealedResult(error.outcome, error.code, error.message), name, reply_key)

    def _open(self, request_id: str, untrusted_value: str, receive: Receive) -> SealedCommand:
        envelope = parse_sealed_value(untrusted_value)
        # Before megabytes are carried for nothing.
        self._keys.check_honoured(envelope.key_id)
        untrusted_box = envelope.box or "" if envelope.frames is None else receive(envelope.frames)
        try:
            return self._keys.open(envelope.key_id, request_id, untrusted_box)
        except Unsuccessful as error:
            if error.code == "replayed":
                # The first one with this id may well have been carried out, and its answer been lost.
                raise Unknown(error.code, error.message) from None
            raise

    def _carry_out(self, request_id: str, sealed: SealedCommand) -> Answer:
        command = attempt(request_id, lambda: find(self._commands, sealed.name))
        if isinstance(command, Unsuccessful):
            return self.error(request_id, command, reply_key=sealed.reply_key)
        result = attempt(request_id, lambda: command(self._context, sealed.value))
        if isinstance(result, Unsuccessful):
            return self.error(request_id, result, command.name, sealed.reply_key)
        ended = SealedResult(Outcome.SUCCEEDED, "", result.message, result.data)
        return self._seal(request_id, ended, command.name, sealed.reply_key)

    def _seal(self, request_id: str, result: SealedResult, name: str, reply_key: bytes | None) -> Answer:
        try:
            message = seal_reply(
                self._identity,
                self._context.vm,
                request_id,
                result,
                reply_key=reply_key,
                next_key=self._keys.current,
                now=int(self._now()),
            )
        except Failed as error:
            # Cryptography does not work, or not any more.
            if result.outcome is Outcome.SUCCEEDED:
                return error_in_the_clear(Failed(error.code, f"{_UNSEALABLE}: {error}"), name)
            if reply_key is not None:
                # What stands beside the box is enough to tell how it ended, if it can be signed.
                return self._seal(request_id, result, name, None)
            return error_in_the_clear(error, name)
        except MessageError:
            if result.outcome is Outcome.SUCCEEDED:
                # It happened, and what it returned cannot be told.
                return self.error(request_id, Failed("reply_too_large", _TOO_LARGE), name, reply_key)
            # An id so long that no receipt has room for it: no host of ours makes such.
            return error_in_the_clear(Failed("bad_request_id", "the request's id is too long to be signed"), name)
        return Answer(message, result.outcome, result.code, name)


_UNSEALABLE = "the command was carried out, but what it returned cannot be sealed"

_TOO_LARGE = "the command was carried out, but what it returned is too large for a reply"
