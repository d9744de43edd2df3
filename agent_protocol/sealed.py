"""The sealed conversation: requests that only the agent can open, replies that only the asker can, signed receipts.

A request named `sealed` holds a box (hpke.py) with the real name and value, bound to the VM, the request's id and the
agent's key, and a fresh reply key. The reply holds a box under that reply key, and beside it a receipt: outcome and
code, signed by the agent, which every host can read and believe, also when somebody else sealed the request.

Here are both sides' halves of each. Which keys an agent honours, and for how long, is in agent_keys.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .adverts import KEY_ID, SealingKey
from .digests import sha256_hex
from .frames import MAX_SIZE, FramesInfo, split
from .hpke import OVERHEAD, BoxError, open_box, seal
from .identity import PROTOCOL, RECEIPT_CONTEXT, Identity, read_statement
from .messages import MAX_VALUE, SUCCESS_CODES, UNKNOWN_COMMAND_CODE, MessageError
from .outcomes import Outcome, Refused, unsuccessful
from .primitives import AESGCM, UNAVAILABLE, InvalidTag, X25519PrivateKey, guarded
from .strict import SHA256_HEX, Members, check_uuid, decode_base64, dumps, encode_base64

SEALED = "sealed"
"""Name of the request that carries a box."""

REPLY_KEY_SIZE = 32
"""Bytes of a reply key: AES-256."""

MAX_REPLY_BOX = 256 * 1024
"""Characters of a reply's box: the most that the dom0 plugin hands on."""

_NONCE_SIZE = 12
_CODE = re.compile(r"[a-z0-9_]{0,64}\Z")
_UNOPENED = {
    "unknown_key": "the agent no longer holds the key that the request was sealed to",
    "bad_box": "the agent could not open the request: it was sealed to another key, or changed on the way",
    "expired": "the request came to the agent after its time",
    "replayed": "the agent had already opened a request with that id",
    "frames_incomplete": "not all of the request came to the agent",
    "frames_corrupt": "the request that came to the agent is not the one that was announced",
    UNAVAILABLE: "the agent could not open the request: cryptography does not work in the guest",
    "agent_restarted": "the agent ended while it worked on this request; it may or may not have been carried out",
}
"""What people read about a reply without a box, by its code: there was no key to seal a message with."""


def _request_info(vm: str, request_id: str, key_id: str) -> bytes:
    check_uuid(vm, "the VM's uuid")
    check_uuid(request_id, "the request's id")
    return b"xenward 2 request\0" + f"{vm}\0{request_id}\0{key_id}".encode("ascii")


def _reply_data(vm: str, request_id: str) -> bytes:
    check_uuid(vm, "the VM's uuid")
    check_uuid(request_id, "the request's id")
    return b"xenward 2 reply\0" + f"{vm}\0{request_id}".encode("ascii")


@dataclass(frozen=True)
class EncodedMessage:
    """What goes to the store.

    node: the node's value, of at most MAX_VALUE bytes. frames: those that it announces; none when the box is in it.
    """

    node: bytes
    frames: tuple[str, ...] = ()


# Requests


@dataclass(frozen=True)
class SealedBox:
    """A request as a host has sealed it.

    text: the box in base64. reply_key: what opens the reply; keep it until then and nowhere but in memory. key_id: the
    agent's key it was sealed to.
    """

    text: str
    reply_key: bytes = field(repr=False)
    key_id: str


@dataclass(frozen=True)
class SealedEnvelope:
    """The value of a request named SEALED: the key it was sealed to, and the box or what announces its frames."""

    key_id: str
    box: str | None = None
    frames: FramesInfo | None = None


@dataclass(frozen=True)
class SealedCommand:
    """What was in a request's box.

    expires: Unix seconds by the agent's clock, from which on it must not be carried out. reply_key: seals the reply.
    """

    name: str
    value: str = field(repr=False)
    expires: int
    reply_key: bytes = field(repr=False)


def seal_request(
    key: SealingKey, vm: str, request_id: str, name: str, value: str, *, expires: int, reply_key: bytes | None = None
) -> SealedBox:
    """Seal a request to an agent's key, for one VM and one request id.

    expires: Unix seconds by the agent's clock. reply_key: REPLY_KEY_SIZE bytes; fresh ones by default. Refused with
    `too_large` when the box would exceed MAX_SIZE characters, `bad_public_key` when nothing can be sealed to the key.
    """
    reply_key = os.urandom(REPLY_KEY_SIZE) if reply_key is None else reply_key
    members = {"name": name, "value": value, "expires": expires, "reply_key": encode_base64(reply_key)}
    plaintext = dumps(members).encode("ascii")
    if (len(plaintext) + OVERHEAD + 2) // 3 * 4 > MAX_SIZE:
        raise Refused("too_large", f"a request of {len(plaintext)} bytes is more than can be sent to an agent")
    box = seal(key.public, _request_info(vm, request_id, key.id), plaintext)
    return SealedBox(encode_base64(box), reply_key, key.id)


