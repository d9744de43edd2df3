"""Hostile inputs for hosts, and for what both sides read: garbage is never taken for success.

Each test prints its seed; XENWARD_TEST_SEED draws the same again.
"""

from __future__ import annotations

import base64
import collections
import json
import os
from typing import Any

import pytest

from agent_protocol.adverts import SealingKey, encode_sealed_advert, verify_advert
from agent_protocol.agent_keys import AgentKeys
from agent_protocol.frames import FRAME_SIZE, FramesInfo, Joiner
from agent_protocol.identity import Identity
from agent_protocol.messages import Advert, MessageError, Password, new_request_id
from agent_protocol.outcomes import Outcome, Refused, Unsuccessful
from agent_protocol.sealed import SealedResult, open_reply, parse_sealed_reply, seal_reply, seal_request, verify_receipt
from compute_driver.agents import LEGACY, SEALED, AgentInfo, AgentsInMemory
from compute_driver.files import InjectedFile
from compute_driver.states import PowerState
from compute_driver.xenapi.agents.agent import GuestAgents
from compute_driver.xenapi.guests.vms import VM

from .hostile import ADVERTS_READ, BOXES_OPENED, FRAMES_JOINED, OPERATIONS, REPLIES_READ, Hostile, from_environment

VM_UUID = "6d2f9d0e-3a4b-4c5d-8e6f-708192a3b4c5"


@pytest.fixture
def hostile() -> Hostile:
    return from_environment()


IDENTITY, IMPOSTOR = Identity.generate(), Identity.generate()
FRESH = SealingKey("0123456789abcdef", bytes(range(32)))


def test_adverts(hostile: Hostile) -> None:
    good = encode_sealed_advert(Advert("1", "boot", ("version",)), IDENTITY, VM_UUID, FRESH, 1_700_000_000)
    believed = verify_advert(good, VM_UUID)
    members = json.loads(good)
    refused = 0
    for _ in range(ADVERTS_READ):
        kind = hostile.random.randrange(3)
        if kind == 0:
            value = hostile.mangled(good)
        elif kind == 1:
            value = hostile.altered(members)
        else:
            # Signed, and by the right one; but it says something else.
            value = json.dumps(
                {**members, **IDENTITY.statement(b"advert", json.loads(hostile.altered(json.loads(members["signed"]))))}
            ).encode()
        try:
            advert = verify_advert(value, VM_UUID)
        except MessageError:
            refused += 1
            continue
        # What stands outside of the signed text may be anything; what is inside may be missing nothing.
        assert kind == 2 or advert == believed
        assert len(advert.identity) == 32 and len(advert.key.public) == 32
    print(f"{ADVERTS_READ} adverts, {refused} refused")
    assert refused > ADVERTS_READ / 3


def test_replies(hostile: Hostile) -> None:
    refused = 0
    key = bytes(32)
    for _ in range(REPLIES_READ):
        request_id = new_request_id()
        ended = SealedResult(Outcome.REFUSED, "no", "no")
        node = seal_reply(IDENTITY, VM_UUID, request_id, ended, reply_key=key, next_key=FRESH, now=1).node
        members = json.loads(node)
        kind = hostile.random.randrange(5)
        if kind == 0:
            node = hostile.mangled(node)
        elif kind == 1:
            node = hostile.altered(members)
        elif kind == 2:
            node = json.dumps({**members, "signed": hostile.altered(json.loads(members["signed"])).decode()}).encode()
        elif kind == 3:
            done = SealedResult(Outcome.SUCCEEDED)
            node = seal_reply(IMPOSTOR, VM_UUID, request_id, done, reply_key=key, next_key=FRESH, now=1).node
        else:
            done = SealedResult(Outcome.SUCCEEDED)
            other = seal_reply(IDENTITY, VM_UUID, new_request_id(), done, reply_key=key, next_key=FRESH, now=1).node
            node = hostile.random.choice([other, json.dumps({**json.loads(other), "box": members["box"]}).encode()])
        try:
            reply = parse_sealed_reply(node)
            receipt = verify_receipt(reply, IDENTITY.public, VM_UUID, request_id)
            result = open_reply(receipt, key, VM_UUID, request_id, reply.box)
        except MessageError:
            refused += 1
            continue
        assert result == ended and receipt.outcome is Outcome.REFUSED
    print(f"{REPLIES_READ} replies, {refused} refused")
    assert refused > REPLIES_READ / 2


def test_boxes(hostile: Hostile) -> None:
    keys = AgentKeys(VM_UUID)
    codes: collections.Counter[str] = collections.Counter()
    for _ in range(BOXES_OPENED):
        request_id, key = new_request_id(), keys.current
        box = seal_request(key, VM_UUID, request_id, "ping", "", expires=2**31)
        raw = base64.b64decode(box.text)
        kind = hostile.random.randrange(4)
        text = (
            base64.b64encode(hostile.mangled(raw)).decode(),
            hostile.mangled(box.text.encode()).decode("latin-1"),
            base64.b64encode(hostile.some_bytes(300)).decode(),
            box.text,
        )[kind]
        try:
            keys.open(key.id if kind != 3 else "0" * 16, request_id, text)
        except Refused as error:
            codes[error.code] += 1
        else:
            raise AssertionError("a box that was changed opened")
        assert keys.current == key
    print(f"{BOXES_OPENED} boxes: {dict(codes)}")
    assert set(codes) == {"bad_box", "unknown_key"}


