from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from passlib.hash import sha512_crypt

from agent_protocol.legacy import AgentExchange, HostExchange
from agent_protocol.outcomes import Refused
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context

# Made with the openssl program: the public number of a host, and what it sent to an agent with this exponent.
HOST_PUBLIC = "91223846617219412420445662667177"
AGENT_PRIVATE = 98765432109876543210987654321
AGENT_PUBLIC = "114342722885734697350371290720355"


def roots_hash(root: Path) -> str:
    lines = (root / "etc/shadow").read_text().splitlines()
    return next(line.split(":")[1] for line in lines if line.startswith("root:"))


@pytest.mark.parametrize("ciphertext", ["KDlA+NyL7vq+mSdQ9bncZw==", "+9HTaQLPSiaNghXSoCte5g=="], ids=["md5", "sha256"])
def test_vectors_of_both_derivations(context: Context, root: Path, ciphertext: str) -> None:
    context.exchange = AgentExchange(private=AGENT_PRIVATE)
    assert COMMANDS["keyinit"](context, HOST_PUBLIC).message == AGENT_PUBLIC
    assert COMMANDS["password"](context, ciphertext).message == ""
    assert sha512_crypt.verify("Passw0rd!", roots_hash(root))


def keyed(context: Context) -> tuple[HostExchange, str]:
    exchange = HostExchange()
    return exchange, COMMANDS["keyinit"](context, exchange.public).message


@pytest.mark.parametrize("bad", ["", "not base64!", "AAAA", "A" * 3000, "AAAAAAAAAAAAAAAAAAAAAA=="])
def test_a_failed_attempt_uses_the_key_up(context: Context, root: Path, bad: str) -> None:
    exchange, public = keyed(context)
    with pytest.raises(Refused):
        COMMANDS["password"](context, bad)
    with pytest.raises(Refused) as caught:
        COMMANDS["password"](context, exchange.seal("fine", public))
    assert caught.value.code == "no_key"
    assert roots_hash(root) == "!"


@pytest.mark.parametrize("bad", ["", "0", "1", "x", "9" * 4000, "162259276829213363391578010288126"])
def test_a_failed_key_exchange_drops_the_older_key(context: Context, bad: str) -> None:
    exchange, public = keyed(context)
    with pytest.raises(Refused):
        COMMANDS["keyinit"](context, bad)
    with pytest.raises(Refused) as caught:
        COMMANDS["password"](context, exchange.seal("fine", public))
    assert caught.value.code == "no_key"


@pytest.mark.parametrize("password", ["p" * 257, "ü" * 129])
def test_passwords_out_of_bounds(context: Context, root: Path, password: str) -> None:
    exchange, public = keyed(context)
    with pytest.raises(Refused) as caught:
        COMMANDS["password"](context, exchange.seal(password, public))
    assert caught.value.code == "bad_password"
    assert password not in repr(caught.value)
    assert roots_hash(root) == "!"


def test_the_policys_words_reach_the_host(context: Context, root: Path) -> None:
    (root / "etc/login.defs").write_text("PASS_MIN_LEN 10\n")
    exchange, public = keyed(context)
    with pytest.raises(Refused, match="PASS_MIN_LEN") as caught:
        COMMANDS["password"](context, exchange.seal("short", public))
    assert caught.value.code == "password_policy"


# Sealed


def sealed(context: Context, **members: object) -> Mapping[str, object]:
    return SEALED_COMMANDS["password"](context, json.dumps(members)).data


def shadow_of(root: Path, user: str) -> list[str]:
    lines = (root / "etc/shadow").read_text().splitlines()
    return next(line.split(":") for line in lines if line.startswith(user + ":"))


def test_the_administrators_by_default(context: Context, root: Path) -> None:
    assert sealed(context, value="correct horse") == {"user": "root"}
    assert sha512_crypt.verify("correct horse", shadow_of(root, "root")[1])


def test_another_users_hash_that_expires(context: Context, root: Path) -> None:
    hashed = sha512_crypt.using(rounds=1000).hash("known")
    assert sealed(context, user="ann", hash=hashed, expire=True) == {"user": "ann"}
    assert shadow_of(root, "ann")[1:3] == [hashed, "0"]
    assert shadow_of(root, "root")[1] == "!"


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({}, "bad_arguments"),
        ({"value": "x", "hash": "$6$salt$" + "a" * 86}, "bad_arguments"),
        ({"value": ""}, "bad_arguments"),
        ({"value": 5}, "bad_arguments"),
        ({"value": "x", "expire": "yes"}, "bad_arguments"),
        ({"value": "x", "expire": 1}, "bad_arguments"),
        ({"value": "x", "expire": None}, "bad_arguments"),
        ({"value": "x", "other": 1}, "bad_arguments"),
        ({"value": "a\nroot:b"}, "bad_password"),
        ({"hash": "plain"}, "bad_hash"),
        ({"value": "x", "user": "a:b"}, "bad_user_name"),
        ({"value": "x", "user": "nobody"}, "no_such_user"),
    ],
)
def test_bad_sealed_arguments(context: Context, root: Path, members: dict[str, object], code: str) -> None:
    before = (root / "etc/shadow").read_bytes()
    with pytest.raises(Refused) as caught:
        sealed(context, **members)
    assert caught.value.code == code
    assert (root / "etc/shadow").read_bytes() == before
