"""Identities and the adverts that they sign: nothing that was changed, or is another VM's, is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_protocol.adverts import NotSealed, SealedAdvert, SealingKey, encode_sealed_advert, verify_advert
from agent_protocol.identity import ADVERT_CONTEXT, RECEIPT_CONTEXT, Identity, fingerprint
from agent_protocol.messages import Advert, MessageError, encode_advert, parse_advert
from agent_protocol.strict import dumps, encode_base64
from tests.agent_protocol.test_messages import JSON, NO_OBJECTS

VM = "0f4b6c50-1111-4222-8333-444455556666"
OTHER_VM = "0f4b6c50-1111-4222-8333-444455556667"
IDENTITY = Identity.from_private_bytes(bytes(range(32)))
KEY = SealingKey("0123456789abcdef", bytes(range(100, 132)))
ADVERT = Advert("0.2.0", "boot", ("password", "file_put"))
VALUE = encode_sealed_advert(ADVERT, IDENTITY, VM, KEY, 1_800_000_000)


def inside(**changes: object) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(json.loads(VALUE)["signed"])
    return {**members, **changes}


def signed(members: dict[str, Any], context: bytes = ADVERT_CONTEXT, identity: Identity = IDENTITY) -> bytes:
    return dumps({"v": 2, **identity.statement(context, members)}).encode()


class TestIdentity:
    def test_it_survives_being_kept(self) -> None:
        identity = Identity.generate()
        kept = Identity.from_private_bytes(identity.private_bytes())
        assert kept.public == identity.public != Identity.generate().public

    @pytest.mark.parametrize("size", [0, 31, 33])
    def test_only_32_bytes_are_one(self, size: int) -> None:
        with pytest.raises(MessageError):
            Identity.from_private_bytes(bytes(size))

    def test_repr_tells_the_public_half_only(self) -> None:
        shown = repr(IDENTITY) + str(IDENTITY) + repr(vars(IDENTITY))
        assert fingerprint(IDENTITY.public) in shown
        assert IDENTITY.private_bytes().hex() not in shown and repr(IDENTITY.private_bytes()) not in shown

    def test_fingerprint(self) -> None:
        # printf of 32 zero bytes | sha256sum, in base64 without padding
        assert fingerprint(bytes(32)) == "SHA256:Zmh6rfhivXdsj8GLjp+OIAiXFIVu4jOzkCpZHQ1fKSU"

    def test_what_a_signature_covers(self) -> None:
        statement = IDENTITY.statement(b"advert", {"a": 1})
        assert statement["signed"] == '{"a":1}'
        own = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).sign(b'xenward 2 advert\0{"a":1}')
        assert statement["signature"] == encode_base64(own)


class TestAdverts:
    def test_what_is_encoded_is_verified(self) -> None:
        assert verify_advert(VALUE, VM) == SealedAdvert(
            "0.2.0", "boot", ("password", "file_put"), IDENTITY.public, KEY, 1_800_000_000
        )

    def test_hosts_that_read_no_signatures_read_it_too(self) -> None:
        assert parse_advert(VALUE) == ADVERT

    def test_the_form_on_the_wire(self) -> None:
        outside = json.loads(VALUE)
        assert list(outside) == ["v", "version", "boot_id", "features", "signed", "signature"]
        assert json.loads(outside["signed"]) == {
            "v": 2,
            "version": "0.2.0",
            "boot_id": "boot",
            "features": ["password", "file_put"],
            "vm": VM,
            "identity": encode_base64(IDENTITY.public),
            "key": {"id": KEY.id, "public": encode_base64(KEY.public)},
            "issued": 1_800_000_000,
        }

    def test_twenty_features_fit_inside_and_outside(self) -> None:
        advert = Advert("10.20.30.dev400", VM, tuple(f"feature_name_{number:03}" for number in range(20)))
        value = encode_sealed_advert(advert, IDENTITY, VM, KEY, 1_800_000_000)
        assert len(value) <= 2000 and parse_advert(value) == advert
        assert verify_advert(value, VM).features == advert.features

    def test_more_features_stand_inside_only(self) -> None:
        advert = Advert("1", VM, tuple(f"feature_name_{number:03}" for number in range(45)))
        value = encode_sealed_advert(advert, IDENTITY, VM, KEY, 1_800_000_000)
        assert len(value) <= 2000 and parse_advert(value).features == ()
        assert verify_advert(value, VM).features == advert.features

    def test_too_many_features(self) -> None:
        advert = Advert("1", VM, tuple(f"feature_name_{number:03}" for number in range(90)))
        with pytest.raises(MessageError):
            encode_sealed_advert(advert, IDENTITY, VM, KEY, 1_800_000_000)

    def test_the_inside_counts(self) -> None:
        members = {**json.loads(VALUE), "version": "9", "features": ["agent_update"], "key": "x"}
        assert verify_advert(dumps(members).encode(), VM) == verify_advert(VALUE, VM)

    def test_another_vm(self) -> None:
        for vm in (OTHER_VM, "", VM.upper()):
            with pytest.raises(MessageError):
                verify_advert(VALUE, vm)

    def test_another_context(self) -> None:
        assert verify_advert(signed(inside()), VM)
        with pytest.raises(MessageError, match="signature"):
            verify_advert(signed(inside(), RECEIPT_CONTEXT), VM)

    def test_another_identity_than_the_signer(self) -> None:
        with pytest.raises(MessageError, match="signature"):
            verify_advert(signed(inside(), identity=Identity.generate()), VM)

    def test_another_identity_shows(self) -> None:
        other = Identity.generate()
        value = signed(inside(identity=encode_base64(other.public)), identity=other)
        assert verify_advert(value, VM).identity == other.public != IDENTITY.public

    def test_any_bit_of_signature_and_signed_text(self) -> None:
        members = json.loads(VALUE)
        believed = []
        for name in ("signed", "signature"):
            for bit in range(len(members[name]) * 7):
                text = members[name]
                position = bit // 7
                changed = text[:position] + chr(ord(text[position]) ^ 1 << bit % 7) + text[position + 1 :]
                try:
                    verify_advert(dumps({**members, name: changed}).encode(), VM)
                except MessageError:
                    continue
                believed.append((name, bit))
        assert believed == []

    @pytest.mark.parametrize(
        "changes",
        [
            {"v": 1},
            {"v": 3},
            {"v": "2"},
            {"version": 1},
            {"boot_id": None},
            {"features": "x"},
            {"features": [1]},
            {"vm": None},
            {"identity": "AAAA"},
            {"identity": encode_base64(bytes(33))},
            {"key": None},
            {"key": {"id": KEY.id}},
            {"key": {"id": KEY.id.upper(), "public": encode_base64(KEY.public)}},
            {"key": {"id": KEY.id, "public": encode_base64(bytes(31))}},
            {"issued": 1.5},
            {"issued": -1},
            {"issued": True},
        ],
    )
    def test_what_is_wrong_although_signed(self, changes: dict[str, object]) -> None:
        with pytest.raises(MessageError):
            verify_advert(signed(inside(**changes)), VM)

    @pytest.mark.parametrize("changes", [{"v": 1}, {"v": 3}, {"signed": 1}, {"signature": ""}, {"signed": "\ud800"}])
    def test_what_is_wrong_outside(self, changes: dict[str, object]) -> None:
        with pytest.raises(MessageError) as caught:
            verify_advert(dumps({**json.loads(VALUE), **changes}).encode(), VM)
        assert not isinstance(caught.value, NotSealed)

    def test_an_old_agent_is_told_from_a_broken_advert(self) -> None:
        with pytest.raises(NotSealed):
            verify_advert(encode_advert(ADVERT), VM)

    @pytest.mark.parametrize("value", NO_OBJECTS)
    def test_no_object(self, value: bytes) -> None:
        with pytest.raises(MessageError):
            verify_advert(value, VM)

    @settings(deadline=None, max_examples=400)
    @given(
        st.binary(max_size=100)
        | JSON.map(lambda value: json.dumps(value).encode())
        | st.dictionaries(st.sampled_from(sorted(inside())), JSON).map(lambda changes: signed(inside(**changes)))
    )
    def test_anything_is_verified_or_refused(self, untrusted_value: bytes) -> None:
        try:
            verify_advert(untrusted_value, VM)
        except MessageError as error:
            assert error.code == "bad_request"

    @pytest.mark.parametrize("key_id", ["", "0" * 15, "0" * 17, "G" * 16, "0" * 16 + "\n"])
    def test_no_key_id(self, key_id: str) -> None:
        with pytest.raises(MessageError):
            SealingKey(key_id, bytes(32))
