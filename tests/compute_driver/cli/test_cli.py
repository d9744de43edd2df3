"""The command itself, with a compute service that a test plays; a process of its own where a terminal is needed."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import time
import uuid
from pathlib import Path

import pytest

from agent_protocol.outcomes import (
    Busy,
    Failed,
    Outcome,
    Refused,
    Unknown,
    Unreachable,
    Unsuccessful,
    Unsupported,
)
from compute_driver.cli import main as cli
from compute_driver.cli.base import EXIT_STATUS

from .service import INSTANCE, SECRET, Service, run, shown, types

COMMANDS = cli.COMMANDS
CHECKOUT = Path(__file__).resolve().parents[3]
DEADLINE = 30.0
NO_MODE = {"mode": None, "owner": None}
ORDERS = [
    (("server", "delete", "web"), "terminate_instance"),
    (("server", "start", "web"), "start_instance"),
    (("server", "stop", "web"), "stop_instance"),
    (("server", "reboot", "web"), "reboot_instance"),
    (("server", "password", "set", "web", "--generate"), "set_admin_password"),
    (("server", "file", "put", "web", "/dev/null", "/etc/motd"), "inject_file"),
]
QUESTIONS = [
    ("agent", "show", "web"),
    ("server", "list"),
    ("server", "show", "web"),
    ("server", "show", "web", "--diagnostics"),
    ("server", "actions"),
    ("action", "list", "web"),
    ("order", "show", "order-1"),
    ("order", "show", "order-1", "--wait", "1"),
    ("host", "list"),
    ("host", "show", "xen-1"),
    ("host", "inventory", "show", "xen-1"),
    ("console", "url", "show", "web"),
]
ERRORS = [kind("some_code", "some words") for kind in (Refused, Unsupported, Busy, Failed, Unreachable, Unknown)]


def test_every_outcome_has_a_status_of_its_own() -> None:
    assert set(EXIT_STATUS) == set(Outcome)
    assert len(set(EXIT_STATUS.values())) == len(Outcome)
    assert EXIT_STATUS[Outcome.SUCCEEDED] == 0
    assert not {1, 2} & set(EXIT_STATUS.values())


@pytest.mark.parametrize(("arguments", "method"), ORDERS, ids=lambda value: value if isinstance(value, str) else "")
def test_an_order_shows_that_it_succeeded(
    service: Service, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], method: str
) -> None:
    assert run(*arguments, "-f", "json") == 0
    fields = shown(capsys)
    assert (fields["outcome"], fields["code"], fields["message"]) == ("succeeded", "", "")
    assert fields["request_id"].startswith("req-")
    assert [call[0] for call in service.calls] == [method]


@pytest.mark.parametrize(("arguments", "method"), ORDERS, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error.outcome))
def test_an_order_that_fails_still_shows_how_and_exits_with_its_status(
    service: Service,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    method: str,
    error: Unsuccessful,
) -> None:
    service.answer = error
    assert run(*arguments, "-f", "json") == EXIT_STATUS[error.outcome]
    fields = shown(capsys)
    assert (fields["outcome"], fields["code"], fields["message"]) == (str(error.outcome), "some_code", "some words")
    assert fields["request_id"].startswith("req-")
    assert "admin_password" not in fields


@pytest.mark.parametrize("arguments", QUESTIONS, ids=" ".join)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error.outcome))
def test_a_question_that_fails_is_one_line_and_a_status(
    service: Service, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], error: Unsuccessful
) -> None:
    service.answer = error
    assert run(*arguments, "-f", "json") == EXIT_STATUS[error.outcome]
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == f"xenward: some words ({error.outcome}, some_code)\n"


def test_questions_show_what_the_service_tells(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.answer = [INSTANCE]
    assert run("server", "list", "-f", "json") == 0
    (row,) = shown(capsys)
    assert (row["uuid"], row["power_state"], row["task_state"]) == ("uuid-web", "running", None)
    agent = {"version": "1.0", "protocol": "legacy", "features": ["password"], "last_seen_at": "now"}
    service.answer = {**INSTANCE, "power_state": "running", "agent": agent}
    assert run("server", "show", "web", "-f", "json") == 0
    fields = shown(capsys)
    assert (fields["uuid"], fields["agent_version"], fields["agent_features"]) == ("uuid-web", "1.0", ["password"])
    assert "deleted" not in fields
    service.answer = {**INSTANCE, "agent": None}
    assert run("server", "show", "web", "-f", "json") == 0
    assert shown(capsys)["agent_version"] is None


def test_devices_are_shown_with_their_instance(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    volume = {"id": "data", "kind": "vdi", "device": "xvdb"}
    interface = {"id": "port-1", "mac": "02:00:00:00:00:01", "addresses": ["192.0.2.5/24", "2001:db8::5/64"]}
    service.answers["get_instance"] = {**INSTANCE, "power_state": "running", "agent": None}
    service.answers["get_devices"] = {
        "volumes": [volume, {**volume, "id": "log", "device": ""}],
        "interfaces": [interface],
    }
    assert run("server", "show", "web", "-f", "json") == 0
    fields = shown(capsys)
    assert (fields["volumes"][0], fields["interfaces"]) == (volume, [interface])
    assert fields["properties"] == {"role": "front"}
    assert service.calls[-1] == ("get_devices", {"target": "uuid-web"})
    assert run("server", "show", "web") == 0
    told = [line.strip("| ").partition("| ")[2] or line.strip("| ") for line in capsys.readouterr().out.splitlines()]
    for line in ("role=front", "data (vdi, xvdb)", "log (vdi)", "port-1 02:00:00:00:00:01 192.0.2.5/24 2001:db8::5/64"):
        assert line in told


def test_diagnostics_are_shown_instead(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    disk = {"device": "xvda", "read_bytes": 5.0, "write_bytes": None}
    told = {"state": "running", "cpu_usage": [0.5], "memory_maximum": 512, "memory_used": None, "uptime": 3.0}
    service.answers["get_diagnostics"] = {**told, "disks": [disk], "nics": []}
    assert run("server", "show", "web", "--diagnostics", "-f", "json") == 0
    assert shown(capsys) == {**told, "disks": [disk], "nics": []}
    assert run("server", "show", "web", "--diagnostics") == 0
    assert "| xvda 5 ? " in capsys.readouterr().out
    assert service.methods == ["get_diagnostics"] * 2


# Help and mistakes


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_is_there_for_every_command_and_names_no_option_that_is_none(
    service: Service, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run(*name.split(), "--help") == 0
    told = capsys.readouterr().out
    assert f"usage: xenward{' ' if name else ''}{name}" in told
    assert service.calls == []
    app = cli.XenwardApp()
    known = set(app.parser._option_string_actions)
    if name:
        known |= COMMANDS[name](app, None).get_parser(name)._option_string_actions.keys()
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", re.sub(r"-\n\s+", "-", told)))
    assert named
    assert named <= known


def test_commands_are_found_by_their_whole_names_only(service: Service) -> None:
    # An instance may be called as the beginning of a subcommand is.
    assert run("server", "resize", "rev", "--memory", "64", "--vcpus", "1", "--disk", "1") == 0
    assert run("server", "migrate", "live", "live", "--node", "xen-2") == 0
    assert [(method, it["target"]) for method, it in service.calls] == [
        ("resize_instance", "rev"),
        ("live_migrate_instance", "live"),
    ]
    assert run("server", "del", "web") == 2
    assert len(service.calls) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("server", "create"),
        ("server", "create", "web", "--memory", "much"),
        ("server", "create", "web", "--password", SECRET),
        ("server", "create", "web", "--password-stdin", "--generate"),
        ("server", "password", "set", "web", "--password-stdin", "--generate"),
        ("server", "password", "set", "web", SECRET),
        ("server", "file", "put", "web", "/dev/null"),
        ("server", "file", "put", "web", "/dev/null", "/etc/motd", "--mode", "0o999"),
        ("server", "file", "put", "web", "/dev/null", "/etc/motd", "--mode", "rw"),
        ("server", "file", "put", "web", "/dev/null", "/etc/motd", "--mode", "0888"),
        ("server", "file", "put", "web", "/dev/null", "/etc/motd", "--mode", "10000"),
        ("server", "file", "put", "web", "/dev/null", "/etc/motd", "--mode=-1"),
        ("server", "file", "put", "web", "/dev/null", "/etc/motd", "--mode", ""),
        ("server", "explode", "web"),
        ("server", "rescue", "web"),
        ("server", "rescue", "web", "--image", "i", "--no-password", "--generate"),
        ("server", "rebuild", "web"),
        ("server", "migrate", "web"),
        ("server", "set", "web"),
        ("server", "image", "create", "web"),
        ("server", "image", "create", "web", "--name", "n", "--disk-format", "qcow2"),
        ("server", "freeze", "web", "--timeout", "nan"),
        ("server", "stop", "web", "--timeout=-1"),
        ("server", "start", "web", "--order-id", "a b"),
        ("server", "start", "web", "--order-id", "x" * 65),
        ("server", "add", "volume", "web", "v", "--kind", "iscsi", "--chap-password", SECRET),
        ("server", "add", "network", "web", "--network", "n", "--bridge", "b"),
        ("console", "log", "show", "web", "--lines", "0"),
        ("order", "show"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_2_and_nothing_is_done(
    service: Service, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert run(*arguments) == 2
    assert service.calls == []


@pytest.mark.parametrize(
    ("text", "mode"), [("0640", 0o640), ("7777", 0o7777), ("0", 0), ("0o600", 0o600), ("00644", 0o644)]
)
def test_modes_are_octal(service: Service, text: str, mode: int) -> None:
    assert run("server", "file", "put", "web", "/dev/null", "/etc/motd", "--mode", text) == 0
    assert service.calls[-1][1]["file"]["mode"] == mode


# Passwords


def test_a_password_is_read_from_standard_input(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in (SECRET + "\n", SECRET, SECRET + "\r\n", SECRET + "\nand more\n"):
        types(monkeypatch, text)
        assert run("server", "password", "set", "web", "--password-stdin", "-f", "json") == 0
        assert service.calls[-1] == ("set_admin_password", {"target": "web", "new_pass": SECRET})
        assert SECRET not in "".join(capsys.readouterr())


@pytest.mark.parametrize("text", ["", "\n", "with\ttab\n", "two\rlines\n", "x" * 257])
def test_a_password_that_cannot_be_one_is_refused_before_the_service_is_asked(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    for command in (("password", "set"), ("create",)):
        types(monkeypatch, text)
        assert run("server", *command, "web", "--password-stdin", "-f", "json") == 3
        fields = shown(capsys)
        assert (fields["outcome"], fields["code"]) == ("refused", "bad_password")
    assert service.calls == []


def test_bytes_that_are_no_text_are_refused(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    types(monkeypatch, b"caf\xe9 Pass-word\n")
    assert run("server", "password", "set", "web", "--password-stdin", "-f", "json") == 3
    assert shown(capsys)["code"] == "bad_password"
    assert service.calls == []


def test_a_generated_password_is_shown_and_sent(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    made = []
    for command in (("create", "web"), ("password", "set", "web")):
        assert run("server", *command, "--generate", "-f", "json") == 0
        made.append(shown(capsys)["admin_password"])
        assert service.calls[-1][1]["new_pass"] == made[-1]
    # Without any option a new instance gets one, too.
    assert run("server", "create", "web", "-f", "json") == 0
    made.append(shown(capsys)["admin_password"])
    assert len(set(made)) == 3


def test_without_a_terminal_nobody_is_asked(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    types(monkeypatch, SECRET + "\n")
    assert run("server", "password", "set", "web", "-f", "json") == 3
    assert shown(capsys)["code"] == "no_password"
    assert service.calls == []


def at_a_terminal(directory: Path, answers: list[str]) -> tuple[int, str]:
    """`xenward server password set web -f json` as a process at a terminal; status and all that the terminal showed."""
    conf = directory / "xenward.conf"
    conf.write_text(f"[DEFAULT]\nhost = here\nstate_path = {directory}\n")
    command = [sys.executable, "-m", "compute_driver.cli", "--config-file", str(conf)]
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(CHECKOUT)
        os.execv(sys.executable, [*command, "server", "password", "set", "web", "-f", "json"])
    seen = b""
    waiting = [b"New password: ", b"Again: "]
    deadline = time.monotonic() + DEADLINE
    try:
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], deadline - time.monotonic())[0]:
                break
            try:
                piece = os.read(terminal, 4096)
            except OSError:
                # How Linux tells that the other end of a terminal is closed.
                break
            seen += piece
            if waiting and seen.endswith(waiting[0]):
                waiting.pop(0)
                os.write(terminal, answers.pop(0).encode() + b"\n")
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen.decode()


def test_two_different_answers_at_the_terminal_are_refused(tmp_path: Path) -> None:
    status, seen = at_a_terminal(tmp_path, ["one Pass-word", "another Pass-word"])
    assert (status, '"no_password"' in seen, "differ" in seen) == (3, True, True), seen
    assert "Pass-word" not in seen
    # The service was not even started.
    assert [path.name for path in tmp_path.iterdir()] == ["xenward.conf"]


def test_the_same_answer_twice_goes_to_the_service(tmp_path: Path) -> None:
    status, seen = at_a_terminal(tmp_path, ["one Pass-word", "one Pass-word"])
    assert (status, '"instance_not_found"' in seen) == (3, True), seen
    assert "Pass-word" not in seen


# Files and keys


def test_a_new_instance_gets_what_was_asked_for(service: Service, tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"# comment\n\nssh-ed25519 AAAA ada\n  ssh-rsa BBBB \r\n")
    (tmp_path / "a=b").write_bytes(b"\0\xff")
    options = ("--memory", "512", "--vcpus", "2", "--disk", "3", "--key-file", str(tmp_path / "keys"))
    files = ("--file", f"/etc/x={tmp_path}/a=b", "--file", "/etc/empty=/dev/null")
    assert run("server", "create", "web", "--generate", *options, *files) == 0
    made, password, keys, *put = service.calls
    # Without its secrets: there is no agent to seal them to before it has booted.
    assert made == (
        "build_and_run_instance",
        {
            "display_name": "web",
            "memory_mb": 512,
            "vcpus": 2,
            "root_gb": 3,
            "image_ref": "",
            "admin_password": None,
            "injected_files": [],
            "ssh_keys": [],
            "instance_uuid": made[1]["instance_uuid"],
        },
    )
    assert uuid.UUID(made[1]["instance_uuid"])
    assert (password[0], password[1]["target"]) == ("set_admin_password", "uuid-web")
    assert keys == ("add_ssh_keys", {"target": "uuid-web", "keys": ["ssh-ed25519 AAAA ada", "ssh-rsa BBBB"]})
    assert put == [
        ("inject_file", {"target": "uuid-web", "file": {"path": "/etc/x", "content": "AP8=", **NO_MODE}}),
        ("inject_file", {"target": "uuid-web", "file": {"path": "/etc/empty", "content": "", **NO_MODE}}),
    ]


@pytest.mark.parametrize(
    ("option", "code", "words"),
    [
        (("--file", "/etc/motd"), "bad_file", "PATH=LOCAL"),
        (("--file", ""), "bad_file", "PATH=LOCAL"),
        (("--file", "/etc/motd="), "unreadable_file", ""),
        (("--file", "/etc/motd=/no/such/file"), "unreadable_file", "/no/such/file: No such file"),
        (("--file", "/etc/motd=/"), "unreadable_file", "/: Is a directory"),
        (("--key-file", "/no/such/keys"), "unreadable_file", "/no/such/keys: No such file"),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_service_is_asked(
    service: Service, capsys: pytest.CaptureFixture[str], option: tuple[str, ...], code: str, words: str
) -> None:
    assert run("server", "create", "web", *option, "-f", "json") == 3
    fields = shown(capsys)
    assert (fields["outcome"], fields["code"]) == ("refused", code)
    assert words in fields["message"]
    assert service.calls == []


def test_a_file_may_come_from_standard_input(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    types(monkeypatch, b"\0\xff\n")
    put = ("server", "file", "put", "web", "-", "/etc/x", "--owner", "ada:users")
    assert run(*put) == 0
    wanted = {"path": "/etc/x", "content": "AP8K", "mode": None, "owner": "ada:users"}
    assert service.calls == [("inject_file", {"target": "web", "file": wanted})]


def test_a_reboot_is_soft_unless_asked(service: Service) -> None:
    assert run("server", "reboot", "web") == run("server", "reboot", "web", "--hard") == 0
    assert [call[1]["reboot_type"] for call in service.calls] == ["SOFT", "HARD"]
