from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from passlib.hash import sha512_crypt

from agent_protocol import hpke
from agent_protocol.agent_keys import MAX_AGE, AgentKeys
from agent_protocol.identity import Identity
from agent_protocol.messages import (
    ADVERT,
    CLAIMS,
    MAX_VALUE,
    REPLIES,
    Advert,
    encode_advert,
    new_request_id,
    parse_advert,
)
from agent_protocol.outcomes import Outcome
from guest_agent import VERSION, memory
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Command, Context, Result, features
from guest_agent.sealed import SealedRequests

from .conftest import ANNOUNCED, VM, AgentProcess, Host, agent_in_thread, ssh_key
from .sealing import Asked, SealedHost
from .test_agent import BLOCKING, StartAgent, blocked, refusing

OTHER_VM = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def sealed(agent: AgentProcess, host: Host) -> SealedHost:
    return SealedHost(host)


def shadow_of(root: Path, user: str) -> list[str]:
    lines = (root / "etc/shadow").read_text().splitlines()
    return next(line.split(":") for line in lines if line.startswith(user + ":"))


# Round trips


def test_every_command_sealed(agent: AgentProcess, sealed: SealedHost, root: Path) -> None:
    (root / "etc/os-release").write_text("ID=test\nVERSION_ID='1'\nPRETTY_NAME=\"Test 1\"\nOTHER=x\n")
    (root / "etc/hostname").write_text("web-1\n")
    ping = sealed.ask("ping")
    assert ping.outcome is Outcome.SUCCEEDED
    assert abs(ping.data["time"] - time.time()) < 5  # type: ignore[operator]
    assert sealed.ask("version").data == {"version": VERSION}
    told = sealed.ask("features").data["features"]
    assert told == list(ANNOUNCED)
    info = dict(sealed.ask("info").data)
    assert info.pop("boot_id") == sealed.advert().boot_id
    release = {"ID": "test", "VERSION_ID": "1", "PRETTY_NAME": "Test 1"}
    assert info == {"version": VERSION, "vm": VM, "os": release, "hostname": "web-1"}
    put = sealed.ask("file_put", {"path": "/etc/f", "content": base64.b64encode(b"s3cret").decode(), "mode": "0640"})
    assert (put.outcome, (root / "etc/f").read_bytes()) == (Outcome.SUCCEEDED, b"s3cret")
    assert sealed.ask("ssh_keys", {"user": "ann", "add": [ssh_key(1)]}).data == {"added": 1, "removed": 0}
    assert sealed.ask("password", {"value": "correct horse"}).data == {"user": "root"}
    assert sha512_crypt.verify("correct horse", shadow_of(root, "root")[1])
    private = X25519PrivateKey.generate()
    public = base64.b64encode(private.public_key().public_bytes_raw()).decode()
    made = sealed.ask("password_generate", {"user": "ann", "hpke": public}).data
    generated = hpke.open_box(private, b"xenward 2 password\0ann", base64.b64decode(str(made["ciphertext"])))
    assert sha512_crypt.verify(generated.decode(), shadow_of(root, "ann")[1])
    agent.end()
    assert not any(secret in agent.log for secret in ("s3cret", "czNjcmV0", "correct horse", generated.decode()))
    sealed.host.assert_nothing_left()


def test_what_can_be_asked_in_one_form_only(sealed: SealedHost, host: Host) -> None:
    for name in ("keyinit", "injectfile", "sealed", "", "__class__", "VERSION"):
        result = sealed.ask(name)
        assert (result.outcome, result.code) == (Outcome.UNSUPPORTED, "unknown_command"), name
    for name in ("ping", "info", "password_generate"):
        assert host.ask(name)["code"] == "unknown_command"


def test_errors_come_with_their_words(sealed: SealedHost, root: Path) -> None:
    result = sealed.ask("password", {"user": "nobody", "value": "pw"})
    assert (result.outcome, result.code, result.message) == (
        Outcome.REFUSED,
        "no_such_user",
        "this guest has no user 'nobody'",
    )
    assert sealed.ask("password", "{").code == "bad_arguments"


def test_the_old_protocol_is_still_served(sealed: SealedHost, host: Host) -> None:
    assert host.ask("version") == {"returncode": "0", "message": VERSION, "outcome": "succeeded"}
    assert sealed.ask("ping").outcome is Outcome.SUCCEEDED


# Keys and the advert


