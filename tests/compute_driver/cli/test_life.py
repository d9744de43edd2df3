"""Instances that are created, rebuilt and rescued, with and without an agent that can be given something."""

from __future__ import annotations

import base64
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.outcomes import Failed, Outcome, Refused, Unknown, Unsuccessful
from compute_driver.cli import describing, reading
from compute_driver.network import interfaces_from_list

from .service import SECRET, Service, run, shown, types

VDI = "1b1c5e6a-0000-4000-8000-000000000001"


def create(*options: str) -> int:
    return run("server", "create", "web", *options, "-f", "json")


def arguments(service: Service) -> dict[str, Any]:
    """Of the creation."""
    method, told = service.calls[0]
    assert method == "build_and_run_instance"
    return dict(told)


def test_all_that_an_instance_can_have(service: Service, tmp_path: Path) -> None:
    (tmp_path / "volume").write_text(json.dumps({"id": "data", "kind": "vdi", "connection": {"uuid": VDI}}))
    latest = tmp_path / "drive/openstack/latest"
    latest.mkdir(parents=True)
    (latest / "user_data").write_bytes(b"\0\xff")
    (tmp_path / "interfaces").write_text(json.dumps([{"network": {"bridge": "xenbr0"}}, {"network": {"bridge": "x"}}]))
    options = ("--volume", str(tmp_path / "volume"), "--property", "role=front", "--property", "a=", "--node", "xen-2")
    files = ("--interfaces", str(tmp_path / "interfaces"), "--config-drive", str(tmp_path / "drive"))
    assert create(*options, *files, "--no-password") == 0
    assert service.methods == ["build_and_run_instance"]
    told = arguments(service)
    assert [volume["id"] for volume in told["volumes"]] == ["data"]
    assert (told["metadata"], told["node"]) == ({"role": "front", "a": ""}, "xen-2")
    assert told["config_drive"] == {"openstack/latest/user_data": "AP8="}
    assert [it.network.value for it in interfaces_from_list(told["interfaces"])] == ["xenbr0", "x"]
    assert "power_on" not in told


def test_networks_by_name_have_dhcp(service: Service) -> None:
    assert create("--network", "Pool-wide network", "--network", VDI) == 0
    first, second = interfaces_from_list(arguments(service)["interfaces"])
    assert (first.network.kind, second.network.kind) == ("name_label", "uuid")
    assert first.dhcp4 and second.dhcp4


def test_no_interface_is_not_the_default(service: Service, tmp_path: Path) -> None:
    (tmp_path / "none").write_text("[]")
    assert create("--interfaces", str(tmp_path / "none")) == 0
    assert arguments(service)["interfaces"] == []


