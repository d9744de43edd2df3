"""Commands that give secrets to agents which can be sealed to, and those about the agents themselves."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent_protocol.identity import fingerprint
from agent_protocol.outcomes import Failed, Outcome, Refused, Unknown, Unreachable, Unsuccessful
from agent_protocol.sealed import SealedResult
from compute_driver.cli.base import EXIT_STATUS

from ..sealed_agent import GENERATED, SealedAgent
from .service import SECRET, Service, run, shown, types


@pytest.fixture
def agent(service: Service) -> SealedAgent:
    """The one in the guest, which the service has met."""
    service.agent = SealedAgent()
    return service.agent


# Agents


def test_an_agent_is_shown_with_what_it_is_pinned_to(
    service: Service, agent: SealedAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("agent", "show", "web", "-f", "json") == 0
    fields = shown(capsys)
    assert fields["fingerprint"] == fingerprint(agent.identity.public)
    assert (fields["version"], fields["protocol"], fields["guest"]) == ("2.0", "sealed", agent.vm)
    assert (fields["key_id"], fields["clock_offset"]) == (agent.keys.current.id, 5)
    assert "password_generate" in fields["features"]


def test_an_agent_that_was_never_met_cannot_be_shown(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("agent", "show", "web") == EXIT_STATUS[Outcome.REFUSED]
    told = capsys.readouterr()
    assert (told.out, "agent_unknown" in told.err) == ("", True)


def test_trust_pins_the_agent_and_shows_it(
    service: Service, agent: SealedAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("agent", "trust", "web", "-f", "json") == 0
    fields = shown(capsys)
    assert (fields["outcome"], fields["fingerprint"]) == ("succeeded", fingerprint(agent.identity.public))
    assert service.calls == [("trust_agent", {"target": "web"})]


@pytest.mark.parametrize("error", [Refused("bad_advert", "no"), Unreachable("agent_silent", "silence")])
def test_trust_tells_what_went_wrong(
    service: Service, agent: SealedAgent, capsys: pytest.CaptureFixture[str], error: Unsuccessful
) -> None:
    service.errors["trust_agent"] = error
    assert run("agent", "trust", "web", "-f", "json") == EXIT_STATUS[error.outcome]
    assert shown(capsys)["code"] == error.code


# Secrets


def test_a_password_goes_in_a_box(
    service: Service, agent: SealedAgent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    types(monkeypatch, SECRET + "\n")
    assert run("server", "password", "set", "web", "--password-stdin", "-f", "json") == 0
    assert agent.done == [("password", {"value": SECRET})]
    assert service.methods == ["send_sealed"]
    assert "hunter2" not in str(service.calls) + "".join(capsys.readouterr())


def test_a_file_goes_in_a_box(service: Service, agent: SealedAgent, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"hunter2 " * 1000)
    put = ("server", "file", "put", "web", str(tmp_path / "big"), "/etc/big", "--mode", "0600", "--owner", "ada")
    assert run(*put) == 0
    ((name, file),) = agent.done
    assert (name, file["path"], file["mode"], file["owner"]) == ("file_put", "/etc/big", "0600", "ada")
    assert base64.b64decode(file["content"]) == b"hunter2 " * 1000
    assert service.methods == ["send_sealed"]


@pytest.mark.parametrize("error", [Outcome.REFUSED, Outcome.FAILED, Outcome.UNKNOWN, Outcome.BUSY])
def test_the_agents_own_words_are_shown(
    service: Service, agent: SealedAgent, capsys: pytest.CaptureFixture[str], error: Outcome
) -> None:
    agent.results["password"] = SealedResult(error, "some_code", "some words")
    assert run("server", "password", "set", "web", "--generate", "-f", "json") == EXIT_STATUS[error]
    fields = shown(capsys)
    assert (fields["outcome"], fields["code"], fields["message"]) == (str(error), "some_code", "some words")
    assert "admin_password" not in fields


def test_the_guest_makes_a_password(service: Service, agent: SealedAgent, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("server", "password", "generate", "web", "-f", "json") == 0
    assert shown(capsys)["admin_password"] == GENERATED
    assert service.methods == ["send_sealed"]
    assert service.calls[0][1]["action"] == "generate_admin_password"
    assert GENERATED not in str(service.calls)


def test_the_guest_makes_a_password_for_an_ssh_key(
    service: Service, agent: SealedAgent, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    private = rsa.generate_private_key(65537, 2048)
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (tmp_path / "id_rsa.pub").write_bytes(b"# mine\n" + public + b" ada\n")
    assert run("server", "password", "generate", "web", "--ssh-key", str(tmp_path / "id_rsa.pub"), "-f", "json") == 0
    fields = shown(capsys)
    assert (fields["outcome"], fields["user"]) == ("succeeded", "root")
    assert "admin_password" not in fields
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    assert private.decrypt(base64.b64decode(fields["ciphertext"]), oaep) == GENERATED.encode()


@pytest.mark.parametrize(
    ("content", "code"), [(None, "unreadable_file"), (b"", "bad_key"), (b"ssh-rsa A\nssh-rsa B\n", "bad_key")]
)
def test_without_one_readable_key_the_guest_is_not_asked(
    service: Service,
    agent: SealedAgent,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    content: bytes | None,
    code: str,
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    assert run("server", "password", "generate", "web", "--ssh-key", str(path), "-f", "json") == 3
    assert shown(capsys)["code"] == code
    assert service.calls == []


def test_an_old_agent_makes_no_passwords(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("server", "password", "generate", "web", "-f", "json") == EXIT_STATUS[Outcome.UNSUPPORTED]
    assert shown(capsys)["code"] == "agent_not_sealed"
    assert service.calls == []


# A new instance

CREATE = ("server", "create", "web", "--key-file", "{}", "--file", "/etc/x={}", "-f", "json")


def create(tmp_path: Path) -> int:
    (tmp_path / "given").write_bytes(b"ssh-ed25519 AAAA hunter2\n")
    return run(*(word.format(tmp_path / "given") for word in CREATE))


def test_a_new_instance_is_given_its_secrets_in_boxes(
    service: Service, agent: SealedAgent, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert create(tmp_path) == 0
    fields = shown(capsys)
    assert (fields["outcome"], fields["uuid"], fields["vm_state"]) == ("succeeded", "uuid-web", "active")
    assert service.methods == ["build_and_run_instance", "send_sealed", "send_sealed", "send_sealed"]
    assert [name for name, _ in agent.done] == ["password", "ssh_keys", "file_put"]
    assert agent.done[0] == ("password", {"value": fields["admin_password"]})
    assert agent.done[1] == ("ssh_keys", {"add": ["ssh-ed25519 AAAA hunter2"]})
    assert fields["admin_password"] not in str(service.calls)
    assert "hunter2" not in str(service.calls)


@pytest.mark.parametrize("command", ["password", "ssh_keys", "file_put"])
def test_one_that_cannot_be_given_them_is_removed_again(
    service: Service, agent: SealedAgent, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    agent.results[command] = SealedResult(Outcome.REFUSED, "policy", "no such thing")
    assert create(tmp_path) == EXIT_STATUS[Outcome.REFUSED]
    fields = shown(capsys)
    assert (fields["outcome"], fields["code"], fields["message"]) == ("refused", "policy", "no such thing")
    assert not {"admin_password", "uuid"} & fields.keys()
    assert service.calls[-1] == ("terminate_instance", {"target": "uuid-web"})


@pytest.mark.parametrize("error", [Failed("broken", "it broke"), Unknown("agent_no_answer", "silence")])
def test_neither_is_one_with_an_old_agent_left(
    service: Service, capsys: pytest.CaptureFixture[str], error: Unsuccessful
) -> None:
    service.errors["set_admin_password"] = error
    assert run("server", "create", "web", "-f", "json") == EXIT_STATUS[error.outcome]
    assert shown(capsys)["code"] == error.code
    assert service.methods == ["build_and_run_instance", "set_admin_password", "terminate_instance"]


def test_one_that_cannot_be_removed_either_is_told(
    service: Service, agent: SealedAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.results["password"] = SealedResult(Outcome.FAILED, "broken", "it broke")
    service.errors["terminate_instance"] = Unreachable("xenserver_unreachable", "XenServer is away")
    assert run("server", "create", "web", "-f", "json") == EXIT_STATUS[Outcome.FAILED]
    fields = shown(capsys)
    assert (fields["outcome"], fields["code"]) == ("failed", "broken")
    assert fields["message"] == "it broke; instance uuid-web could not be removed: XenServer is away"


def test_one_that_was_never_made_needs_no_removing(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.errors["build_and_run_instance"] = Failed("broken", "it broke")
    assert run("server", "create", "web", "-f", "json") == EXIT_STATUS[Outcome.FAILED]
    assert shown(capsys)["code"] == "broken"
    assert service.methods == ["build_and_run_instance"]