def test_the_advert(sealed: SealedHost, host: Host) -> None:
    value = host.read(ADVERT) or b""
    assert len(value) <= MAX_VALUE
    outside, inside = parse_advert(value), sealed.advert()
    expected = (VERSION, ANNOUNCED)
    assert (outside.version, outside.features) == (inside.version, inside.features) == expected
    assert abs(inside.issued - time.time()) < 5


def test_each_receipt_brings_the_next_key(sealed: SealedHost, host: Host) -> None:
    used = set()
    for _ in range(4):
        used.add(sealed.key.id)
        assert sealed.ask("ping").outcome is Outcome.SUCCEEDED
    assert len(used) == 4
    host.wait(lambda: sealed.advert().key == sealed.key, "the advert with the current key")


def test_a_key_from_before_the_last_one_is_unknown(sealed: SealedHost) -> None:
    first = sealed.key
    for _ in range(2):
        sealed.ask("ping")
    result = sealed.ask("ping", key=first)
    assert (result.outcome, result.code) == (Outcome.REFUSED, "unknown_key")
    assert sealed.ask("ping").outcome is Outcome.SUCCEEDED


def test_the_previous_key_is_honoured(sealed: SealedHost) -> None:
    first = sealed.key
    sealed.ask("ping")
    assert sealed.ask("ping", key=first).outcome is Outcome.SUCCEEDED


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_keys_age(context: Context) -> None:
    clock = Clock()
    context.vm = VM
    requests = SealedRequests(Identity.generate(), SEALED_COMMANDS, context, AgentKeys(VM, clock))
    first = requests.key_id
    assert requests.seconds_until_rotation() == MAX_AGE
    clock.now += MAX_AGE - 1
    requests.rotate_if_old()
    assert (requests.key_id, requests.seconds_until_rotation()) == (first, 1)
    clock.now += 1
    requests.rotate_if_old()
    assert requests.key_id != first


