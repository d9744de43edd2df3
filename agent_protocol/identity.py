"""Who an agent is: a long-lived Ed25519 key, made at its first start, and the statements that it signs.

A statement is a JSON text with a signature over the text as it stands, so nobody has to agree on one way to spell
JSON. The signature also covers what kind of statement it is: a receipt can never pass for an advert.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from .digests import sha256
from .messages import MessageError
from .primitives import Ed25519PrivateKey, Ed25519PublicKey, InvalidSignature, guarded
from .raw_keys import raw_private, raw_public
from .strict import Members, dumps, encode_base64

PROTOCOL = 2
"""The version of the sealed protocol: `v` in everything that belongs to it."""

IDENTITY_SIZE = 32
"""Bytes of an Ed25519 public key, and of a private one."""

ADVERT_CONTEXT = b"advert"
RECEIPT_CONTEXT = b"receipt"

_SIGNATURE_SIZE = 64


def _covered(context: bytes, text: str) -> bytes:
    return b"xenward 2 " + context + b"\0" + text.encode("utf-8")


class Identity:
    """An agent's identity: the private half. It shows in repr by its fingerprint only."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = raw_public(private.public_key())
        """The public half, 32 bytes: what a host pins."""

    @classmethod
    @guarded
    def generate(cls) -> Identity:
        """A new identity."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    @guarded
    def from_private_bytes(cls, untrusted_data: bytes) -> Identity:
        """The identity that private_bytes gave. MessageError unless it is 32 bytes."""
        try:
            return cls(Ed25519PrivateKey.from_private_bytes(untrusted_data))
        except ValueError:
            raise MessageError(f"a private identity has {IDENTITY_SIZE} bytes") from None

    def private_bytes(self) -> bytes:
        """The private half, 32 bytes, for keeping where only the superuser can read it."""
        return raw_private(self._private)

    @guarded
    def statement(self, context: bytes, members: Mapping[str, object]) -> dict[str, object]:
        """The members `signed` and `signature` of a message that carries this statement."""
        text = dumps(members)
        return {"signed": text, "signature": encode_base64(self._private.sign(_covered(context, text)))}

    def __repr__(self) -> str:
        return f"Identity({fingerprint(self.public)})"


@guarded
def read_statement(context: bytes, untrusted_message: Members, identity: bytes | None) -> tuple[Members, bytes]:
    """The members of a message's signed statement, and the identity that signed it.

    identity: the one whose signature it must be; None for a statement that names its identity itself. MessageError when
    the signature is not by that identity, or is for another context.
    """
    text = untrusted_message.text("signed")
    signature = untrusted_message.data("signature", _SIGNATURE_SIZE)
    what = context.decode("ascii")
    signer = Members.loads(text, what).data("identity", IDENTITY_SIZE) if identity is None else identity
    try:
        Ed25519PublicKey.from_public_bytes(signer).verify(signature, _covered(context, text))
    except (InvalidSignature, ValueError):
        raise MessageError(f"the signature of the {what} is not by that identity") from None
    statement = Members.loads(text, what)
    statement.version(PROTOCOL)
    return statement, signer


def fingerprint(identity: bytes) -> str:
    """A public identity for people to compare, in OpenSSH's manner: `SHA256:` and base64 without padding."""
    return "SHA256:" + base64.b64encode(sha256(identity)).decode("ascii").rstrip("=")