def encode_sealed_request(box: SealedBox) -> EncodedMessage:
    """The request's node, with the box in it or, when there is no room, its frames apart."""
    envelope: dict[str, object] = {"v": PROTOCOL, "key_id": box.key_id}
    node = dumps({"name": SEALED, "value": dumps({**envelope, "box": box.text})})
    if len(node) <= MAX_VALUE:
        return EncodedMessage(node.encode("ascii"))
    value = dumps({**envelope, "frames": FramesInfo.of(box.text).members()})
    return EncodedMessage(dumps({"name": SEALED, "value": value}).encode("ascii"), tuple(split(box.text)))


def parse_sealed_value(untrusted_value: str) -> SealedEnvelope:
    """The envelope in the value of a request named SEALED. MessageError when it is none."""
    members = Members.loads(untrusted_value, "sealed request")
    members.version(PROTOCOL)
    box, frames = _box_or_frames(members)
    if box is None and frames is None:
        members.fail("box", "there, or frames")
    return SealedEnvelope(members.text("key_id", KEY_ID), box, frames)


def open_request(private: X25519PrivateKey, key_id: str, vm: str, request_id: str, untrusted_box: str) -> SealedCommand:
    """What was sealed to that key of the agent's, for this VM and request id.

    BoxError when it does not open, or does not hold a command. Age and repetition are for AgentKeys to judge.
    """
    try:
        if len(untrusted_box) > MAX_SIZE:
            raise BoxError
        box = decode_base64(untrusted_box, "the box")
        members = Members.loads(open_box(private, _request_info(vm, request_id, key_id), box), "command")
        return SealedCommand(
            members.text("name"),
            members.text("value"),
            members.number("expires"),
            members.data("reply_key", REPLY_KEY_SIZE),
        )
    except MessageError:
        raise BoxError from None


def _box_or_frames(members: Members) -> tuple[str | None, FramesInfo | None]:
    if "box" in members and "frames" in members:
        members.fail("box", "missing where there are frames")
    if "frames" in members:
        return None, FramesInfo.parse(members.object("frames"))
    return (members.text("box") if "box" in members else None), None


# Replies


@dataclass(frozen=True)
class SealedResult:
    """How a sealed request ended.

    code: a stable word for an outcome other than success. message: one sentence for people, without secrets. data: what
    the command returned; it may be secret.
    """

    outcome: Outcome
    code: str = ""
    message: str = ""
    data: Mapping[str, object] = field(default_factory=dict, repr=False)

    def raise_unless_successful(self) -> None:
        """Raise the error of agent_protocol.outcomes that this result stands for, if it is no success."""
        if self.outcome is not Outcome.SUCCEEDED:
            raise unsuccessful(self.outcome, self.code or "agent_error", self.message or "the agent gave no reason")


@dataclass(frozen=True)
class SealedReply:
    """A reply in the form of this protocol, not yet believed: verify_receipt does that.

    box: the reply's box in base64, if it is in the node. frames: what announces it if it comes in frames.
    """

    untrusted_members: Members = field(repr=False)
    box: str | None
    frames: FramesInfo | None


@dataclass(frozen=True)
class Receipt:
    """What an agent has signed about one request.

    next_key: to seal the next request to. now: the agent's clock, Unix seconds. box_sha256: checksum of the reply's box
    text in hex, empty when there is none because the agent could not open the request.
    """

    outcome: Outcome
    code: str
    next_key: SealingKey
    now: int
    box_sha256: str


def seal_reply(
    identity: Identity,
    vm: str,
    request_id: str,
    result: SealedResult,
    *,
    reply_key: bytes | None,
    next_key: SealingKey,
    now: int,
) -> EncodedMessage:
    """The reply's node, with the box in it or, when there is no room, its frames apart.

    reply_key: from the request's box; None when that could not be opened: then message and data stay unsent, and the
    result must not be a success. next_key: the agent's current key. now: Unix seconds. MessageError when the box would
    exceed MAX_REPLY_BOX characters, or the code is not a word of up to 64 lower-case letters, digits and underscores.
    """
    if not _CODE.match(result.code) or (reply_key is None and result.outcome is Outcome.SUCCEEDED):
        raise MessageError("a receipt needs a code that is a word, and a success needs a box")
    box = "" if reply_key is None else _seal_result(reply_key, _reply_data(vm, request_id), result)
    outcome = str(result.outcome)
    receipt = {
        "v": PROTOCOL,
        "vm": vm,
        "id": request_id,
        "outcome": outcome,
        "code": result.code,
        "key": next_key.members(),
        "now": now,
        "box": _sha256(box) if box else "",
    }
    members: dict[str, object] = {"returncode": _returncode(result.outcome), "message": ""}
    members.update({"outcome": outcome, "code": result.code, **identity.statement(RECEIPT_CONTEXT, receipt)})
    node = dumps({**members, "box": box} if box else members)
    if len(node) <= MAX_VALUE:
        return EncodedMessage(node.encode("ascii"))
    members["frames"] = FramesInfo.of(box).members()
    return EncodedMessage(dumps(members).encode("ascii"), tuple(split(box)))


