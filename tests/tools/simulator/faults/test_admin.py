"""admin.py and control.py: the socket, its protocol, and what harm a client can do."""

from __future__ import annotations

import inspect
import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.simulator.admin import MAX_CLIENTS, MAX_LINE, Command, CommandError
from tools.simulator.control import Control, ControlError
from tools.simulator.faults.operations import commands
from tools.simulator.process import SimulatorProcess


@pytest.fixture
def path(simulator: SimulatorProcess) -> Path:
    return Path(simulator._ready["admin_socket"])


@pytest.fixture
def client(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        yield connection


def ask(client: socket.socket, line: bytes) -> dict[str, Any]:
    client.sendall(line)
    answer = b""
    while not answer.endswith(b"\n"):
        piece = client.recv(65536)
        assert piece
        answer += piece
    result: dict[str, Any] = json.loads(answer)
    return result


def test_only_for_its_owner(path: Path, simulator: SimulatorProcess) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.parent == simulator.state


def test_several_lines_and_clients(client: socket.socket, path: Path) -> None:
    for _ in range(2):
        assert ask(client, b'{"command": "list_rules"}\n') == {"ok": True, "result": []}
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(path))
        assert ask(other, b'{"command": "list_rules"}\n')["ok"]
    answer = ask(client, b'{"command": "remove_rule", "rule": 99}\n')
    assert answer == {"ok": False, "error": "there is no rule 99"}
    # Half a line means nothing before the other half is there.
    client.sendall(b'{"command": ')
    assert ask(client, b'"list_rules"}\n')["ok"]


def test_one_who_waits_keeps_nobody_else_waiting(client: socket.socket, path: Path) -> None:
    control = Control(path)
    control.log_calls()
    client.sendall(b'{"command": "await_calls", "pattern": "VM.start", "timeout": 600}\n')
    assert control.list_rules() == []
    control.log_calls(False)
    # Nothing can arrive any more that he would wait for.
    assert json.loads(client.recv(65536))["ok"] is False


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"nonsense\n",
        b"[]\n",
        b"null\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"a":' * 30_000 + b"\n",
        b"9" * 5000 + b"\n",
        b'{"command": "list_rules", "pattern": "x"}\n',
        b'{"command": "__init__"}\n',
        b'{"command": "_set_full", "sr": "x", "full": true}\n',
        b'{"command": ["list_rules"]}\n',
        b'{"command": null}\n',
        b'{"command": "remove_rule"}\n',
        b'{"command": "remove_rule", "rule": "1"}\n',
        b'{"command": "remove_rule", "rule": true}\n',
        b'{"command": "remove_rule", "rule": 1.0}\n',
        b'{"command": "remove_rule", "rule": 1e999}\n',
        b'{"command": "remove_rule", "rule": 123456789012345678901234567890}\n',
        b'{"command": "restart_toolstack", "seconds": NaN}\n',
        b'{"command": "restart_toolstack", "seconds": 1e300}\n',
        b'{"command": "add_rule", "pattern": "VM.start", "action": "explode"}\n',
        b'{"command": "add_rule", "pattern": "VM.start", "action": "fail", "error": [1]}\n',
        b'{"command": "add_rule", "pattern": "VM.start", "action": "hang", "arguments": {"a": 1}}\n',
        b'{"command": "break_sr", "sr": "OpaqueRef:NULL"}\n',
        b'{"command": "end_guest", "vm": "x", "how": "explode"}\n',
    ],
)
def test_malformed_lines_do_no_harm(client: socket.socket, line: bytes) -> None:
    answer = ask(client, line)
    assert answer["ok"] is False
    # It was refused before anything was done.
    assert not answer["error"].startswith(("the simulator failed", "there is no rule"))
    assert ask(client, b'{"command": "list_rules"}\n') == {"ok": True, "result": []}


def test_a_huge_line_does_no_harm(client: socket.socket, path: Path) -> None:
    answer = ask(client, b"x" * (MAX_LINE + 1))
    assert answer["ok"] is False
    # Nothing more is heard from who sends that much.
    assert client.recv(1) == b""
    assert Control(path).list_rules() == []


def test_too_many_clients(path: Path) -> None:
    clients = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CLIENTS + 1)]
    try:
        for each in clients:
            each.settimeout(20)
            each.connect(str(path))
            if each is not clients[-1]:
                assert ask(each, b'{"command": "list_rules"}\n')["ok"]
        assert clients[-1].recv(1000).startswith(b'{"ok": false')
    finally:
        for each in clients:
            each.close()


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="does not answer"):
        Control(tmp_path / "nothing").list_rules()


def test_the_client_has_the_same_methods() -> None:
    for name, method in commands().items():
        wanted = inspect.signature(method)
        offered = inspect.signature(getattr(Control, name))
        assert offered.parameters == wanted.parameters, name
        assert offered.return_annotation == wanted.return_annotation, name


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
_ARGUMENTS = sorted(
    {name for method in commands().values() for name in inspect.signature(method).parameters} - {"self"}
)


@settings(deadline=None)
@given(st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_parsing_anything(line: bytes) -> None:
    with pytest.raises(CommandError):
        Command.parse(line)


@settings(deadline=None)
@given(st.sampled_from(sorted(commands())), st.dictionaries(st.sampled_from(_ARGUMENTS), _JSON, max_size=4))
def test_parsing_arguments(name: str, arguments: dict[str, Any]) -> None:
    line = json.dumps({"command": name, **arguments}).encode()
    try:
        command = Command.parse(line)
    except CommandError:
        return
    # What was accepted is exactly what was sent, and the method can be called with it.
    assert command.name == name
    assert dict(command.arguments) == arguments
    inspect.signature(commands()[name]).bind(None, **command.arguments)


@settings(deadline=None)
@given(
    st.lists(st.text(max_size=20), max_size=3),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    st.integers(-(2**62), 2**62),
    st.floats(-1e15, 1e15),
)
def test_parsing_what_is_right(error: list[str], arguments: dict[str, str], nth: int, seconds: float) -> None:
    given_ = {"pattern": "VM.start", "action": "fail", "error": error, "arguments": arguments}
    given_ |= {"nth": nth, "seconds": seconds, "originator": None}
    assert dict(Command.parse(json.dumps({"command": "add_rule", **given_}).encode()).arguments) == given_