def test_an_idle_agent_renews_key_and_advert(host: Host, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_protocol.agent_keys.MAX_AGE", 0.3)
    with agent_in_thread(host, context, COMMANDS):
        sealed = SealedHost(host)
        first = sealed.key
        host.wait(lambda: sealed.advert().key != first, "another key")
        assert sealed.ask("ping", key=first).outcome is Outcome.SUCCEEDED


def test_the_conversation_goes_on_without_an_advert(
    host: Host, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    with agent_in_thread(host, context, COMMANDS):
        sealed = SealedHost(host)
        refused = threading.Event()
        relent = refusing(ADVERT, refused, monkeypatch)
        for _ in range(3):
            assert sealed.ask("ping").outcome is Outcome.SUCCEEDED
        assert refused.is_set()
        assert sealed.advert().key != sealed.key
        relent()
        # Removing an old reply makes room, and is all that the host does.
        host.write(f"{REPLIES}/old", b"{}")
        host.remove(f"{REPLIES}/old")
        host.wait(lambda: sealed.advert().key == sealed.key, "the advert")


def test_expired_tells_the_agents_clock(sealed: SealedHost) -> None:
    asked = sealed.seal("ping", expires=time.time() - 1)
    sealed.send(asked)
    receipt, result = sealed.finish(asked)
    assert (result.outcome, result.code) == (Outcome.REFUSED, "expired")
    assert abs(receipt.now - time.time()) < 5


# Replay, restart


def counted(runs: list[str]) -> dict[str, Command]:
    def count(context: Context, untrusted: str) -> Result:
        runs.append(untrusted)
        return Result()

    return {"count": Command("count", count)}


def test_replayed_requests_change_nothing(host: Host, context: Context) -> None:
    runs: list[str] = []
    with agent_in_thread(host, context, COMMANDS, counted(runs)):
        sealed = SealedHost(host)
        first = sealed.seal("count", "once")
        sealed.send(first)
        assert sealed.finish(first)[1].outcome is Outcome.SUCCEEDED

        sealed.send(first)
        again = sealed.finish(first)[1]
        assert (again.outcome, again.code) == (Outcome.UNKNOWN, "request_id_reused")

        elsewhere = Asked(new_request_id(), first.box, first.message)
        sealed.send(elsewhere)
        moved = sealed.finish(elsewhere)[1]
        assert (moved.outcome, moved.code) == (Outcome.REFUSED, "bad_box")

    with agent_in_thread(host, context, COMMANDS, counted(runs)):
        sealed = SealedHost(host)
        sealed.send(first)
        restarted = sealed.finish(first)[1]
        assert (restarted.outcome, restarted.code) == (Outcome.REFUSED, "unknown_key")
    assert runs == ["once"]


def test_replay_of_an_id_that_the_agent_forgot(host: Host, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    monkeypatch.setattr(memory, "MAX_REMEMBERED", 1)
    with agent_in_thread(host, context, COMMANDS, counted(runs)):
        sealed = SealedHost(host)
        first = sealed.seal("count", "once")
        sealed.send(first)
        sealed.finish(first)
        host.ask("version")
        sealed.send(first)
        again = sealed.finish(first)[1]
        assert (again.outcome, again.code) == (Outcome.UNKNOWN, "replayed")
        for _ in range(2):
            sealed.ask("count", "other")
        sealed.send(first)
        assert sealed.finish(first)[1].code == "unknown_key"
    assert runs == ["once", "other", "other"]


def test_a_leftover_claim_gets_a_receipt(start_agent: StartAgent, host: Host, root: Path) -> None:
    killed, _ = blocked(start_agent, host, root)
    sealed = SealedHost(host)
    asked = sealed.seal("block")
    sealed.send(asked)
    (root / "blocked").unlink()
    host.wait(lambda: sealed.replied(asked.request_id), "the first run's reply")
    # As if it had died before it could answer: request and claim are there, the reply is not.
    killed.process.kill()
    killed.process.wait()
    host.remove(f"{REPLIES}/{asked.request_id}")
    host.send_bytes(asked.message.node, asked.request_id)
    host.write(f"{CLAIMS}/{asked.request_id}", b"")
    host.remove(ADVERT)
    before = (root / "effects").read_text()
    start_agent(BLOCKING)
    host.wait_for_agent()
    receipt, result = sealed.finish(asked)
    assert (result.outcome, result.code) == (Outcome.UNKNOWN, "agent_restarted")
    assert (root / "effects").read_text() == before
    assert SealedHost(host).identity == sealed.identity
    assert sealed.ask("ping", key=receipt.next_key).outcome is Outcome.SUCCEEDED


def test_panics_are_answered_and_sealed(host: Host, context: Context, caplog: pytest.LogCaptureFixture) -> None:
    def crash(context: Context, untrusted: str) -> Result:
        raise BaseException("s3cret " + untrusted)

    with agent_in_thread(host, context, COMMANDS, {"crash": Command("crash", crash)}):
        result = SealedHost(host).ask("crash", "v4lue")
    assert (result.outcome, result.code) == (Outcome.FAILED, "internal_error")
    assert "s3cret" not in caplog.text + result.message
    assert "v4lue" not in caplog.text
    assert "BaseException < crash (" in caplog.text


def test_a_reply_too_large_is_no_success(host: Host, context: Context) -> None:
    large = Command("large", lambda context, untrusted: Result("", {"text": "x" * 300_000}))
    with agent_in_thread(host, context, COMMANDS, {"large": large}):
        result = SealedHost(host).ask("large")
    assert (result.outcome, result.code) == (Outcome.FAILED, "reply_too_large")


# Which VM this is


def test_without_a_uuid_only_the_old_protocol(host: Host, context: Context, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    host.remove("vm")
    with agent_in_thread(host, context, COMMANDS):
        host.wait_for_agent()
        expected = Advert("1.2.3", context.system.boot_id(), features(COMMANDS))
        assert host.read(ADVERT) == encode_advert(expected)
        assert host.ask("version")["returncode"] == "0"
        assert host.ask("sealed", "{}")["code"] == "unknown_command"
    assert "only the old protocol" in caplog.text
    assert not (Path(context.system.root) / "var").exists()


@pytest.mark.parametrize("node", ["", "/vm/", VM, f"/vm/{VM}x", f"/vm/{VM.upper()}", "/vm/\xff", f"/x/{VM}"])
def test_what_is_no_uuid(host: Host, context: Context, node: str) -> None:
    host.write("vm", node.encode("latin-1"))
    with agent_in_thread(host, context, COMMANDS):
        host.wait_for_agent()
        assert parse_advert(host.read(ADVERT) or b"").features == features(COMMANDS)


def test_a_guest_copied_while_it_ran_becomes_another(host: Host, context: Context) -> None:
    with agent_in_thread(host, context, COMMANDS):
        before = SealedHost(host)
        host.become(OTHER_VM)
        host.remove(ADVERT)  # as a new domain's tree has none
        host.wait_for_agent()
        host.become(VM)
        host.remove(ADVERT)
        host.wait_for_agent()
        after = SealedHost(host)
        assert after.identity != before.identity
        assert after.ask("ping").outcome is Outcome.SUCCEEDED
