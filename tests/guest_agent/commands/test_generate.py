from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from passlib.hash import sha512_crypt

from agent_protocol import hpke
from agent_protocol.outcomes import Refused
from guest_agent.commands import SEALED_COMMANDS, Context
from guest_agent.commands.generate import CLASSES, generate

OAEP = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def line(public: Any) -> str:
    return str(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


def ask(context: Context, **members: object) -> tuple[str, bytes]:
    data = SEALED_COMMANDS["password_generate"](context, json.dumps(members)).data
    assert set(data) == {"user", "ciphertext"}
    return str(data["user"]), base64.b64decode(str(data["ciphertext"]))


def hash_of(root: Path, user: str) -> str:
    lines = (root / "etc/shadow").read_text().splitlines()
    return next(entry.split(":")[1] for entry in lines if entry.startswith(user + ":"))


def test_passwords() -> None:
    made = {generate().value for _ in range(200)}
    assert len(made) == 200
    for password in made:
        assert len(password) == 20
        assert all(set(password) & set(characters) for characters in CLASSES)
        assert set(password) <= set("".join(CLASSES))


@pytest.mark.parametrize("user", [None, "ann"])
def test_sealed_to_the_callers_key(context: Context, root: Path, user: str | None) -> None:
    private = X25519PrivateKey.generate()
    public = base64.b64encode(private.public_key().public_bytes_raw()).decode()
    told, box = ask(context, hpke=public, **({} if user is None else {"user": user}))
    assert told == (user or "root")
    password = hpke.open_box(private, b"xenward 2 password\0" + told.encode(), box).decode()
    assert sha512_crypt.verify(password, hash_of(root, told))


@pytest.mark.parametrize(("name", "scheme"), [(None, OAEP), ("oaep", OAEP), ("pkcs1v15", padding.PKCS1v15())])
def test_encrypted_to_an_ssh_key(
    context: Context, root: Path, rsa_key: rsa.RSAPrivateKey, name: str | None, scheme: padding.AsymmetricPadding
) -> None:
    members = {} if name is None else {"padding": name}
    _, ciphertext = ask(context, ssh_rsa=line(rsa_key.public_key()) + " a comment", **members)
    assert sha512_crypt.verify(rsa_key.decrypt(ciphertext, scheme).decode(), hash_of(root, "root"))


def test_the_policy_is_met(context: Context, root: Path, rsa_key: rsa.RSAPrivateKey) -> None:
    (root / "etc/login.defs").write_text("PASS_MIN_LEN 30\n")
    _, ciphertext = ask(context, ssh_rsa=line(rsa_key.public_key()))
    assert len(rsa_key.decrypt(ciphertext, OAEP)) == 30


def test_bad_arguments_change_nothing(context: Context, root: Path, rsa_key: rsa.RSAPrivateKey) -> None:
    small = line(rsa.generate_private_key(65537, 1024).public_key())
    edwards = line(ed25519.Ed25519PrivateKey.generate().public_key())
    good = line(rsa_key.public_key())
    blob = len(b"ssh-rsa").to_bytes(4, "big") + b"ssh-rsa" + b"\0\0\0\1\3" + b"\0\0\0\1"
    hpke_key = base64.b64encode(bytes(range(32))).decode()
    cases: list[tuple[dict[str, object], str]] = [
        ({}, "bad_arguments"),
        ({"hpke": hpke_key, "ssh_rsa": good}, "bad_arguments"),
        ({"hpke": hpke_key, "padding": "oaep"}, "bad_arguments"),
        ({"ssh_rsa": good, "padding": "none"}, "bad_arguments"),
        ({"ssh_rsa": good, "value": "mine"}, "bad_arguments"),
        ({"ssh_rsa": 5}, "bad_arguments"),
        ({"hpke": "?"}, "bad_arguments"),
        ({"hpke": "AAAA"}, "bad_public_key"),
        ({"hpke": base64.b64encode(bytes(32)).decode()}, "bad_public_key"),
        ({"ssh_rsa": small}, "bad_key"),
        ({"ssh_rsa": edwards}, "bad_key"),
        ({"ssh_rsa": "ssh-rsa " + base64.b64encode(blob).decode()}, "bad_key"),
        ({"ssh_rsa": "ssh-rsa AAAA"}, "bad_key"),
        ({"ssh_rsa": good + "\n" + good}, "bad_key"),
        ({"ssh_rsa": 'command="x" ' + good}, "bad_key"),
        ({"ssh_rsa": good, "user": "a:b"}, "bad_user_name"),
        ({"ssh_rsa": good, "user": "nobody"}, "no_such_user"),
    ]
    before = (root / "etc/shadow").read_bytes()
    for members, code in cases:
        with pytest.raises(Refused) as caught:
            ask(context, **members)
        assert caught.value.code == code, members
    assert (root / "etc/shadow").read_bytes() == before
