from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent_protocol.identity import ADVERT_CONTEXT, PROTOCOL, Identity
from agent_protocol.outcomes import Refused
from agent_protocol.strict import encode_base64
from guest_agent.update.statement import sign, verify

KEY = Identity.from_private_bytes(b"\1" * 32)
SHA256 = "ab" * 32
SIGNATURE = sign(KEY, "1.20.3", SHA256)


def test_what_is_signed_is_fixed() -> None:
    # Agents in the field check this very text: a change of its spelling would make every update a stranger's.
    signed = b'xenward 2 update\0{"v":2,"version":"1.20.3","sha256":"' + SHA256.encode() + b'"}'
    assert encode_base64(Ed25519PrivateKey.from_private_bytes(b"\1" * 32).sign(signed)) == SIGNATURE
    verify(KEY.public, "1.20.3", SHA256, SIGNATURE)


@pytest.mark.parametrize(
    ("key", "version", "sha256", "signature"),
    [
        (Identity.from_private_bytes(b"\2" * 32).public, "1.20.3", SHA256, SIGNATURE),
        (b"\0" * 32, "1.20.3", SHA256, SIGNATURE),
        (KEY.public, "1.20.4", SHA256, SIGNATURE),
        (KEY.public, "1.20.3", "ac" + SHA256[2:], SIGNATURE),
        (KEY.public, "1.20.3", SHA256, "B" + SIGNATURE[1:] if SIGNATURE[0] != "B" else "C" + SIGNATURE[1:]),
        (KEY.public, "1.20.3", SHA256, SIGNATURE[:-4]),
        (KEY.public, "1.20.3", SHA256, SIGNATURE + "\n"),
        (KEY.public, "1.20.3", SHA256, ""),
        (KEY.public, "1.20.3", SHA256, "é" * 88),
    ],
    ids=[
        "another key",
        "no key",
        "another version",
        "another checksum",
        "changed",
        "cut",
        "spelt otherwise",
        "empty",
        "not ASCII",
    ],
)
def test_anything_else_is_refused(key: bytes, version: str, sha256: str, signature: str) -> None:
    with pytest.raises(Refused) as caught:
        verify(key, version, sha256, signature)
    assert caught.value.code == "bad_signature"


def test_a_statement_of_another_kind_is_none() -> None:
    members = {"v": PROTOCOL, "version": "1.20.3", "sha256": SHA256}
    with pytest.raises(Refused):
        verify(KEY.public, "1.20.3", SHA256, str(KEY.statement(ADVERT_CONTEXT, members)["signature"]))


@pytest.mark.parametrize(("version", "sha256"), [("1.2", SHA256), ("1.2.3", SHA256.upper()), ('1.2.3"', SHA256)])
def test_nonsense_is_not_signed(version: str, sha256: str) -> None:
    with pytest.raises(ValueError):
        sign(KEY, version, sha256)