def test_frames_that_are_joined(hostile: Hostile) -> None:
    refused = 0
    for _ in range(FRAMES_JOINED):
        text = "B" * hostile.random.randint(1, 3 * FRAME_SIZE)
        joiner = Joiner(FramesInfo.of(text))
        try:
            for start in range(0, len(text), FRAME_SIZE):
                joiner.feed(hostile.mangled(text[start : start + FRAME_SIZE].encode()).decode("latin-1"))
            joiner.text()
        except Refused as error:
            assert error.code in ("frames_corrupt", "frames_incomplete")
            refused += 1
    print(f"{FRAMES_JOINED} texts in frames, {refused} refused")
    assert refused == FRAMES_JOINED


class LyingServer:
    """XenServer whose dom0 plugin, or the guest behind it, answers with anything but the truth."""

    def __init__(self, hostile: Hostile) -> None:
        self._hostile = hostile
        self.calls = 0

    def call(
        self, method: str, host: str, plugin: str, function: str, arguments: dict[str, str], *, timeout: float
    ) -> Any:
        self.calls += 1
        choose = self._hostile.random
        if function == "adverts":
            advert = encode_sealed_advert(Advert("1", "b", ()), IMPOSTOR, VM_UUID, FRESH, 1)
            text = choose.choice([None, advert.decode(), self._hostile.altered(json.loads(advert)).decode(), "{"])
            return choose.choice([json.dumps({VM_UUID: text}), json.dumps(self._hostile.value()), "{", None])
        (request,) = json.loads(arguments["requests"])
        kind = choose.randrange(8)
        if kind == 0:
            return choose.choice(["", "{", None, 1, json.dumps(self._hostile.value())])
        if kind == 1:
            delivery = choose.choice(
                ["absent", "withdrawn", "rejected", "taken", "unanswered", "lost", "continue", None, 1]
            )
            return json.dumps([{"id": request["id"], "delivery": delivery, "value": self._hostile.value()}])
        answer = {"id": request["id"], "delivery": "answered", "value": self._reply(request["id"])}
        if kind == 2:
            answer["box"] = base64.b64encode(self._hostile.some_bytes(200)).decode()
        if kind == 3:
            answer["id"] = new_request_id()
        return json.dumps([answer])

    def _reply(self, request_id: str) -> Any:
        choose = self._hostile.random
        kind = choose.randrange(6)
        done, refused = SealedResult(Outcome.SUCCEEDED), SealedResult(Outcome.REFUSED, "no", "no")
        if kind == 0:
            return choose.choice(["", "{", self._hostile.value(), '{"returncode":"500","message":""}'])
        if kind == 1:
            return self._sealed(IMPOSTOR, request_id, done)
        if kind == 2:
            # The right agent's word, about another request.
            return self._sealed(IDENTITY, new_request_id(), done)
        if kind == 3:
            # The right agent's word about this one, sealed to a key that the host did not give.
            return self._sealed(IDENTITY, request_id, done)
        if kind == 4:
            return self._hostile.altered(json.loads(self._sealed(IDENTITY, request_id, refused))).decode()
        return json.dumps(
            {"returncode": choose.choice(["1", "404", 500, "00", " 0", 0.0, True, None, []]), "message": ""}
        )

    @staticmethod
    def _sealed(identity: Identity, request_id: str, result: SealedResult) -> str:
        key = os.urandom(32)
        node = seal_reply(identity, VM_UUID, request_id, result, reply_key=key, next_key=FRESH, now=1).node
        return node.decode()


def test_operations_on_guests(hostile: Hostile) -> None:
    server = LyingServer(hostile)
    vm = VM("ref", VM_UUID, "instance", PowerState.RUNNING, "host", ())
    ends: collections.Counter[str] = collections.Counter()
    for number in range(OPERATIONS):
        memory = AgentsInMemory()
        policy = hostile.random.choice(["sealed", "prefer-sealed", "legacy"])
        pinned = AgentInfo("1", ("file_put",), SEALED, IDENTITY.public, FRESH, guest=VM_UUID)
        if policy == "legacy":
            memory["instance"] = AgentInfo("1", ("injectfile",), LEGACY)
        else:
            memory["instance"] = pinned
        agents = GuestAgents(server, memory, policy=policy, timeout=0.05, boot_timeout=0.05)  # type: ignore[arg-type]
        try:
            if number % 3 == 0:
                agents.set_password(vm, Password("a secret of ours"))
            elif number % 3 == 1:
                agents.put_file(vm, InjectedFile("/etc/x", b"content"))
            else:
                agents.add_ssh_keys(vm, ["ssh-ed25519 AAAA"])
        except Unsuccessful as error:
            ends[f"{error.outcome} {error.code}"[:40]] += 1
            assert "a secret of ours" not in str(error)
        else:
            raise AssertionError(f"{policy}: garbage was taken for success")
        if policy != "legacy":
            assert memory["instance"].identity == IDENTITY.public
    print(f"{OPERATIONS} operations, {server.calls} calls of the plugin: {dict(ends)}")
