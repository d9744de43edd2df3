"""The sealed conversation: what each side reads is what the other one sealed or signed for it, or is refused."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any, Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_protocol import frames, hpke, messages, sealed
from agent_protocol.adverts import SealingKey
from agent_protocol.frames import FramesInfo, Joiner
from agent_protocol.hpke import BoxError
from agent_protocol.identity import ADVERT_CONTEXT, RECEIPT_CONTEXT, Identity
from agent_protocol.messages import MAX_VALUE, MessageError
from agent_protocol.outcomes import Outcome, Refused, Unknown
from agent_protocol.sealed import EncodedMessage, Receipt, SealedBox, SealedCommand, SealedResult
from agent_protocol.strict import dumps, encode_base64
from tests.agent_protocol.test_messages import ANY_TEXT, JSON, NO_OBJECTS

VM = "0f4b6c50-1111-4222-8333-444455556666"
ID = "0f4b6c50-aaaa-4222-8333-444455556666"
OTHER = "0f4b6c50-bbbb-4222-8333-444455556666"
IDENTITY = Identity.from_private_bytes(bytes(range(32)))
PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(50, 82)))
KEY = SealingKey("0123456789abcdef", PRIVATE.public_key().public_bytes_raw())
NEXT_KEY = SealingKey("fedcba9876543210", bytes(range(100, 132)))
REPLY_KEY = bytes(range(200, 232))
NOW = 1_800_000_000
ENVELOPE = {"v": 2, "key_id": KEY.id}


def seal(name: str = "password", value: str = "hunter2") -> SealedBox:
    return sealed.seal_request(KEY, VM, ID, name, value, expires=NOW, reply_key=REPLY_KEY)


def open_request(text: str, vm: str = VM, request_id: str = ID, key_id: str = KEY.id) -> SealedCommand:
    return sealed.open_request(PRIVATE, key_id, vm, request_id, text)


def seal_reply(result: SealedResult, reply_key: bytes | None = REPLY_KEY) -> EncodedMessage:
    return sealed.seal_reply(IDENTITY, VM, ID, result, reply_key=reply_key, next_key=NEXT_KEY, now=NOW)


def receipt_of(node: bytes, identity: bytes = IDENTITY.public, vm: str = VM, request_id: str = ID) -> Receipt:
    return sealed.verify_receipt(sealed.parse_sealed_reply(node), identity, vm, request_id)


def read_reply(
    message: EncodedMessage, reply_key: bytes = REPLY_KEY, vm: str = VM, request_id: str = ID
) -> SealedResult:
    """As a host does it that was handed the frames as one text."""
    box = sealed.parse_sealed_reply(message.node).box or "".join(message.frames)
    return sealed.open_reply(receipt_of(message.node), reply_key, vm, request_id, box)


class TestRequests:
    def test_the_form_on_the_wire(self) -> None:
        box = seal()
        message = sealed.encode_sealed_request(box)
        request = messages.parse_request(message.node)
        assert (request.name, message.frames) == ("sealed", ())
        assert json.loads(request.value) == {"v": 2, "key_id": KEY.id, "box": box.text}
        info = f"xenward 2 request\0{VM}\0{ID}\0{KEY.id}".encode()
        assert json.loads(hpke.composed_open(PRIVATE, info, base64.b64decode(box.text))) == {
            "name": "password",
            "value": "hunter2",
            "expires": NOW,
            "reply_key": encode_base64(REPLY_KEY),
        }

    @settings(deadline=None)
    @given(ANY_TEXT, ANY_TEXT | st.integers(0, 5000).map("x".__mul__), st.integers(0, 2**40))
    def test_what_is_sealed_is_opened(self, name: str, value: str, expires: int) -> None:
        box = sealed.seal_request(KEY, VM, ID, name, value, expires=expires)
        message = sealed.encode_sealed_request(box)
        assert len(message.node) <= MAX_VALUE and message.node.isascii()
        envelope = sealed.parse_sealed_value(messages.parse_request(message.node).value)
        assert envelope.key_id == KEY.id == box.key_id
        if envelope.frames is None:
            assert envelope.box == box.text and not message.frames
            text = envelope.box
        else:
            joiner = Joiner(envelope.frames)
            for frame in message.frames:
                joiner.feed(frame)
            text = joiner.text()
        assert open_request(text) == SealedCommand(name, value, expires, box.reply_key)

    def test_frames_begin_where_the_node_ends(self) -> None:
        whole = [len(sealed.encode_sealed_request(seal(value="x" * size)).node) for size in range(1200, 1300)]
        framed = [bool(sealed.encode_sealed_request(seal(value="x" * size)).frames) for size in range(1200, 1300)]
        first = framed.index(True)
        assert first > 0 and all(framed[first:]) and not any(framed[:first])
        assert MAX_VALUE - 8 < whole[first - 1] <= MAX_VALUE

    def test_each_request_has_its_own_reply_key(self) -> None:
        keys = {sealed.seal_request(KEY, VM, ID, "x", "", expires=1).reply_key for _ in range(10)}
        assert len(keys) == 10 and {len(key) for key in keys} == {32}

    def test_the_largest_request(self) -> None:
        value = "x" * (frames.MAX_SIZE // 4 * 3 - 48 - len(dumps({"name": "", "value": "", "expires": NOW})))
        value = value[: -len(dumps({"reply_key": encode_base64(REPLY_KEY)})) + 1]
        box = seal("", value)
        assert len(box.text) == frames.MAX_SIZE and open_request(box.text).value == value
        with pytest.raises(Refused) as caught:
            seal("", value + "x")
        assert caught.value.code == "too_large"

    @pytest.mark.parametrize(
        "bound",
        [
            {"vm": OTHER},
            {"request_id": OTHER},
            {"key_id": "0" * 16},
            {"vm": ID, "request_id": VM},
            {"request_id": "x\0"},
        ],
    )
    def test_what_a_box_is_bound_to(self, bound: dict[str, str]) -> None:
        text = seal().text
        assert open_request(text).value == "hunter2"
        with pytest.raises(BoxError):
            open_request(text, **bound)

    @settings(deadline=None, max_examples=300)
    @given(st.data())
    def test_any_character_changed(self, data: st.DataObject) -> None:
        text = BOX.text
        position = data.draw(st.integers(0, len(text) - 1))
        flipped = chr(ord(text[position]) ^ 1 << data.draw(st.integers(0, 7)))
        with pytest.raises(BoxError):
            open_request(text[:position] + flipped + text[position + 1 :])

    @pytest.mark.parametrize(
        "changes",
        [
            {"name": None},
            {"value": 1},
            {"expires": "1"},
            {"expires": 1.5},
            {"expires": -1},
            {"expires": True},
            {"reply_key": encode_base64(bytes(31))},
            {"reply_key": encode_base64(bytes(33))},
            {"reply_key": 32},
        ],
    )
    def test_what_is_wrong_although_sealed(self, changes: dict[str, object]) -> None:
        members = {"name": "x", "value": "", "expires": 1, "reply_key": encode_base64(REPLY_KEY)}
        assert open_request(sealed_text(members)).name == "x"
        with pytest.raises(BoxError):
            open_request(sealed_text({**members, **changes}))

    @settings(deadline=None, max_examples=300)
    @given(JSON | st.dictionaries(st.sampled_from(["name", "value", "expires", "reply_key"]), JSON))
    def test_anything_sealed_is_a_command_or_refused(self, plaintext: object) -> None:
        with pytest.raises(BoxError):
            open_request(sealed_text(plaintext))

    @given(st.text(max_size=200) | st.binary(max_size=200).map(encode_base64))
    def test_anything_is_no_box(self, text: str) -> None:
        with pytest.raises(BoxError):
            open_request(text)

    def test_a_reply_is_no_request(self) -> None:
        reply = json.loads(seal_reply(SealedResult(Outcome.SUCCEEDED)).node)["box"]
        with pytest.raises(BoxError):
            open_request(reply)

    def test_secrets_are_told_nowhere(self) -> None:
        box = seal()
        shown = repr(box) + repr(open_request(box.text)) + str(open_request(box.text))
        assert "hunter2" not in shown and repr(REPLY_KEY) not in shown
        with pytest.raises(Refused) as caught:
            seal(value="hunter2" * 600_000)
        assert "hunter2" not in repr(caught.value)


BOX = seal()


def sealed_text(plaintext: object) -> str:
    info = f"xenward 2 request\0{VM}\0{ID}\0{KEY.id}".encode()
    return encode_base64(hpke.seal(KEY.public, info, json.dumps(plaintext).encode()))


class TestEnvelopes:
    @pytest.mark.parametrize(
        "members",
        [
            {},
            {**ENVELOPE},
            {**ENVELOPE, "box": 1},
            {**ENVELOPE, "box": None},
            {**ENVELOPE, "v": 1, "box": "x"},
            {**ENVELOPE, "key_id": "x", "box": "x"},
            {**ENVELOPE, "key_id": None, "box": "x"},
            {**ENVELOPE, "frames": None},
            {**ENVELOPE, "frames": {"count": 1}},
            {**ENVELOPE, "frames": {"count": 2, "size": 1, "sha256": "0" * 64}},
            {**ENVELOPE, "box": "x", "frames": {"count": 1, "size": 1, "sha256": "0" * 64}},
        ],
    )
    def test_no_envelope(self, members: dict[str, object]) -> None:
        with pytest.raises(MessageError):
            sealed.parse_sealed_value(dumps(members))

    def test_members_from_the_future_are_ignored(self) -> None:
        envelope = sealed.parse_sealed_value(dumps({**ENVELOPE, "box": "x", "more": 1}))
        assert (envelope.box, envelope.frames) == ("x", None)

    @given(
        ANY_TEXT | JSON.map(json.dumps) | st.dictionaries(st.sampled_from(["v", "key_id", "box"]), JSON).map(json.dumps)
    )
    def test_anything_is_parsed_or_refused(self, untrusted_value: str) -> None:
        try:
            sealed.parse_sealed_value(untrusted_value)
        except MessageError as error:
            assert error.code == "bad_request"


class TestReplies:
    def test_the_form_on_the_wire(self) -> None:
        message = seal_reply(SealedResult(Outcome.FAILED, "no_disk", "the disk is full", {"free": 0}))
        node = json.loads(message.node)
        assert list(node) == ["returncode", "message", "outcome", "code", "signed", "signature", "box"]
        assert [node[name] for name in ("returncode", "message", "outcome", "code")] == ["500", "", "failed", "no_disk"]
        assert json.loads(node["signed"]) == {
            "v": 2,
            "vm": VM,
            "id": ID,
            "outcome": "failed",
            "code": "no_disk",
            "key": {"id": NEXT_KEY.id, "public": encode_base64(NEXT_KEY.public)},
            "now": NOW,
            "box": hashlib.sha256(node["box"].encode()).hexdigest(),
        }
        box = base64.b64decode(node["box"])
        plaintext = AESGCM(REPLY_KEY).decrypt(box[:12], box[12:], f"xenward 2 reply\0{VM}\0{ID}".encode())
        assert json.loads(plaintext) == {
            "outcome": "failed",
            "code": "no_disk",
            "message": "the disk is full",
            "data": {"free": 0},
        }

    @pytest.mark.parametrize(
        ("outcome", "code"), [(Outcome.SUCCEEDED, ""), (Outcome.UNSUPPORTED, "x"), (Outcome.BUSY, "x")]
    )
    def test_old_hosts_read_the_outcome(self, outcome: Outcome, code: str) -> None:
        reply = messages.parse_reply(seal_reply(SealedResult(outcome, code)).node)
        assert (reply.outcome, reply.code) == (outcome, code)

    @settings(deadline=None)
    @given(
        st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.UNREACHABLE]),
        st.text("abc_09", max_size=64),
        ANY_TEXT | st.integers(0, 4000).map("x".__mul__),
        st.dictionaries(ANY_TEXT, st.text(max_size=5) | st.integers(-(2**63), 2**64 - 1), max_size=4),
    )
    def test_what_is_sealed_is_opened(self, outcome: Outcome, code: str, message: str, data: dict[str, Any]) -> None:
        result = SealedResult(outcome, code, message, json.loads(json.dumps(data)))
        encoded = seal_reply(result)
        assert len(encoded.node) <= MAX_VALUE and encoded.node.isascii()
        reply = sealed.parse_sealed_reply(encoded.node)
        assert (reply.box is None) is bool(encoded.frames)
        assert reply.frames == (FramesInfo.of("".join(encoded.frames)) if encoded.frames else None)
        assert read_reply(encoded) == result

    def test_the_receipt(self) -> None:
        node = seal_reply(SealedResult(Outcome.SUCCEEDED)).node
        checksum = hashlib.sha256(json.loads(node)["box"].encode()).hexdigest()
        assert receipt_of(node) == Receipt(Outcome.SUCCEEDED, "", NEXT_KEY, NOW, checksum)

    def test_the_largest_reply(self) -> None:
        with pytest.raises(MessageError):
            seal_reply(SealedResult(Outcome.SUCCEEDED, "", "", {"text": "x" * (256 * 1024 // 4 * 3)}))
        large = SealedResult(Outcome.SUCCEEDED, "", "", {"text": "x" * (256 * 1024 // 4 * 3 - 150)})
        assert read_reply(seal_reply(large)) == large

    @pytest.mark.parametrize(
        "code", ["unknown_key", "bad_box", "expired", "replayed", "frames_incomplete", "frames_corrupt"]
    )
    def test_a_reply_to_what_was_not_opened(self, code: str) -> None:
        message = seal_reply(SealedResult(Outcome.REFUSED, code, "not sent"), reply_key=None)
        assert "not sent" not in message.node.decode() and "box" not in json.loads(message.node)
        receipt = receipt_of(message.node)
        assert (receipt.outcome, receipt.code, receipt.box_sha256) == (Outcome.REFUSED, code, "")
        with pytest.raises(Refused) as caught:
            sealed.open_reply(receipt, REPLY_KEY, VM, ID, None).raise_unless_successful()
        assert caught.value.code == code and "agent" in caught.value.message
        with pytest.raises(MessageError):
            sealed.open_reply(receipt, REPLY_KEY, VM, ID, "AAAA")

    def test_an_agent_that_restarted(self) -> None:
        message = seal_reply(SealedResult(Outcome.UNKNOWN, "agent_restarted"), reply_key=None)
        with pytest.raises(Unknown, match="may or may not"):
            read_reply(message).raise_unless_successful()

    @pytest.mark.parametrize("code", ["A", "a b", "x" * 65, "ü", "x\n"])
    def test_codes_are_words(self, code: str) -> None:
        with pytest.raises(MessageError):
            seal_reply(SealedResult(Outcome.FAILED, code))
        with pytest.raises(MessageError):
            receipt_of(signed_reply(code=code))

    def test_a_success_needs_a_box(self) -> None:
        with pytest.raises(MessageError):
            seal_reply(SealedResult(Outcome.SUCCEEDED), reply_key=None)
        with pytest.raises(MessageError):
            receipt_of(signed_reply(outcome="succeeded", code=""))

    def test_data_and_reply_keys_are_told_nowhere(self) -> None:
        result = SealedResult(Outcome.SUCCEEDED, "", "", {"password": "hunter2"})
        assert "hunter2" not in repr(result) + repr(read_reply(seal_reply(result)))


def signed_reply(context: bytes = RECEIPT_CONTEXT, identity: Identity = IDENTITY, **changes: Any) -> bytes:
    receipt: dict[str, object] = {
        "v": 2,
        "vm": VM,
        "id": ID,
        "outcome": "refused",
        "code": "bad_box",
        "key": NEXT_KEY.members(),
        "now": NOW,
        "box": "",
    }
    return dumps({"returncode": "500", **identity.statement(context, {**receipt, **changes})}).encode()


class TestWhatIsNotBelieved:
    def test_the_sample_is(self) -> None:
        assert receipt_of(signed_reply()).code == "bad_box"

    @pytest.mark.parametrize(
        "changes",
        [
            {"v": 1},
            {"vm": OTHER},
            {"id": OTHER},
            {"outcome": "unreachable"},
            {"outcome": "fine"},
            {"outcome": None},
            {"outcome": []},
            {"code": None},
            {"key": None},
            {"key": {"id": "x", "public": encode_base64(bytes(32))}},
            {"now": "1"},
            {"now": 1.5},
            {"box": None},
            {"box": "0" * 63},
            {"box": "G" * 64},
        ],
    )
    def test_a_receipt_that_is_wrong_although_signed(self, changes: dict[str, Any]) -> None:
        with pytest.raises(MessageError):
            receipt_of(signed_reply(**changes))

    @pytest.mark.parametrize(
        "read",
        [
            lambda node: receipt_of(node, identity=Identity.generate().public),
            lambda node: receipt_of(node, identity=b""),
            lambda node: receipt_of(node, vm=OTHER),
            lambda node: receipt_of(node, request_id=OTHER),
            lambda _: receipt_of(signed_reply(context=ADVERT_CONTEXT)),
            lambda _: receipt_of(signed_reply(identity=Identity.generate())),
            lambda _: receipt_of(b'{"returncode":"0","message":"","outcome":"succeeded"}'),
            lambda _: receipt_of(b'{"returncode":"404","message":"unknown command"}'),
        ],
    )
    def test_a_receipt_of_another_agent_or_request(self, read: Callable[[bytes], Receipt]) -> None:
        with pytest.raises(MessageError):
            read(signed_reply())

    def test_any_bit_of_the_receipt(self) -> None:
        members = json.loads(signed_reply())
        believed = []
        for name in ("signed", "signature"):
            text = members[name]
            for bit in range(len(text) * 7):
                position = bit // 7
                changed = text[:position] + chr(ord(text[position]) ^ 1 << bit % 7) + text[position + 1 :]
                try:
                    receipt_of(dumps({**members, name: changed}).encode())
                except MessageError:
                    continue
                believed.append((name, bit))
        assert believed == []

    def test_any_bit_of_the_box(self) -> None:
        message = seal_reply(SealedResult(Outcome.SUCCEEDED))
        receipt, box = receipt_of(message.node), sealed.parse_sealed_reply(message.node).box
        assert box is not None
        for bit in range(len(box) * 8):
            position = bit // 8
            changed = box[:position] + chr(ord(box[position]) ^ 1 << bit % 8) + box[position + 1 :]
            with pytest.raises(MessageError):
                sealed.open_reply(receipt, REPLY_KEY, VM, ID, changed)

    @pytest.mark.parametrize("text", [None, "", "AAAA", "é", "\ud800", "x" * (256 * 1024 + 1)])
    def test_another_box_or_none(self, text: str | None) -> None:
        receipt = receipt_of(seal_reply(SealedResult(Outcome.SUCCEEDED)).node)
        with pytest.raises(MessageError):
            sealed.open_reply(receipt, REPLY_KEY, VM, ID, text)

    def test_another_box_under_the_same_reply_key(self) -> None:
        first, second = seal_reply(SealedResult(Outcome.SUCCEEDED)), seal_reply(SealedResult(Outcome.SUCCEEDED))
        with pytest.raises(MessageError, match="receipt"):
            sealed.open_reply(receipt_of(first.node), REPLY_KEY, VM, ID, sealed.parse_sealed_reply(second.node).box)

    @pytest.mark.parametrize("bound", [{"reply_key": bytes(32)}, {"vm": OTHER}, {"request_id": OTHER}])
    def test_what_the_box_is_bound_to(self, bound: dict[str, Any]) -> None:
        message = seal_reply(SealedResult(Outcome.SUCCEEDED))
        assert read_reply(message).outcome is Outcome.SUCCEEDED
        with pytest.raises(MessageError, match="open"):
            read_reply(message, **bound)

    @pytest.mark.parametrize(
        "changes",
        [{"outcome": "succeeded"}, {"code": "other"}, {"message": None}, {"data": []}, {"data": None}, {"outcome": 1}],
    )
    def test_a_box_that_says_something_else(self, changes: dict[str, object]) -> None:
        members = {"outcome": "failed", "code": "x", "message": "", "data": {}}
        assert read_box(dumps(members)).code == "x"
        with pytest.raises(MessageError):
            read_box(dumps({**members, **changes}))

    @pytest.mark.parametrize("text", ["", "[]", "{"])
    def test_a_box_that_says_nothing(self, text: str) -> None:
        with pytest.raises(MessageError):
            read_box(text)

    def test_a_request_is_no_reply(self) -> None:
        checksum = hashlib.sha256(BOX.text.encode()).hexdigest()
        with pytest.raises(MessageError, match="open"):
            sealed.open_reply(receipt_of(signed_reply(box=checksum)), REPLY_KEY, VM, ID, BOX.text)

    @pytest.mark.parametrize("value", NO_OBJECTS)
    def test_no_object(self, value: bytes) -> None:
        with pytest.raises(MessageError):
            sealed.parse_sealed_reply(value)

    @settings(deadline=None, max_examples=400)
    @given(
        st.binary(max_size=100)
        | JSON.map(lambda value: json.dumps(value).encode())
        | st.dictionaries(st.sampled_from(["signed", "signature", "box", "frames"]), JSON).map(
            lambda changes: dumps({**json.loads(signed_reply()), **changes}).encode()
        )
        | st.dictionaries(st.sampled_from(["outcome", "code", "key", "now", "box"]), JSON).map(
            lambda changes: signed_reply(**changes)
        )
    )
    def test_anything_is_read_or_refused(self, untrusted_value: bytes) -> None:
        try:
            receipt_of(untrusted_value)
        except MessageError as error:
            assert error.code == "bad_request"


def read_box(plaintext: str) -> SealedResult:
    """What a host reads in a reply whose agent put that text into the box, with a receipt to match."""
    nonce = bytes(12)
    data = f"xenward 2 reply\0{VM}\0{ID}".encode()
    text = encode_base64(nonce + AESGCM(REPLY_KEY).encrypt(nonce, plaintext.encode(), data))
    receipt = Receipt(Outcome.FAILED, "x", NEXT_KEY, NOW, hashlib.sha256(text.encode()).hexdigest())
    return sealed.open_reply(receipt, REPLY_KEY, VM, ID, text)
