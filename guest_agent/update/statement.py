"""What whoever publishes updates signs: this version of the agent is the artefact with this checksum.

The text that is signed is made of both, and each pair has one spelling only, so it need not travel.
"""

from __future__ import annotations

from agent_protocol.identity import PROTOCOL, Identity, read_statement
from agent_protocol.messages import MessageError
from agent_protocol.outcomes import Refused
from agent_protocol.strict import SHA256_HEX, Members, dumps

from ..launch import parse_version

CONTEXT = b"update"
"""Sets these statements apart from the adverts and receipts that agents sign."""


def _members(version: str, sha256: str) -> dict[str, object]:
    return {"v": PROTOCOL, "version": version, "sha256": sha256}


def sign(private: Identity, version: str, sha256: str) -> str:
    """The signature in base64. ValueError for a version that is none, or a checksum that isn't 64 lower-case digits."""
    if parse_version(version) is None or not SHA256_HEX.match(sha256):
        raise ValueError("a version has three numbers, and a SHA-256 checksum 64 hexadecimal digits")
    return str(private.statement(CONTEXT, _members(version, sha256))["signature"])


def verify(key: bytes, untrusted_version: str, untrusted_sha256: str, untrusted_signature: str) -> None:
    """Refused (`bad_signature`) unless the holder of that Ed25519 key, 32 bytes, signed version and checksum."""
    message = {"signed": dumps(_members(untrusted_version, untrusted_sha256)), "signature": untrusted_signature}
    try:
        read_statement(CONTEXT, Members(message, "update"), key)
    except MessageError:
        raise Refused("bad_signature", "the signature is not one of this version and checksum by the key") from None
