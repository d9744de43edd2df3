"""Sealing to a public key, so that one key's holder can open it: HPKE (RFC 9180), base mode, single shot.

The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, with empty associated data; a box is enc (32 bytes)
followed by the ciphertext. Base mode says nothing about who sealed: whoever has the public key can.

`seal` and `open_box` are cryptography's own where it brings HPKE (since 47), and otherwise composed here from its
X25519, HKDF and AES-GCM. Both make the same boxes; which one runs is decided once, when this module is imported.
"""

from __future__ import annotations

from typing import Any

from .digests import hmac_sha256
from .outcomes import Refused
from .primitives import AESGCM, SHA256, HKDFExpand, InvalidTag, X25519PrivateKey, X25519PublicKey, guarded, missing
from .raw_keys import raw_public

KEY_SIZE = 32
"""Bytes of an X25519 public key, and so of enc (Npk and Nenc of RFC 9180, section 7.1)."""

TAG_SIZE = 16
"""Bytes that AES-GCM adds to a plaintext (Nt of RFC 9180, section 7.3)."""

OVERHEAD = KEY_SIZE + TAG_SIZE
"""Bytes by which a box is longer than what it holds."""

_SECRET_SIZE = 32
_NONCE_SIZE = 12
_AEAD_KEY_SIZE = 32
_AEAD_IDS = {16: 1, 32: 2}
"""RFC 9180's number for AES-GCM by the size of its key."""

_KEM_SUITE = b"KEM" + (0x0020).to_bytes(2, "big")
_KDF_ID = (0x0001).to_bytes(2, "big")
_BASE_MODE = b"\0"


class BoxError(Refused):
    """Raised when a box does not open, for whatever reason: an opener that told which would help to guess."""

    def __init__(self) -> None:
        super().__init__("bad_box", "the box does not open: it was not sealed to this key, or was changed on the way")


def _bad_public_key() -> Refused:
    return Refused("bad_public_key", "the public key is not one that anything can be sealed to")


def _labelled(suite: bytes, label: bytes, data: bytes) -> bytes:
    return b"HPKE-v1" + suite + label + data


def _extract(suite: bytes, salt: bytes, label: bytes, data: bytes) -> bytes:
    """LabeledExtract of RFC 9180, section 4."""
    return hmac_sha256(salt, _labelled(suite, label, data))


def _expand(suite: bytes, secret: bytes, label: bytes, data: bytes, size: int) -> bytes:
    """LabeledExpand of RFC 9180, section 4."""
    info = size.to_bytes(2, "big") + _labelled(suite, label, data)
    return HKDFExpand(SHA256(), size, info).derive(secret)


def _shared_secret(own: X25519PrivateKey, other: bytes, enc: bytes, recipient: bytes) -> bytes:
    """What both sides know: ExtractAndExpand of section 4.1. ValueError for a public key that isn't one, such as those
    of low order, which give the same number to everybody."""
    agreed = own.exchange(X25519PublicKey.from_public_bytes(other))
    return _expand(
        _KEM_SUITE, _extract(_KEM_SUITE, b"", b"eae_prk", agreed), b"shared_secret", enc + recipient, _SECRET_SIZE
    )


def _key_schedule(shared_secret: bytes, info: bytes, key_size: int) -> tuple[bytes, bytes]:
    """Key and first nonce: KeySchedule of section 5.1 in base mode, where psk and psk_id are empty.

    key_size: that of the AES-GCM key in bytes.
    """
    suite = b"HPKE" + _KEM_SUITE[3:] + _KDF_ID + _AEAD_IDS[key_size].to_bytes(2, "big")
    context = _BASE_MODE + _extract(suite, b"", b"psk_id_hash", b"") + _extract(suite, b"", b"info_hash", info)
    secret = _extract(suite, shared_secret, b"secret", b"")
    key = _expand(suite, secret, b"key", context, key_size)
    return key, _expand(suite, secret, b"base_nonce", context, _NONCE_SIZE)


@guarded
def composed_seal(
    public: bytes,
    info: bytes,
    plaintext: bytes,
    *,
    _ephemeral: X25519PrivateKey | None = None,
    _key_size: int = _AEAD_KEY_SIZE,
    _associated_data: bytes = b"",
) -> bytes:
    """As `seal`, from X25519, HKDF and AES-GCM. What is private in the signature is fixed by RFC 9180's vectors."""
    ephemeral = _ephemeral or X25519PrivateKey.generate()
    enc = raw_public(ephemeral.public_key())
    try:
        shared_secret = _shared_secret(ephemeral, public, enc, public)
    except ValueError:
        raise _bad_public_key() from None
    key, nonce = _key_schedule(shared_secret, info, _key_size)
    return enc + AESGCM(key).encrypt(nonce, plaintext, _associated_data)


@guarded
def composed_open(
    private: X25519PrivateKey,
    info: bytes,
    box: bytes,
    *,
    _key_size: int = _AEAD_KEY_SIZE,
    _associated_data: bytes = b"",
) -> bytes:
    """As `open_box`, from X25519, HKDF and AES-GCM. What is private in the signature is fixed by RFC 9180's vectors."""
    if len(box) < OVERHEAD:
        raise BoxError
    enc, ciphertext = box[:KEY_SIZE], box[KEY_SIZE:]
    try:
        shared_secret = _shared_secret(private, enc, enc, raw_public(private.public_key()))
        key, nonce = _key_schedule(shared_secret, info, _key_size)
        return AESGCM(key).decrypt(nonce, ciphertext, _associated_data)
    except (ValueError, InvalidTag):
        raise BoxError from None


def _library_suite() -> Any:
    """cryptography's own suite, or None where it has none that works."""
    if missing() is not None:
        return None
    try:
        from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

        return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        # Releases without it raise ImportError, AttributeError or UnsupportedAlgorithm; a broken one, anything.
        return None


_SUITE = _library_suite()

HAS_LIBRARY = _SUITE is not None
"""Whether cryptography brings HPKE itself."""


@guarded
def library_seal(public: bytes, info: bytes, plaintext: bytes) -> bytes:
    """As `seal`, by cryptography itself. Only where HAS_LIBRARY."""
    try:
        box: bytes = _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(public), info=info)
    except ValueError:
        raise _bad_public_key() from None
    return box


@guarded
def library_open(private: X25519PrivateKey, info: bytes, box: bytes) -> bytes:
    """As `open_box`, by cryptography itself. Only where HAS_LIBRARY."""
    try:
        plaintext: bytes = _SUITE.decrypt(box, private, info=info)
    except (ValueError, InvalidTag):
        raise BoxError from None
    return plaintext


def seal(public: bytes, info: bytes, plaintext: bytes) -> bytes:
    """A box that only the holder of the private key opens, and only with the same `info`.

    public: 32 bytes of X25519. info: what the box is for; it is bound, not sent. Refused `bad_public_key` when nothing
    can be sealed to that key, because it has another size or is of low order.
    """
    return _seal(public, info, plaintext)


def open_box(private: X25519PrivateKey, info: bytes, box: bytes) -> bytes:
    """What was sealed with `info` to that key. BoxError when it does not open."""
    return _open(private, info, box)


_seal, _open = (library_seal, library_open) if HAS_LIBRARY else (composed_seal, composed_open)