def test_one_that_nobody_waits_for_has_a_uuid_at_once(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert create("--no-wait", "--order-id", "order-1") == 0
        told = shown(capsys)
        assert (told["outcome"], told["order_id"], told["name"]) == ("accepted", "order-1", "web")
        assert told["uuid"] == describing.instance_uuid("order-1") == service.calls[-1][1]["instance_uuid"]
        assert "admin_password" not in told
    assert service.left == service.methods == ["build_and_run_instance"] * 2


def test_one_that_is_not_started_is_given_nothing(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert create("--no-start") == 0
    assert service.methods == ["build_and_run_instance"]
    assert arguments(service)["power_on"] is False
    assert "admin_password" not in shown(capsys)


@pytest.mark.parametrize("command", ["create --no-wait", "create --no-start", "rebuild --image deb --no-wait"])
@pytest.mark.parametrize("given", ["--generate", "--password-stdin", "--key-file /dev/null", "--file /etc/x=/dev/null"])
def test_what_needs_an_agent_that_nobody_will_see_is_refused(
    service: Service, capsys: pytest.CaptureFixture[str], command: str, given: str
) -> None:
    assert run("server", *command.split(), "web", *given.split(), "-f", "json") == 3
    assert shown(capsys)["code"] == "nobody_sets_up"
    assert service.calls == []


def test_a_volumes_password_does_not_lie_on_the_bus(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = {"host": "san", "iqn": "iqn.2026-01.example:d", "lun": 0, "chap_user": "ada", "chap_password": SECRET}
    (tmp_path / "volume").write_text(json.dumps({"id": "data", "kind": "iscsi", "connection": connection}))
    assert create("--volume", str(tmp_path / "volume"), "--no-wait") == 3
    assert shown(capsys)["code"] == "secret_needs_waiting"
    assert service.calls == []
    assert create("--volume", str(tmp_path / "volume")) == 0
    assert arguments(service)["volumes"][0]["connection"]["chap_password"] == SECRET


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("--property role", "bad_property"),
        ("--config-drive /no/such/directory", "unreadable_file"),
        ("--config-drive /dev/null", "unreadable_file"),
        ("--volume /no/such/file", "unreadable_file"),
        ("--volume /dev/null", "bad_json"),
        ("--interfaces /dev/null", "bad_json"),
        ("--network " + "x" * 300, "bad_interface"),
    ],
)
def test_what_cannot_be_is_refused_before_the_service_is_asked(
    service: Service, capsys: pytest.CaptureFixture[str], options: str, code: str
) -> None:
    assert create(*options.split()) == 3
    told = shown(capsys)
    assert (told["outcome"], told["code"]) == ("refused", code)
    assert service.calls == []


def test_a_config_drive_has_an_end(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading, "MAX_CONFIG_DRIVE", 1 << 20)
    with (tmp_path / "big").open("wb") as file:
        os.truncate(file.fileno(), (1 << 20) + 1)
    assert create("--config-drive", str(tmp_path)) == 3
    told = shown(capsys)
    assert (told["code"], "1 MiB" in told["message"]) == ("config_drive_too_large", True)


def test_the_order_and_what_follows_have_ids_of_their_own(service: Service) -> None:
    assert create("--order-id", "order-1", "--generate") == 0
    made, password = service.contexts
    assert (made.order_id, password.order_id) == ("order-1", None)
    assert made.request_id == password.request_id


def test_an_unknown_end_leaves_the_instance_and_names_the_request(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.errors["build_and_run_instance"] = Unknown("service_no_answer", "silence")
    assert create() == 8
    assert service.methods == ["build_and_run_instance"]
    assert f"ask: xenward action list --request {service.contexts[0].request_id}\n" in capsys.readouterr().err


# Rebuild


def test_a_rebuilt_instance_is_set_up_anew(
    service: Service, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("ssh-ed25519 AAAA\n")
    given = ("--generate", "--key-file", str(tmp_path / "keys"), "--file", "/etc/x=/dev/null")
    assert run("server", "rebuild", "web", "--image", "deb", *given, "-f", "json") == 0
    assert service.methods == ["rebuild_instance", "set_admin_password", "add_ssh_keys", "inject_file"]
    assert service.calls[0][1] == {"target": "web", "image_ref": "deb"}
    assert shown(capsys)["admin_password"] == service.calls[1][1]["new_pass"]
    assert {context.order_id for context in service.contexts[1:]} == {None}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Refused("password_policy", "too short"), Outcome.FAILED),
        (Unknown("agent_no_answer", "silence"), Outcome.UNKNOWN),
    ],
)
def test_a_rebuilt_instance_stays_whatever_it_lacks(
    service: Service, capsys: pytest.CaptureFixture[str], error: Unsuccessful, outcome: Outcome
) -> None:
    service.errors["set_admin_password"] = error
    run("server", "rebuild", "web", "--image", "deb", "-f", "json")
    told = shown(capsys)
    # Not `refused`: that would mean that nothing was changed.
    assert (told["outcome"], told["code"]) == (str(outcome), error.code)
    assert told["message"] == f"it was rebuilt, but lacks some of password, keys and files: {error.message}"
    assert "admin_password" not in told
    assert service.methods == ["rebuild_instance", "set_admin_password"]


def test_what_was_not_rebuilt_is_given_nothing(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.errors["rebuild_instance"] = Failed("storage_full", "no room")
    assert run("server", "rebuild", "web", "--image", "deb", "-f", "json") == 6
    assert service.methods == ["rebuild_instance"]
    assert shown(capsys)["message"] == "no room"


# Rescue


def test_a_rescue_systems_password_shows_nowhere(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    types(monkeypatch, SECRET + "\n")
    assert run("-v", "-v", "--debug", "server", "rescue", "web", "--image", "fix", "--password-stdin") == 0
    assert service.calls == [("rescue_instance", {"target": "web", "image_ref": "fix", "rescue_password": SECRET})]
    assert "hunter2" not in "".join(capsys.readouterr()) + caplog.text


def test_a_rescue_systems_password_is_made_or_asked_for(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("server", "rescue", "web", "--image", "fix", "--generate", "-f", "json") == 0
    assert shown(capsys)["admin_password"] == service.calls[0][1]["rescue_password"]
    types(monkeypatch, SECRET + "\n")
    assert run("server", "rescue", "web", "--image", "fix", "-f", "json") == 3
    assert shown(capsys)["code"] == "no_password"
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: SECRET)
    assert run("server", "rescue", "web", "--image", "fix", "-f", "json") == 0
    assert service.calls[-1][1]["rescue_password"] == SECRET
    assert "admin_password" not in shown(capsys)


def test_a_rescue_systems_password_does_not_lie_on_the_bus(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    types(monkeypatch, SECRET + "\n")
    for option in ("--generate", "--password-stdin"):
        assert run("server", "rescue", "web", "--image", "fix", option, "--no-wait", "-f", "json") == 3
        told = shown(capsys)
        assert (told["code"], "admin_password" in told) == ("secret_needs_waiting", False)
    assert service.calls == []


def test_contents_of_files_are_whole(service: Service, tmp_path: Path) -> None:
    content = bytes(range(256)) * 300
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/file").write_bytes(content)
    assert create("--config-drive", str(tmp_path)) == 0
    assert base64.b64decode(arguments(service)["config_drive"]["deep/er/file"]) == content
