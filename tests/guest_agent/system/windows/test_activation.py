from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Failed, Refused, Unknown
from guest_agent.system.windows import WindowsSystem
from guest_agent.system.windows.activation import ACTIVATION_SECONDS, parse_server
from guest_agent.system.windows.api import Ended

from .fakes import FakeWindows

ENVIRONMENT = {"SystemRoot": "C:\\Windows", "PATH": "C:\\Windows\\system32"}
SLMGR = ["C:\\Windows\\system32\\cscript.exe", "//Nologo", "C:\\Windows\\system32\\slmgr.vbs"]


def test_activation(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.machine.activated = True
    windows.run.answers = [Ended(0, "set"), Ended(0, "Product activated successfully.")]
    assert system.activate("kms.example.com:1688") == "Product activated successfully."
    assert windows.run.seen == [
        ([*SLMGR, "/skms", "kms.example.com:1688"], ENVIRONMENT, ACTIVATION_SECONDS),
        ([*SLMGR, "/ato"], ENVIRONMENT, ACTIVATION_SECONDS),
    ]


def test_the_server_that_is_set_already(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.machine.activated = True
    assert system.activate(None) == "done"
    assert [arguments for arguments, _, _ in windows.run.seen] == [[*SLMGR, "/ato"]]


@pytest.mark.parametrize("step", [0, 1])
def test_steps_that_fail(system: WindowsSystem, windows: FakeWindows, step: int) -> None:
    windows.machine.activated = True
    windows.run.answers = [*[Ended(0, "fine")] * step, Ended(-1073422221, "Error: 0xC004F074 no server")]
    with pytest.raises(Failed) as caught:
        system.activate("kms.example.com")
    assert caught.value.code == "activation_failed"
    assert ["/skms", "/ato"][step] in caught.value.message
    assert "0xc004e073: Error: 0xC004F074 no server" in caught.value.message
    assert len(windows.run.seen) == step + 1


def test_words_alone_are_no_success(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.run.answers = [Ended(0, "Notification mode")]
    with pytest.raises(Failed, match="not activated: Notification mode"):
        system.activate(None)
    windows.machine.errors["licensed"] = -1073418238
    with pytest.raises(Failed, match="done; but nobody can tell") as caught:
        system.activate(None)
    assert caught.value.code == "activation_failed"


def test_a_program_that_hangs(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.machine.activated = True
    windows.run.answers = [Unknown("program_timeout", "")]
    with pytest.raises(Unknown):
        system.activate(None)


@pytest.mark.parametrize(
    "server",
    [
        "kms",
        "kms.example.com",
        "kms.example.com:1688",
        "192.0.2.1",
        "192.0.2.1:65535",
        "[2001:db8::1]",
        "[::1]:1688",
        "a" * 63,
    ],
)
def test_servers(server: str) -> None:
    assert parse_server(server) == server


@pytest.mark.parametrize(
    "server",
    [
        "",
        "/ato",
        "/upk",
        "-x",
        "a b",
        "a;b",
        "a&b",
        'a"',
        "a\n",
        "kms:0",
        "kms:65536",
        "kms:",
        "kms:x",
        "kms:+5",
        "kms:\u0661",
        ":1688",
        "::1",
        "2001:db8::1",
        "[::1",
        "::1]:5",
        "[::1%eth0]",
        "[kms]",
        "[]:1688",
        "k\u00e4s",
        "a..b",
        "a" * 64,
        "a." * 127 + "a",
    ],
)
def test_servers_that_are_none(system: WindowsSystem, windows: FakeWindows, server: str) -> None:
    with pytest.raises(Refused) as caught:
        system.activate(server)
    assert caught.value.code == "bad_server"
    assert windows.run.seen == []


@given(st.one_of(st.text(max_size=20), st.text("[]:./a1-%", max_size=12)))
def test_nothing_but_refusals(server: str) -> None:
    try:
        accepted = parse_server(server)
    except Refused:
        return
    assert accepted == server and accepted.isascii() and accepted.isprintable()
    assert accepted[0] not in "/-" and " " not in accepted
