"""What the old protocol's cryptography is worth to whoever reads XenStore, and what there is to get from the new one's.

The same attack runs on a recording of each.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import secrets
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agent_protocol.adverts import SealingKey
from agent_protocol.hpke import BoxError
from agent_protocol.legacy import HostExchange
from agent_protocol.sealed import open_request, seal_request

from .breaking import GENERATOR, PRIME, NothingToAttack, Reset, discrete_log, password_of, resets
from .house import FIRST_PASSWORD, SECOND_PASSWORD
from .recorder import RecordedHouse, recorded_house

NOVA_BITS = 80
"""Length of the private numbers of Nova's hosts."""


@pytest.fixture
def recorded(directory: Path) -> Iterator[RecordedHouse]:
    with recorded_house(directory) as it:
        yield it


def written(home: RecordedHouse) -> list[tuple[str, bytes]]:
    """Path and value of everything that anybody wrote."""
    packets = [
        packet for packet in home.traffic() if (packet["direction"], packet["operation"]) == ("request", "WRITE")
    ]
    pairs = [base64.b64decode(packet["payload"]).partition(b"\0") for packet in packets]
    return [(path.decode(), value) for path, _, value in pairs]


def test_a_password_of_the_old_protocol_is_read_off_the_recording(recorded: RecordedHouse) -> None:
    recorded.configure(agent={"protocol": "legacy"})
    instance = recorded.create()
    assert recorded.set_password(SECOND_PASSWORD).status == 0
    assert recorded.opens(instance, SECOND_PASSWORD)
    first, second = resets(written(recorded))
    started = time.monotonic()
    # Our host's private number is long, but the group is not.
    assert password_of(second, exponent_bits=600) == SECOND_PASSWORD
    seconds = time.monotonic() - started
    print(f"broken in {seconds:.1f} s")
    assert first.host_public != second.host_public


def test_a_nova_hosts_short_number_is_found_at_once() -> None:
    exponents = [secrets.randbits(NOVA_BITS) for _ in range(5)]
    started = time.monotonic()
    assert [discrete_log(pow(GENERATOR, exponent, PRIME), NOVA_BITS) for exponent in exponents] == exponents
    print(f"five short numbers in {time.monotonic() - started:.3f} s")
    host, agent = HostExchange(exponents[0]), pow(GENERATOR, 3**200, PRIME)
    reset = Reset(int(host.public), agent, base64.b64decode(host.seal(FIRST_PASSWORD, str(agent))))
    assert password_of(reset, NOVA_BITS) == FIRST_PASSWORD


# The same for a sealed reset


def public_values(recording: bytes) -> set[bytes]:
    """Every 32 bytes that can be had from a recording: what is there in base64 or hex, and hashes of it."""
    found = set()
    for text in re.findall(rb"[A-Za-z0-9+/]{22,}={0,2}", recording):
        try:
            data = base64.b64decode(text + b"=" * (-len(text) % 4))
        except ValueError:
            continue
        found |= {data[:32], data[32:64], data[-32:], hashlib.sha256(data).digest(), hashlib.sha256(text).digest()}
        found |= {hashlib.md5(data).digest() * 2}
    for text in re.findall(rb"[0-9a-f]{16,64}", recording):
        found |= {bytes.fromhex(text.decode())} if len(text) == 64 else set()
        found |= {hashlib.sha256(text).digest(), (text * 4)[:32]}
    found |= {
        hashlib.sha256(text).digest() for text in re.findall(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", recording)
    }
    return {value for value in found if len(value) == 32}


def opened_with(keys: set[bytes], vm: str, request_id: str, request: bytes, reply: bytes) -> list[bytes]:
    """Those of the keys that open the request's box or the reply's."""
    envelope = json.loads(json.loads(request)["value"])
    opening = []
    for key in keys:
        try:
            open_request(X25519PrivateKey.from_private_bytes(key), envelope["key_id"], vm, request_id, envelope["box"])
            opening.append(key)
        except BoxError:
            pass
    boxes = [base64.b64decode(envelope["box"])[32:], base64.b64decode(json.loads(reply).get("box", ""))]
    data = f"{vm}\0{request_id}".encode()
    for key, box, aad in itertools.product(
        keys, boxes, (b"", b"xenward 2 reply\0" + data, b"xenward 2 request\0" + data)
    ):
        for nonce, ciphertext in ((box[:12], box[12:]), (bytes(12), box)):
            try:
                AESGCM(key).decrypt(nonce, ciphertext, aad)
                opening.append(key)
            except (InvalidTag, ValueError):
                pass
    return opening


def test_the_recording_of_a_sealed_reset_has_nothing_to_attack(recorded: RecordedHouse) -> None:
    instance = recorded.create()
    assert recorded.set_password(SECOND_PASSWORD).status == 0
    assert recorded.opens(instance, SECOND_PASSWORD)
    crossed = written(recorded)
    with pytest.raises(NothingToAttack):
        resets(crossed)

    requests = {path.rpartition("/")[2]: value for path, value in crossed if "/data/host/" in path}
    names = {request_id: json.loads(value)["name"] for request_id, value in requests.items()}
    assert set(names.values()) == {"version", "sealed"}
    # No number of that group's size crossed in either direction.
    recording = b"\n".join(value for _, value in crossed)
    assert re.findall(rb"(?<![0-9])[0-9]{28,33}(?![0-9])", recording) == []
    request_id = [name for name in requests if names[name] == "sealed"][-1]
    (reply,) = [value for path, value in crossed if path.endswith(f"data/guest/{request_id}")]

    values = public_values(recording)
    assert len(values) > 100
    assert opened_with(values, recorded.vm(instance)["uuid"], request_id, requests[request_id], reply) == []


def test_the_search_for_a_key_finds_one_that_is_there() -> None:
    private, vm, request_id = X25519PrivateKey.generate(), str(uuid.uuid4()), str(uuid.uuid4())
    key = SealingKey("0" * 16, private.public_key().public_bytes_raw())
    box = seal_request(key, vm, request_id, "password", "{}", expires=0)
    request = json.dumps({"value": json.dumps({"key_id": key.id, "box": box.text})}).encode()
    nonce, associated = bytes(12), b"xenward 2 reply\0" + f"{vm}\0{request_id}".encode()
    reply_box = nonce + AESGCM(box.reply_key).encrypt(nonce, b"{}", associated)
    reply = json.dumps({"box": base64.b64encode(reply_box).decode()}).encode()
    shown = base64.b64encode(private.private_bytes_raw()) + b" " + base64.b64encode(box.reply_key)
    found = opened_with(public_values(shown), vm, request_id, request, reply)
    assert {private.private_bytes_raw(), box.reply_key} <= set(found)
