"""The plugin as it is shipped: one file that xapi starts with one argument and next to no environment."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import sys
import xmlrpc.client
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.xenstore import connect
from dom0_plugins.frames import FRAME_SIZE, MAX_REPLY_SIZE
from tests.agent_protocol.store import DEADLINE, in_background
from tests.dom0_plugins.conftest import Guest, request, slices
from tests.dom0_plugins.test_frames import text_of
from tests.interpreters import interpreter, minors
from tools.packages.dom0_plugin import INTERPRETER, build
from tools.simulator.xenstore.server import XenStoreServer

PATH = "/sbin:/usr/sbin:/bin:/usr/bin"
"""The whole environment that xapi gives a plugin."""


def document(function: str, arguments: dict[str, str]) -> str:
    """The call in xapi's own words, which leaves characters beyond ASCII as they are."""

    def escape(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")

    members = "".join(
        f"<member><name>{name}</name>{f'<value>{escape(value)}</value>' if value else '<value/>'}</member>"
        for name, value in arguments.items()
    )
    session = "<param><value>OpaqueRef:0</value></param>"
    struct = f"<param><value><struct>{members}</struct></value></param>"
    return f"<methodCall><methodName>{function}</methodName><params>{session}{struct}</params></methodCall>"


def run(plugin: Path, store: Path, function: str, arguments: dict[str, str], cwd: str = "/") -> dict[str, Any]:
    """Start the plugin as xapi does; it must end well, print one response and nothing else."""
    done = subprocess.run(
        [str(plugin), document(function, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={"PATH": PATH, "XENSTORED_PATH": str(store)},
        cwd=cwd,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    (answer,), method = xmlrpc.client.loads(done.stdout)
    assert method is None and done.stdout.count(b"<methodResponse>") == 1 and isinstance(answer, dict)
    return answer


def hold_a_conversation(plugin: Path, server: XenStoreServer, guest: Guest) -> None:
    """One request to an agent that this process plays, one to a VM that is not there, and one unknown function."""
    entry = request(guest, 'how do you do, "Grüße" & <密>?')
    absent = request("00000000-0000-0000-0000-0000000000aa")

    def agent() -> str:
        value = guest.take(entry["id"]).decode("utf-8")
        guest.reply(entry["id"], "fein, »密« & <\r\n>\0".encode())
        return value

    heard = in_background(agent)
    requests = json.dumps([entry], ensure_ascii=False)
    answer = run(plugin, server.socket, "exchange", {"requests": requests, "timeout": str(DEADLINE), "empty": ""})
    assert heard.result(DEADLINE) == entry["value"]
    assert answer["Status"] == "Success"
    expected = {"id": entry["id"], "delivery": "answered", "value": "fein, »密« & <\r\n>\0"}
    assert json.loads(answer["Value"]) == [expected]
    assert guest.leftovers() == []
    answer = run(plugin, server.socket, "exchange", {"requests": json.dumps([absent]), "timeout": "0"})
    assert json.loads(answer["Value"]) == [{"id": absent["id"], "delivery": "absent"}]
    exchange_in_frames(plugin, server, guest)
    guest.store.write("data/xenward/agent", "Grüße".encode())
    answer = run(plugin, server.socket, "adverts", {"vms": json.dumps([guest.vm]), "timeout": str(DEADLINE)})
    assert json.loads(answer["Value"]) == {guest.vm: "Grüße"}
    answer = run(plugin, server.socket, "status", {})
    assert json.loads(answer["Value"])["xenstore"] == "ok"
    assert "console_log" in json.loads(run(plugin, server.socket, "version", {})["Value"])["functions"]
    log = plugin.parent / "console"
    log.write_bytes(bytes(range(256)) * 401)
    with connect(str(server.socket)) as dom0:
        dom0.write("/local/logconsole/@", str(log).encode())
    answer = json.loads(run(plugin, server.socket, "console_log", {"vm": guest.vm})["Value"])
    assert base64.b64decode(answer["data"]) == log.read_bytes()[-100 * 1024 :]
    assert (answer["log"], answer["size"]) == ("read", 256 * 401)
    answer = run(plugin, server.socket, "größe", {})
    assert answer == {"Status": "Failure", "ErrorDescription": ["UNKNOWN_XENAPI_PLUGIN_FUNCTION", "größe"]}


def exchange_in_frames(plugin: Path, server: XenStoreServer, guest: Guest) -> None:
    """A request of 100 frames in calls of 48, as many as one argument holds, and a reply as large as is collected."""
    text = text_of(99 * FRAME_SIZE + 1)
    entry = request(guest)

    def agent() -> str:
        received = "".join(guest.take_frames(entry["id"], range(100)))
        guest.reply_in_frames(entry["id"], text_of(MAX_REPLY_SIZE))
        return received

    heard = in_background(agent)
    for part in slices(entry, text, 48):
        arguments = {"requests": json.dumps([part]), "timeout": str(DEADLINE)}
        (result,) = json.loads(run(plugin, server.socket, "exchange", arguments)["Value"])
        assert result["delivery"] == ("answered" if part["frames"]["last"] else "continue")
    assert (heard.result(DEADLINE), result["box"]) == (text, text_of(MAX_REPLY_SIZE))
    assert guest.leftovers() == []


def test_one_exchange(server: XenStoreServer, guest: Guest, tmp_path: Path) -> None:
    build(tmp_path / "xenward", sys.executable)
    hold_a_conversation(tmp_path / "xenward", server, guest)


@pytest.mark.services
@pytest.mark.parametrize("minor", minors())
def test_one_exchange_under_every_python(server: XenStoreServer, guest: Guest, tmp_path: Path, minor: int) -> None:
    build(tmp_path / "xenward", interpreter(minor))
    hold_a_conversation(tmp_path / "xenward", server, guest)


def test_refusals_are_answers(server: XenStoreServer, guest: Guest, tmp_path: Path) -> None:
    plugin = tmp_path / "xenward"
    build(plugin, sys.executable)
    bad = run(plugin, server.socket, "exchange", {"requests": "hunter2", "timeout": "1"})
    assert bad["Status"] == "Failure"
    assert bad["ErrorDescription"][0] == "XENWARD_BAD_REQUEST" and "hunter2" not in str(bad)
    no_store = run(plugin, tmp_path / "nothing", "exchange", {"requests": "[]", "timeout": "1"})
    assert no_store["ErrorDescription"][0] == "XENWARD_XENSTORE"


def test_nothing_outside_changes_what_runs(server: XenStoreServer, guest: Guest, tmp_path: Path) -> None:
    """A module of the same name, beside the plugin or where it is started, is not imported."""
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong module')\n")
    (tmp_path / "agent_protocol.py").write_text("raise SystemExit('the wrong package')\n")
    build(tmp_path / "xenward", sys.executable)
    entry = request(guest)
    guest.store.write(f"data/guest/{entry['id']}", b"fine")
    arguments = {"requests": json.dumps([entry]), "timeout": "0"}
    answer = run(tmp_path / "xenward", server.socket, "exchange", arguments, cwd=str(tmp_path))
    assert json.loads(answer["Value"])[0]["value"] == "fine"


def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        build(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_file_is_what_xapi_looks_for(tmp_path: Path) -> None:
    destination = tmp_path / "dist" / "xenward"
    command = [sys.executable, "-m", "tools.packages.dom0_plugin", str(destination)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], env={"PATH": os.environ["PATH"]})
    assert stat.S_IMODE(destination.stat().st_mode) == 0o755
    assert re.match(rb"#!%b -IS\nPK" % INTERPRETER.encode(), destination.read_bytes())
