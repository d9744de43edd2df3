"""Secrets from the caller to the guest's agent, across a bus and a service of which none can read them."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Outcome, Unknown
from agent_protocol.sealed import SealedResult
from compute_driver.context import RequestContext
from compute_driver.db.repository import Repository

from .sealed_agent import EXCHANGED, GENERATED, UNSIGNED, Forgery, Told
from .sealed_driver import SealedDriver
from .wire import (
    CONTENT,
    FILE,
    KEYS,
    OPERATIONS,
    SECRET,
    Wire,
    calling,
    error_of,
    every_operation,
    rows,
)

# The way there and back


@every_operation
def test_it_is_one_question_and_one_order_and_is_recorded(
    caller: Any, wire: Wire, sealed_driver: SealedDriver, repository: Repository, action: str
) -> None:
    OPERATIONS[action](caller)
    assert wire.methods == ["get_agent", "send_sealed"]
    assert sealed_driver.steering.verbs == ["send_sealed"]
    assert set(sealed_driver.plugin.functions) == {"exchange"}
    assert rows(repository) == [(action, "succeeded", "")]


def test_the_agent_gets_what_was_meant(caller: Any, sealed_driver: SealedDriver) -> None:
    caller.set_password("web", Password(SECRET))
    caller.put_file("web", FILE)
    caller.add_ssh_keys("web", KEYS)
    (_, password), (_, file), (_, keys) = sealed_driver.agent.done
    assert [name for name, _ in sealed_driver.agent.done] == ["password", "file_put", "ssh_keys"]
    assert password == {"value": SECRET}
    assert keys == {"add": KEYS}
    assert (file["path"], file["mode"], file["owner"]) == ("/etc/motd", "0640", "ada:users")
    assert base64.b64decode(file["content"]) == CONTENT


def test_neither_service_nor_database_nor_log_nor_bus_holds_a_secret(
    bus_wire: Wire, sealed_driver: SealedDriver, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    wire, caller = bus_wire, calling(bus_wire)
    for operation in OPERATIONS.values():
        operation(caller)
    sealed_driver.agent.results["password"] = SealedResult(Outcome.FAILED, "broken", f"chpasswd: {SECRET}")
    with pytest.raises(Failed):
        caller.set_password("web", Password(SECRET))
    service_saw = repr(sealed_driver.steering.calls) + repr(sealed_driver.plugin.calls)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    everything = repr(wire.crossed) + service_saw + caplog.text + repr(stored)
    encoded = base64.b64encode(SECRET.encode()).decode()[:16], base64.b64encode(CONTENT).decode()[:16]
    for secret in ("hunter2", "aHVudGVy", GENERATED, *encoded, "chpasswd"):
        assert secret not in everything
    # It did go this way, in boxes.
    assert wire.methods.count("send_sealed") == 5
    assert len(sealed_driver.agent.done) == 4
    assert "set_admin_password" in caplog.text


def test_the_password_that_the_guest_made_is_told_to_the_caller_alone(caller: Any, sealed_driver: SealedDriver) -> None:
    assert caller.generate_password("web") == GENERATED
    ((name, value),) = sealed_driver.agent.done
    assert (name, list(value)) == ("password_generate", ["hpke"])
    # Each time for a key of its own.
    caller.generate_password("web")
    assert sealed_driver.agent.done[1] != sealed_driver.agent.done[0]


def test_the_password_that_the_guest_made_for_an_rsa_key_is_for_its_owner_alone(
    caller: Any, sealed_driver: SealedDriver
) -> None:
    private = rsa.generate_private_key(65537, 2048)
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    made = caller.generate_password_for_rsa("web", [public])
    assert sealed_driver.agent.done == [("password_generate", {"ssh_rsa": public})]
    assert set(made) == {"user", "ciphertext"}
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    assert private.decrypt(base64.b64decode(made["ciphertext"]), oaep) == GENERATED.encode()
    assert error_of(lambda: caller.generate_password_for_rsa("web", [])).code == "bad_key"
    assert error_of(lambda: caller.generate_password_for_rsa("web", [public, public])).code == "bad_key"
    assert len(sealed_driver.agent.done) == 1


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"user": "root"},
        {"user": 7, "ciphertext": "AAAA"},
        {"user": "root", "ciphertext": 7},
        {"user": "root", "ciphertext": ""},
        {"user": None, "ciphertext": None},
    ],
)
def test_a_made_password_that_is_none_is_unknown(
    caller: Any, sealed_driver: SealedDriver, data: dict[str, Any]
) -> None:
    sealed_driver.agent.results["password_generate"] = SealedResult(Outcome.SUCCEEDED, data=data)
    for operation in (
        lambda: caller.generate_password("web"),
        lambda: caller.generate_password_for_rsa("web", ["ssh-rsa AAAA"]),
    ):
        error = error_of(operation)
        assert (type(error), error.code) == (Unknown, "bad_reply")


@pytest.mark.parametrize("box", ["not base64!", "AAAA", base64.b64encode(bytes(64)).decode()])
def test_a_made_password_that_does_not_open_is_unknown(caller: Any, sealed_driver: SealedDriver, box: str) -> None:
    data = {"user": "root", "ciphertext": box}
    sealed_driver.agent.results["password_generate"] = SealedResult(Outcome.SUCCEEDED, data=data)
    assert error_of(lambda: caller.generate_password("web")).code == "bad_reply"


def test_a_made_password_that_would_play_tricks_on_a_terminal_is_unknown(
    caller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.compute_driver.sealed_agent.GENERATED", "\x1b]0;hunter2\a")
    assert error_of(lambda: caller.generate_password("web")).code == "bad_reply"


# What the agent, or somebody else, says


@pytest.mark.parametrize(
    ("action", "outcome"),
    list(zip([*OPERATIONS, *OPERATIONS], [o for o in Outcome if o not in (Outcome.SUCCEEDED, Outcome.UNREACHABLE)])),
)
def test_the_agents_own_words_are_for_the_caller(
    caller: Any, wire: Wire, sealed_driver: SealedDriver, repository: Repository, action: str, outcome: Outcome
) -> None:
    for name in ("password", "file_put", "ssh_keys", "password_generate"):
        sealed_driver.agent.results[name] = SealedResult(outcome, "some_code", "some words")
    error = error_of(lambda: OPERATIONS[action](caller))
    assert (error.outcome, error.code, error.message) == (outcome, "some_code", "some words")
    assert rows(repository) == [(action, str(outcome), "some_code")]
    assert "some words" not in repr(wire.crossed)


@pytest.mark.parametrize("forgery", UNSIGNED.values(), ids=UNSIGNED)
def test_a_reply_without_a_receipt_is_never_believed(
    caller: Any, sealed_driver: SealedDriver, repository: Repository, forgery: Forgery
) -> None:
    sealed_driver.plugin.forge = forgery
    error = error_of(lambda: caller.set_password("web", Password(SECRET)))
    assert (type(error), error.code) == (Unknown, "unsigned_reply")
    assert rows(repository) == [("set_admin_password", "unknown", "unsigned_reply")]


@pytest.mark.parametrize("forgery", EXCHANGED.values(), ids=EXCHANGED)
def test_a_box_that_is_not_what_was_signed_is_never_a_success(
    caller: Any, sealed_driver: SealedDriver, forgery: Forgery
) -> None:
    sealed_driver.plugin.forge = forgery
    error = error_of(lambda: caller.set_password("web", Password(SECRET)))
    assert (type(error), error.code) == (Unknown, "bad_reply")


@pytest.mark.parametrize("forgery", UNSIGNED.values(), ids=UNSIGNED)
def test_a_service_that_claims_a_success_is_not_believed_either(
    caller: Any, wire: Wire, sealed_driver: SealedDriver, forgery: Forgery, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = wire.order

    def order(context: RequestContext, method: str, **arguments: Any) -> Any:
        told = real(context, method, **arguments)
        reply = forgery(sealed_driver.agent, arguments["request_id"], Told(told["value"], told["box"]))
        return {"outcome": "succeeded", "code": "", "value": reply.value, "box": reply.box}

    monkeypatch.setattr(wire, "order", order)
    error = error_of(lambda: caller.set_password("web", Password(SECRET)))
    assert (type(error), error.code) == (Unknown, "unsigned_reply")
