"""`xenward console …`: what comes from a guest does not steer a terminal, and a token shows on demand only."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_driver.cli.console import visible

from .service import Service, run, shown

LOG = b"boot\r\n\x1b[2Jlogin: \xff\xe2\x80\xaelive\x07\r\n\xc3\xa9nd\t."
SCREEN = {
    "host": "192.0.2.1",
    "port": 443,
    "internal_access_path": "/console?uuid=1",
    "tls": True,
    "token": "OpaqueRef:secret-token",
}


class Terminal(io.TextIOWrapper):
    """Standard output, as a terminal or not."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def log(monkeypatch: pytest.MonkeyPatch, *options: str, terminal: bool) -> bytes:
    out = Terminal(terminal)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", out)
        assert run("console", "log", "show", "web", *options) == 0
    written: Any = out.buffer
    return bytes(written.getvalue())


@pytest.fixture(autouse=True)
def answers(service: Service) -> None:
    service.answers["get_console_output"] = base64.b64encode(LOG).decode()
    service.answers["get_vnc_console"] = SCREEN


def test_a_terminal_is_not_steered(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    told = log(monkeypatch, terminal=True)
    assert told.decode() == "boot\n\\x1b[2Jlogin: \\xff\\u202elive\\x07\nénd\t.\n"
    assert service.calls == [("get_console_output", {"target": "web"})]


def test_bytes_are_as_they_are_for_programs_and_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    assert log(monkeypatch, terminal=False) == LOG
    assert log(monkeypatch, "--raw", terminal=True) == LOG


def test_the_last_lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert log(monkeypatch, "--lines", "1", terminal=False) == b"\xc3\xa9nd\t."
    assert log(monkeypatch, "--lines", "2", terminal=True).startswith(b"\\x1b[2Jlogin")
    assert log(monkeypatch, "--lines", "99", terminal=False) == LOG


def test_an_empty_log_is_empty(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.answers["get_console_output"] = ""
    assert log(monkeypatch, terminal=True) == b""


@given(st.binary())
def test_nothing_invisible_is_left(untrusted: bytes) -> None:
    told = visible(untrusted)
    assert all(it.isprintable() or it in "\n\t" for it in told)
    told.encode("utf-8")


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_stays(text: str) -> None:
    assert visible(text.encode()) == text


def test_a_screen_is_shown_without_its_token(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("console", "url", "show", "web", "-f", "json") == 0
    told = shown(capsys)
    assert told["url"] == "https://192.0.2.1:443/console?uuid=1"
    assert "token" not in told and "secret-token" not in str(told)
    assert service.calls == [("get_vnc_console", {"target": "web"})]


def test_a_token_is_shown_on_demand(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.answers["get_vnc_console"] = {**SCREEN, "host": "2001:db8::1", "tls": False}
    assert run("console", "url", "show", "web", "--show-token", "-f", "json") == 0
    told = shown(capsys)
    assert (told["url"], told["token"]) == ("http://[2001:db8::1]:443/console?uuid=1", "OpaqueRef:secret-token")


def test_a_token_that_ends_with_the_command_is_refused(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.is_embedded = True
    assert run("console", "url", "show", "web", "--show-token") == 3
    assert "bus_embedded" in capsys.readouterr().err
    assert service.calls == []
