"""A guest's agent with the real keys, boxes and signatures, whose commands only remember what they were told."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from agent_protocol import hpke
from agent_protocol.adverts import encode_sealed_advert
from agent_protocol.agent_keys import AgentKeys
from agent_protocol.frames import Joiner
from agent_protocol.identity import Identity
from agent_protocol.messages import Advert, parse_request
from agent_protocol.outcomes import Outcome, Refused
from agent_protocol.sealed import SealedResult, parse_sealed_value, seal_reply

VM_UUID = "00000000-0000-4000-8000-00000000beef"
GENERATED = "made-In-The-Guest-1"
FEATURES = ("version", "features", "sealed", "password", "file_put", "ssh_keys", "password_generate")


@dataclass(frozen=True)
class Told:
    """A reply: its node, and its frames joined as the plugin does it."""

    value: str
    box: str


class SealedAgent:
    """What a host gets to see of an agent.

    ahead: seconds that its clock is ahead of ours. results: by the name of a command, how it ends in place of success.
    done: the commands that were carried out: name and parsed value. ids: of the requests that came, in order.
    """

    def __init__(self, vm: str = VM_UUID) -> None:
        self.vm = vm
        self.identity = Identity.generate()
        self.ahead = 0
        self.results: dict[str, SealedResult] = {}
        self.done: list[tuple[str, Any]] = []
        self.ids: list[str] = []
        self.restart()

    def restart(self) -> None:
        """Its keys live in memory only."""
        self.keys = AgentKeys(self.vm, now=self.now)

    def now(self) -> float:
        return time.time() + self.ahead

    def advert(self, identity: Identity | None = None) -> str:
        told = Advert("2.0", "boot", FEATURES)
        text = encode_sealed_advert(told, identity or self.identity, self.vm, self.keys.current, int(self.now()))
        return text.decode()

    def answer(self, request_id: str, value: str, box: str = "") -> Told:
        """Carry out a request, as its node and its frames hold it."""
        self.ids.append(request_id)
        request = parse_request(value.encode())
        assert request.name == "sealed"
        envelope = parse_sealed_value(request.value)
        if envelope.frames is not None:
            joiner = Joiner(envelope.frames)
            for start in range(0, len(box), 1900):
                joiner.feed(box[start : start + 1900])
            box = joiner.text()
        try:
            command = self.keys.open(envelope.key_id, request_id, envelope.box or box)
        except Refused as error:
            return self.reply(request_id, SealedResult(error.outcome, error.code), None)
        result = self.results.get(command.name) or self._carry_out(command.name, json.loads(command.value))
        return self.reply(request_id, result, command.reply_key)

    def reply(
        self, request_id: str, result: SealedResult, reply_key: bytes | None, identity: Identity | None = None
    ) -> Told:
        message = seal_reply(
            identity or self.identity,
            self.vm,
            request_id,
            result,
            reply_key=reply_key,
            next_key=self.keys.current,
            now=int(self.now()),
        )
        return Told(message.node.decode(), "".join(message.frames))

    def _carry_out(self, name: str, value: Any) -> SealedResult:
        self.done.append((name, value))
        data: dict[str, object] = {}
        if name == "password_generate":
            data = {"user": "root", "ciphertext": base64.b64encode(_encrypted(value)).decode()}
        return SealedResult(Outcome.SUCCEEDED, data=data)


def _encrypted(wanted: dict[str, str]) -> bytes:
    if "hpke" in wanted:
        return hpke.seal(base64.b64decode(wanted["hpke"]), b"xenward 2 password\0root", GENERATED.encode())
    key = load_ssh_public_key(wanted["ssh_rsa"].encode())
    assert isinstance(key, rsa.RSAPublicKey)
    return key.encrypt(GENERATED.encode(), padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None))


# What somebody between agent and host could make of a reply. Each takes the agent, the request's id and the true reply.

Forgery = Callable[[SealedAgent, str, Told], Told]
SUCCESS = SealedResult(Outcome.SUCCEEDED)
OTHER_ID = "00000000-0000-4000-8000-000000000bad"


def _changed(reply: Told, **members: Any) -> Told:
    return Told(json.dumps({**json.loads(reply.value), **members}), reply.box)


def _without(reply: Told, *names: str) -> Told:
    return Told(json.dumps({k: v for k, v in json.loads(reply.value).items() if k not in names}), reply.box)


def _flipped(text: str) -> str:
    return text.replace('"refused"', '"succeeded"').replace('"failed"', '"succeeded"')


def _other_vms(agent: SealedAgent, request_id: str, reply: Told) -> Told:
    other = SealedAgent(OTHER_ID)
    other.identity = agent.identity
    return other.reply(request_id, SUCCESS, bytes(32))


UNSIGNED: dict[str, Forgery] = {
    "nothing": lambda agent, request_id, reply: Told("", ""),
    "old success": lambda agent, request_id, reply: Told('{"returncode":"0","message":""}', ""),
    "success in so many words": lambda agent, request_id, reply: Told(
        '{"returncode":"0","message":"","outcome":"succeeded","code":""}', ""
    ),
    "no receipt": lambda agent, request_id, reply: _without(reply, "signed", "signature"),
    "no signature": lambda agent, request_id, reply: _without(reply, "signature"),
    "another signature": lambda agent, request_id, reply: _changed(
        reply, signature=base64.b64encode(bytes(64)).decode()
    ),
    "another text": lambda agent, request_id, reply: _changed(
        reply, signed=_flipped(json.loads(reply.value)["signed"]) + " "
    ),
    "receipt of another request": lambda agent, request_id, reply: agent.reply(OTHER_ID, SUCCESS, bytes(32)),
    "receipt of another VM": _other_vms,
    "receipt of another identity": lambda agent, request_id, reply: agent.reply(
        request_id, SUCCESS, bytes(32), Identity.generate()
    ),
    "an advert": lambda agent, request_id, reply: Told(agent.advert(), ""),
    "a success without a box": lambda agent, request_id, reply: _changed(
        reply,
        **agent.identity.statement(
            b"receipt", {**json.loads(json.loads(reply.value)["signed"]), "outcome": "succeeded", "box": ""}
        ),
    ),
}
"""Replies that hold no receipt for the request."""


def _box_of_another(agent: SealedAgent, request_id: str, reply: Told) -> Told:
    message = json.loads(agent.reply(request_id, SUCCESS, bytes(32)).value)
    return _changed(reply, box=message["box"])


def _contradicting(agent: SealedAgent, request_id: str, reply: Told) -> Told:
    """Only the agent itself could do this: a receipt that says something else than its box."""
    members = json.loads(reply.value)
    receipt = {**json.loads(members["signed"]), "outcome": "failed", "code": "broken"}
    return _changed(reply, **agent.identity.statement(b"receipt", receipt))


EXCHANGED: dict[str, Forgery] = {
    "no box": lambda agent, request_id, reply: _without(reply, "box"),
    "an empty box": lambda agent, request_id, reply: _changed(reply, box=""),
    "another box": _box_of_another,
    "a box that is none": lambda agent, request_id, reply: _changed(reply, box="AAAA"),
    "frames in place of the box": lambda agent, request_id, reply: Told(_without(reply, "box").value, "AAAA"),
    "receipt and box contradict": _contradicting,
    "sealed to another reply key": lambda agent, request_id, reply: agent.reply(request_id, SUCCESS, bytes(32)),
}
"""Replies with a true receipt, whose box is not what it should be."""