@guarded
def _seal_result(reply_key: bytes, associated_data: bytes, result: SealedResult) -> str:
    members = {
        "outcome": str(result.outcome),
        "code": result.code,
        "message": result.message,
        "data": dict(result.data),
    }
    nonce = os.urandom(_NONCE_SIZE)
    plaintext = dumps(members).encode("ascii")
    box = encode_base64(nonce + AESGCM(reply_key).encrypt(nonce, plaintext, associated_data))
    if len(box) > MAX_REPLY_BOX:
        raise MessageError(f"a reply of {len(plaintext)} bytes is more than can be sent to a host")
    return box


def parse_sealed_reply(untrusted_value: bytes) -> SealedReply:
    """The reply in a node's value. MessageError when it is none of this protocol: then nothing it says is believed."""
    members = Members.loads(untrusted_value, "reply")
    return SealedReply(members, *_box_or_frames(members))


def verify_receipt(reply: SealedReply, identity: bytes, vm: str, request_id: str) -> Receipt:
    """What the agent with that identity signed about this request. MessageError when it did not.

    What stands in the reply outside of the receipt counts for nothing.
    """
    statement, _ = read_statement(RECEIPT_CONTEXT, reply.untrusted_members, identity)
    if statement.text("vm") != vm or statement.text("id") != request_id:
        raise MessageError("the receipt is that of another request")
    outcome = _outcome(statement)
    box_sha256 = statement.text("box")
    if box_sha256 and not SHA256_HEX.match(box_sha256):
        statement.fail("box", "a checksum, or empty")
    if outcome is Outcome.SUCCEEDED and not box_sha256:
        raise MessageError("the receipt tells of a success without a box")
    key = SealingKey.parse(statement.object("key"))
    return Receipt(outcome, statement.text("code", _CODE), key, statement.number("now"), box_sha256)


def open_reply(receipt: Receipt, reply_key: bytes, vm: str, request_id: str, untrusted_box: str | None) -> SealedResult:
    """How the request ended, in full.

    untrusted_box: the reply's box, from its node or joined from its frames; None when it has none. MessageError when it
    is not the box that the receipt speaks of, does not open, or says something else than the receipt.
    """
    if not receipt.box_sha256:
        if untrusted_box:
            raise MessageError("the reply has a box, and its receipt tells of none")
        return SealedResult(receipt.outcome, receipt.code, _UNOPENED.get(receipt.code, ""))
    if not untrusted_box or len(untrusted_box) > MAX_REPLY_BOX or _sha256(untrusted_box) != receipt.box_sha256:
        raise MessageError("the reply's box is not the one that its receipt tells of")
    members = Members.loads(_open_result(reply_key, _reply_data(vm, request_id), untrusted_box), "result")
    result = SealedResult(_outcome(members), members.text("code", _CODE), members.text("message"), members.tree("data"))
    if (result.outcome, result.code) != (receipt.outcome, receipt.code):
        raise MessageError("the reply and its receipt contradict each other")
    return result


@guarded
def _open_result(reply_key: bytes, associated_data: bytes, untrusted_box: str) -> bytes:
    box = decode_base64(untrusted_box, "the reply's box")
    try:
        return AESGCM(reply_key).decrypt(box[:_NONCE_SIZE], box[_NONCE_SIZE:], associated_data)
    except (InvalidTag, ValueError):
        raise MessageError("the reply's box does not open") from None


def _outcome(members: Members) -> Outcome:
    try:
        outcome = Outcome(members.text("outcome"))
    except ValueError:
        outcome = Outcome.UNREACHABLE
    # That nothing was delivered is not for an agent to say.
    if outcome is Outcome.UNREACHABLE:
        members.fail("outcome", "one that an agent can tell of")
    return outcome


def _returncode(outcome: Outcome) -> str:
    if outcome is Outcome.SUCCEEDED:
        return SUCCESS_CODES[0]
    return UNKNOWN_COMMAND_CODE if outcome is Outcome.UNSUPPORTED else "500"


def _sha256(text: str) -> str:
    return sha256_hex(text.encode("utf-8", "surrogatepass"))
