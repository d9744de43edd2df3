"""The agent of a fake guest, for whoever seals requests himself: true keys, boxes and signatures."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from agent_protocol.frames import FRAME_SIZE, Joiner
from agent_protocol.messages import MessageError, Password, parse_request
from agent_protocol.outcomes import Outcome, Refused, Unsuccessful, Unsupported
from agent_protocol.sealed import SealedCommand, SealedResult, parse_sealed_value, seal_reply

from ..files import InjectedFile
from ..sealing import SealedAnswer, check_sealed
from .guest import FEATURES, VERSION, Guest, PasswordHash


def answer(guest: Guest, request_id: str, value: str, box: str) -> SealedAnswer:
    """Carry out a sealed request. Refused (`not_sealed`) for any other; otherwise how it ended is in the answer."""
    check_sealed(value)
    reply_key = None
    try:
        command = _opened(guest, request_id, value, box)
        reply_key = command.reply_key
        result = SealedResult(Outcome.SUCCEEDED, data=_carry_out(guest, command))
    except MessageError as error:
        result = SealedResult(Outcome.REFUSED, "bad_message", error.message)
    except Unsuccessful as error:
        result = SealedResult(error.outcome, error.code, error.message)
    message = seal_reply(
        guest.system.identity,
        guest.internal_id,
        request_id,
        result,
        reply_key=reply_key,
        next_key=guest.keys.current,
        now=int(time.time()),
    )
    return SealedAnswer(result.outcome, result.code, message.node.decode(), "".join(message.frames))


def _opened(guest: Guest, request_id: str, value: str, box: str) -> SealedCommand:
    envelope = parse_sealed_value(parse_request(value.encode()).value)
    if envelope.frames is not None:
        joiner = Joiner(envelope.frames)
        for start in range(0, len(box), FRAME_SIZE):
            joiner.feed(box[start : start + FRAME_SIZE])
        box = joiner.text()
    return guest.keys.open(envelope.key_id, request_id, envelope.box or box)


def _carry_out(guest: Guest, command: SealedCommand) -> dict[str, object]:
    untrusted: Any = json.loads(command.value) if command.value else {}
    system = guest.system
    try:
        if command.name == "password":
            system.password = PasswordHash.of(Password(untrusted["value"]))
        elif command.name == "file_put":
            mode = untrusted.get("mode")
            content = base64.b64decode(untrusted["content"], validate=True)
            file = InjectedFile(
                untrusted["path"], content, None if mode is None else int(mode, 8), untrusted.get("owner")
            )
            system.files[file.path] = file
        elif command.name == "ssh_keys":
            removed = set(untrusted.get("remove", ()))
            system.ssh_keys[:] = [key for key in system.ssh_keys if key not in removed]
            system.add_ssh_keys([str(key) for key in untrusted.get("add", ())])
        elif command.name in ("version", "features"):
            return {"version": VERSION, "features": list(FEATURES)}
        else:
            raise Unsupported("unsupported", f"this guest knows no command {command.name}")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Refused("bad_request", "the request is not of the form that it should have") from None
    return {}
