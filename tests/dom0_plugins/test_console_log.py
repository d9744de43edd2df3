"""The end of a guest's serial console, as dom0 keeps it."""

from __future__ import annotations

import base64
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.xenstore import Client
from dom0_plugins import __main__ as main
from dom0_plugins import console_log as module
from dom0_plugins.console_log import MAX_BYTES, console_log
from dom0_plugins.xapi import PluginFailure
from tests.dom0_plugins.conftest import Guest


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where xenconsoled keeps logs when XenStore names no place."""
    default = tmp_path / "default"
    default.mkdir()
    monkeypatch.setattr(module, "DIRECTORY", str(default))
    return default


def ask(dom0: Client, guest: Guest) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(console_log({"vm": guest.vm}, dom0))
    return answer


def read(answer: dict[str, Any]) -> bytes:
    assert answer["log"] == "read", answer
    return base64.b64decode(answer["data"], validate=True)


def configure(dom0: Client, path: object, key: str = "@") -> None:
    dom0.write(f"/local/logconsole/{key}", str(path).encode())


def test_the_pattern_names_each_domain_s_own(dom0: Client, guest: Guest, other: Guest, tmp_path: Path) -> None:
    configure(dom0, tmp_path / "console.%d")
    (tmp_path / "console.7").write_bytes(b"\xff\x1b[0m seven\r\n\0")
    (tmp_path / "console.8").write_bytes(b"eight")
    assert ask(dom0, guest) == {
        "log": "read",
        "size": 14,
        "data": base64.b64encode(b"\xff\x1b[0m seven\r\n\0").decode(),
    }
    assert read(ask(dom0, other)) == b"eight"


def test_a_domain_s_own_node_comes_first(dom0: Client, guest: Guest, tmp_path: Path) -> None:
    configure(dom0, tmp_path / "console.%d")
    configure(dom0, tmp_path / "special", "7")
    (tmp_path / "console.7").write_bytes(b"common")
    (tmp_path / "special").write_bytes(b"special")
    assert read(ask(dom0, guest)) == b"special"


@pytest.mark.parametrize("size", [0, 1, MAX_BYTES - 1, MAX_BYTES, MAX_BYTES + 1, 3 * MAX_BYTES])
def test_only_the_end_is_read(dom0: Client, guest: Guest, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "log").write_bytes(content)
    configure(dom0, tmp_path / "log")
    answer = ask(dom0, guest)
    assert read(answer) == content[-MAX_BYTES:]
    assert answer["size"] == size


def test_without_a_node_it_is_where_xenconsoled_puts_it(dom0: Client, guest: Guest, directory: Path) -> None:
    assert ask(dom0, guest) == {"log": "none"}
    dom0.write(f"{guest.domain}/name", b"instance-1")
    (directory / "guest-instance-1.log").write_bytes(b"hello")
    assert read(ask(dom0, guest)) == b"hello"


def test_a_name_leads_to_no_other_directory(dom0: Client, guest: Guest, directory: Path) -> None:
    (directory / "guest-").mkdir()
    (directory.parent / "secret.log").write_bytes(b"not yours")
    dom0.write(f"{guest.domain}/name", b"/../../secret")
    assert ask(dom0, guest) == {"log": "none"}


@pytest.mark.parametrize("path", ["", "relative", "/a/nul\0byte", "/missing/directory/console.%d"])
def test_a_place_that_is_none(dom0: Client, guest: Guest, path: str) -> None:
    configure(dom0, path)
    assert ask(dom0, guest) == {"log": "none"}


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "device", "socket"])
def test_only_regular_files_are_read(dom0: Client, guest: Guest, tmp_path: Path, kind: str) -> None:
    log = tmp_path / "log"
    if kind == "link":
        (tmp_path / "secret").write_bytes(b"not yours")
        log.symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(log)
    elif kind == "directory":
        log.mkdir()
    elif kind == "device":
        log = Path("/dev/zero")
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as listener:
        if kind == "socket":
            log = Path(short) / "log"
            listener.bind(str(log))
        configure(dom0, log)
        answer = ask(dom0, guest)
    assert answer["log"] == "refused" and "data" not in answer


def test_a_vm_that_does_not_run(dom0: Client) -> None:
    answer = console_log({"vm": "00000000-0000-0000-0000-0000000000aa"}, dom0)
    assert json.loads(answer) == {"log": "absent"}


@pytest.mark.parametrize("arguments", [{}, {"vm": ""}, {"vm": "../../etc"}])
def test_what_is_no_vm(dom0: Client, arguments: dict[str, str]) -> None:
    with pytest.raises(PluginFailure) as caught:
        console_log(arguments, dom0)
    assert caught.value.description[0] == "XENWARD_BAD_REQUEST"


def test_a_store_that_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, guest: Guest) -> None:
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "nothing"))
    with pytest.raises(PluginFailure) as caught:
        main.console_log({"vm": guest.vm})
    assert caught.value.description[0] == "XENWARD_XENSTORE"
