"""Over the old protocol too, a password appears nowhere but in the caller's hands and, hashed, in the guest."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.packages import dom0_plugin

from .house import House, house
from .sparse import stored

FIRST = "Zw3-first.Secret"
SECOND = "Zw3-second.Secret"
IN_THE_CLEAR = b"this file travels in the clear"

RECORDER = """#!{python} -IS
import json, os, sys
with open({log!r}, "a") as log:
    log.write(json.dumps([sys.argv, dict(os.environ)]) + "\\n")
os.execv({plugin!r}, [{plugin!r}, *sys.argv[1:]])
"""


def needles(secret: str) -> list[bytes]:
    """The secret as it would appear in bytes: itself, in hexadecimal, and in base64 at each alignment."""
    raw = secret.encode()
    found = [raw, raw.hex().encode()]
    for before in range(3):
        encoded = base64.b64encode(b"x" * before + raw + b"\n")
        # The first and last characters depend on what stands around the secret.
        found.append(encoded[4 if before else 0 : -4])
    return found


def leaks(data: bytes, *secrets: str) -> list[bytes]:
    return [needle for secret in secrets for needle in needles(secret) if needle in data]


@pytest.fixture
def recorded(directory: Path) -> Iterator[House]:
    """A house that records XenStore's traffic and the plugin's command lines below its directory."""
    plugins = directory / "plugins"
    plugins.mkdir()
    dom0_plugin.build(directory / "plugin", sys.executable)
    recorder = plugins / "xenward"
    log = str(directory / "plugin-calls")
    recorder.write_text(RECORDER.format(python=sys.executable, log=log, plugin=str(directory / "plugin")))
    recorder.chmod(0o755)
    options = ("--plugins", str(plugins), "--record-xenstore", str(directory / "xenstore"))
    with house(directory, "--state", str(directory / "xenserver"), *options) as it:
        yield it


def test_no_password_is_found_anywhere_after_a_whole_run(recorded: House, directory: Path) -> None:
    home = recorded
    home.configure(agent={"protocol": "legacy"})
    (directory / "file").write_bytes(IN_THE_CLEAR)
    create = ("-vv", "--debug", "server", "create", "web", "--password-stdin", "--file", f"/etc/x={directory}/file")
    created = home.start(*create, stdin=FIRST + "\n")
    seen = "".join(created.communicate(timeout=60)).encode()
    assert created.returncode == 0, seen.decode()
    instance = home.xenward("server", "list").shown[0]["uuid"]

    # Hold the agent for a moment, so that the command can be looked at while it has the password in hand.
    agent = home.agent_pid(instance)
    os.kill(agent, signal.SIGSTOP)
    reset = home.start("-vv", "--debug", "server", "password", "set", "web", "--password-stdin", stdin=SECOND + "\n")
    home.await_request(instance, "keyinit")
    for pid in (reset.pid, agent, home.simulator.pid):
        for name in ("cmdline", "environ"):
            seen += Path(f"/proc/{pid}/{name}").read_bytes()
    os.kill(agent, signal.SIGCONT)
    seen += "".join(reset.communicate(timeout=60)).encode()
    assert reset.returncode == 0, seen.decode()
    assert home.opens(instance, SECOND)
    failed = home.start("-vv", "--debug", "server", "password", "set", "no one", "--password-stdin", stdin=FIRST)
    seen += "".join(failed.communicate(timeout=60)).encode()

    assert leaks(seen, FIRST, SECOND) == []
    traffic = [json.loads(line) for line in (directory / "xenstore").read_text().splitlines()]
    store = b"\n".join(base64.b64decode(record["payload"]) for record in traffic)
    assert leaks(store, FIRST, SECOND) == []
    # The recorder does see what crosses the store.
    assert base64.b64encode(IN_THE_CLEAR) in store
    calls = (directory / "plugin-calls").read_bytes()
    assert calls.count(b"exchange") >= 6
    searched = 0
    for path in directory.rglob("*"):
        if path.is_file():
            assert leaks(stored(path), FIRST, SECOND) == [], path
            searched += 1
    assert (directory / "xenward.sqlite").is_file()
    assert searched > 10


def test_the_search_reads_what_lies_between_holes(tmp_path: Path) -> None:
    with (tmp_path / "disk").open("wb") as disk:
        disk.truncate(1 << 34)
        disk.seek(1 << 33)
        disk.write(FIRST.encode())
    assert leaks(stored(tmp_path / "disk"), FIRST)
    (tmp_path / "empty").touch()
    assert stored(tmp_path / "empty") == b""


def test_the_search_finds_what_it_looks_for() -> None:
    for before in ("", "a", "ab", "abc"):
        text = (before + FIRST + "\nrest").encode()
        for data in (text, base64.b64encode(text), text.hex().encode()):
            assert leaks(data, FIRST), (before, data)
    assert leaks(b"nothing here", FIRST) == []
