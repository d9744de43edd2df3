"""The vectors in docs/protocol.md are true: both halves of the implementation open them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent_protocol import hpke
from agent_protocol.adverts import verify_advert
from agent_protocol.identity import Identity
from agent_protocol.messages import parse_request
from agent_protocol.outcomes import Outcome
from agent_protocol.sealed import open_reply, open_request, parse_sealed_reply, parse_sealed_value, verify_receipt
from agent_protocol.strict import decode_base64

TEXT = (Path(__file__).resolve().parents[2] / "docs/protocol.md").read_text("utf-8")


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    block = re.search(r"^    \{\n(?:    .*\n)+", TEXT[TEXT.index("### Sealed protocol") :], re.MULTILINE)
    assert block is not None
    read: dict[str, Any] = json.loads(block.group())
    return read


def test_the_advert_is_signed(vectors: dict[str, Any]) -> None:
    identity = Identity.from_private_bytes(bytes.fromhex(vectors["identity_private"]))
    advert = verify_advert(vectors["advert"].encode(), vectors["vm"])
    assert advert.identity == identity.public
    assert advert.key.id == vectors["sealing_key_id"]
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(vectors["sealing_key_private"]))
    assert advert.key.public == private.public_key().public_bytes_raw()


def test_the_request_opens_and_is_sealed_as_written(vectors: dict[str, Any]) -> None:
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(vectors["sealing_key_private"]))
    envelope = parse_sealed_value(parse_request(vectors["request"].encode()).value)
    assert envelope.box is not None
    command = open_request(private, envelope.key_id, vectors["vm"], vectors["request_id"], envelope.box)
    wanted = vectors["command"]
    assert (command.name, command.value, command.expires) == (wanted["name"], wanted["value"], wanted["expires"])
    assert command.reply_key.hex() == vectors["reply_key"]
    # The other way round, with the document's own words for `info`.
    info = "\0".join(["xenward 2 request", vectors["vm"], vectors["request_id"], vectors["sealing_key_id"]]).encode()
    box = decode_base64(envelope.box, "box")
    ephemeral = X25519PrivateKey.from_private_bytes(bytes.fromhex(vectors["ephemeral_private"]))
    plaintext = hpke.open_box(private, info, box)
    assert hpke.composed_seal(private.public_key().public_bytes_raw(), info, plaintext, _ephemeral=ephemeral) == box


def test_the_reply_is_signed_and_opens(vectors: dict[str, Any]) -> None:
    identity = Identity.from_private_bytes(bytes.fromhex(vectors["identity_private"]))
    reply = parse_sealed_reply(vectors["reply"].encode())
    receipt = verify_receipt(reply, identity.public, vectors["vm"], vectors["request_id"])
    assert receipt.outcome is Outcome.SUCCEEDED
    result = open_reply(receipt, bytes.fromhex(vectors["reply_key"]), vectors["vm"], vectors["request_id"], reply.box)
    assert result.outcome is Outcome.SUCCEEDED
    assert reply.box is not None
    assert decode_base64(reply.box, "box")[:12].hex() == vectors["reply_nonce"]
