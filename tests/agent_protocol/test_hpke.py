"""Sealing to a public key: RFC 9180's vectors, both implementations against each other, and what must not open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_protocol import hpke
from agent_protocol.hpke import BoxError
from agent_protocol.outcomes import Outcome, Refused

Seal = Callable[[bytes, bytes, bytes], bytes]
Open = Callable[[X25519PrivateKey, bytes, bytes], bytes]

VECTORS = json.loads(Path(__file__).with_name("hpke_vectors.json").read_text())["vectors"]
SEALERS: list[Seal] = [hpke.composed_seal] + ([hpke.library_seal] if hpke.HAS_LIBRARY else [])
OPENERS: list[Open] = [hpke.composed_open] + ([hpke.library_open] if hpke.HAS_LIBRARY else [])
KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()

P = 2**255 - 19
LOW_ORDER = [
    number.to_bytes(32, "little")
    for number in (
        0,
        1,
        P - 1,
        P,
        P + 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
]
"""The points of small order on Curve25519 and their other spellings below 2**255."""


def from_hex(vector: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(vector[name])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"aead {vector['aead_id']}")
class TestVectors:
    def test_shared_secret(self, vector: dict[str, Any]) -> None:
        enc, recipient = from_hex(vector, "enc"), from_hex(vector, "pkRm")
        for own, other in (("skEm", recipient), ("skRm", enc)):
            private = X25519PrivateKey.from_private_bytes(from_hex(vector, own))
            assert hpke._shared_secret(private, other, enc, recipient) == from_hex(vector, "shared_secret")

    def test_key_schedule_and_each_encryption(self, vector: dict[str, Any]) -> None:
        key, nonce = hpke._key_schedule(
            from_hex(vector, "shared_secret"), from_hex(vector, "info"), len(from_hex(vector, "key"))
        )
        assert (key, nonce) == (from_hex(vector, "key"), from_hex(vector, "base_nonce"))
        for number, encryption in enumerate(vector["encryptions"]):
            # Section 5.2: the nonce of message n is the first one xor n.
            own = (int.from_bytes(nonce, "big") ^ number).to_bytes(12, "big")
            plaintext, associated_data = from_hex(encryption, "pt"), from_hex(encryption, "aad")
            assert AESGCM(key).encrypt(own, plaintext, associated_data) == from_hex(encryption, "ct")

    def test_single_shot(self, vector: dict[str, Any]) -> None:
        first = vector["encryptions"][0]
        info, plaintext, aad = from_hex(vector, "info"), from_hex(first, "pt"), from_hex(first, "aad")
        size = len(from_hex(vector, "key"))
        box = hpke.composed_seal(
            from_hex(vector, "pkRm"),
            info,
            plaintext,
            _ephemeral=X25519PrivateKey.from_private_bytes(from_hex(vector, "skEm")),
            _key_size=size,
            _associated_data=aad,
        )
        assert box == from_hex(vector, "enc") + from_hex(first, "ct")
        private = X25519PrivateKey.from_private_bytes(from_hex(vector, "skRm"))
        assert hpke.composed_open(private, info, box, _key_size=size, _associated_data=aad) == plaintext


def test_the_library_is_taken_where_it_is() -> None:
    sealed_by = hpke.library_seal if hpke.HAS_LIBRARY else hpke.composed_seal
    assert hpke._seal is sealed_by
    assert hpke.open_box(KEY, b"info", hpke.seal(PUBLIC, b"info", b"text")) == b"text"


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100), st.binary(max_size=3000))
def test_each_opens_what_each_has_sealed(private: bytes, info: bytes, plaintext: bytes) -> None:
    key = X25519PrivateKey.from_private_bytes(private)
    for seal in SEALERS:
        box = seal(key.public_key().public_bytes_raw(), info, plaintext)
        assert len(box) == len(plaintext) + hpke.OVERHEAD
        for open_box in OPENERS:
            assert open_box(key, info, box) == plaintext


def test_no_two_boxes_are_alike() -> None:
    for seal in SEALERS:
        assert seal(PUBLIC, b"", b"text")[:32] != seal(PUBLIC, b"", b"text")[:32]


@pytest.mark.parametrize("open_box", OPENERS)
class TestWhatDoesNotOpen:
    BOX = hpke.composed_seal(PUBLIC, b"info", b"some text")

    def test_any_bit_flipped(self, open_box: Open) -> None:
        assert open_box(KEY, b"info", self.BOX) == b"some text"
        opened = []
        for bit in range(len(self.BOX) * 8):
            box = bytearray(self.BOX)
            box[bit // 8] ^= 1 << bit % 8
            try:
                open_box(KEY, b"info", bytes(box))
            except BoxError:
                continue
            opened.append(bit)
        assert opened == []

    def test_any_length(self, open_box: Open) -> None:
        for length in range(len(self.BOX)):
            with pytest.raises(BoxError):
                open_box(KEY, b"info", self.BOX[:length])
        with pytest.raises(BoxError):
            open_box(KEY, b"info", self.BOX + b"\0")

    @pytest.mark.parametrize("info", [b"", b"inf", b"info\0", b"Info"])
    def test_other_info(self, open_box: Open, info: bytes) -> None:
        with pytest.raises(BoxError):
            open_box(KEY, info, self.BOX)

    def test_another_key(self, open_box: Open) -> None:
        with pytest.raises(BoxError):
            open_box(X25519PrivateKey.generate(), b"info", self.BOX)

    @pytest.mark.parametrize("point", LOW_ORDER)
    def test_enc_of_low_order(self, open_box: Open, point: bytes) -> None:
        with pytest.raises(BoxError):
            open_box(KEY, b"info", point + self.BOX[32:])

    @settings(deadline=None, max_examples=500)
    @given(st.binary(max_size=200))
    def test_anything(self, open_box: Open, box: bytes) -> None:
        with pytest.raises(BoxError) as caught:
            open_box(KEY, b"info", box)
        assert (caught.value.outcome, caught.value.code) == (Outcome.REFUSED, "bad_box")
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("seal", SEALERS)
@pytest.mark.parametrize("public", [*LOW_ORDER, b"", PUBLIC[:31], PUBLIC + b"\0"])
def test_what_nothing_is_sealed_to(seal: Seal, public: bytes) -> None:
    with pytest.raises(Refused) as caught:
        seal(public, b"info", b"text")
    assert caught.value.code == "bad_public_key"
