from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_protocol.identity import Identity
from agent_protocol.outcomes import Failed, Refused, Unsuccessful, Unsupported
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context, update
from guest_agent.configuration import Configuration
from guest_agent.launch import TRYING, State, read_state
from guest_agent.update.running import Process

from ..conftest import names
from ..update.agents import artefact, manifest, pack, signed, small_agent

KEY = Identity.from_private_bytes(b"\1" * 32)
OTHER_KEY = Identity.from_private_bytes(b"\2" * 32)
CONTENT = artefact("1.3.0")


@pytest.fixture
def process(updates: Path, monkeypatch: pytest.MonkeyPatch) -> Process:
    """This process, as if the launcher had started it."""
    started = Process()
    started.launched(("python3",), str(updates), None)
    monkeypatch.setattr(update, "PROCESS", started)
    return started


@pytest.fixture
def guest(context: Context, process: Process) -> Context:
    """A guest that takes updates by KEY; its agent is 1.2.3."""
    return replace(context, configuration=Configuration(update_key=KEY.public))


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*arguments: object) -> bytes:
        pytest.fail("something is fetched")

    monkeypatch.setattr("guest_agent.update.download.download", download)


def ask(guest: Context, artefact: bytes = CONTENT, /, **members: object) -> dict[str, object]:
    arguments = {**signed(KEY, "1.3.0", artefact), "content": base64.b64encode(artefact).decode(), **members}
    given = {name: value for name, value in arguments.items() if value is not None}
    return dict(SEALED_COMMANDS["agent_update"](guest, json.dumps(given)).data)


def refused(guest: Context, artefact: bytes = CONTENT, /, **members: object) -> Unsuccessful:
    """The error; nothing was installed, and nothing will be started."""
    with pytest.raises(Unsuccessful) as caught:
        ask(guest, artefact, **members)
    launch = update.PROCESS.launch
    assert launch is None or names(Path(launch.updates)) == []
    assert not update.PROCESS.restart_wanted
    return caught.value


def code(kind: type[Unsuccessful], error: Unsuccessful) -> str:
    assert type(error) is kind
    return error.code


def test_installed(guest: Context, updates: Path, process: Process) -> None:
    assert ask(guest) == {"version": "1.3.0", "previous": "1.2.3", "state": "installed"}
    assert read_state(str(updates)) == State("1.3.0", TRYING)
    assert names(updates) == ["1.3.0", "state.json"]
    assert process.restart_wanted


def test_fetched(guest: Context, updates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(url: str, scratch: str) -> bytes:
        asked.append((url, scratch))
        return CONTENT

    monkeypatch.setattr("guest_agent.update.download.download", download)
    arguments = {**signed(KEY, "1.3.0", CONTENT), "url": "https://h/a?token=geheim"}
    assert SEALED_COMMANDS["agent_update"](guest, json.dumps(arguments)).data["state"] == "installed"
    assert asked == [("https://h/a?token=geheim", f"{updates}/artefact.unfinished")]


def test_without_a_key(guest: Context, no_download: None) -> None:
    assert code(Unsupported, refused(replace(guest, configuration=Configuration()))) == "no_update_key"


def test_without_a_launcher(guest: Context, process: Process, no_download: None) -> None:
    process.launch = None
    assert code(Unsupported, refused(guest)) == "no_launcher"


def test_another_key(guest: Context, no_download: None) -> None:
    arguments = signed(OTHER_KEY, "1.3.0", CONTENT)
    url = {"url": "https://h/a", "content": None}
    assert code(Refused, refused(guest, **arguments, **url)) == "bad_signature"
    arguments = signed(KEY, "1.3.0", CONTENT)
    strangers = replace(guest, configuration=Configuration(update_key=OTHER_KEY.public))
    assert code(Refused, refused(strangers, **arguments, **url)) == "bad_signature"


@pytest.mark.parametrize("changed", [{"version": "1.4.0"}, {"sha256": "ab" * 32}, {"signature": "AAAA"}])
def test_a_changed_announcement(guest: Context, no_download: None, changed: dict[str, str]) -> None:
    arguments = {**signed(KEY, "1.3.0", CONTENT), "url": "https://h/a", "content": None, **changed}
    assert code(Refused, refused(guest, **arguments)) == "bad_signature"


@pytest.mark.parametrize("version", ["1.2.3", "1.2.2", "0.99.99", "1.2.0"])
def test_an_older_one_again(guest: Context, no_download: None, version: str) -> None:
    old = signed(KEY, version, artefact(version))
    assert code(Refused, refused(guest, **old, url="https://h/a", content=None)) == "update_not_newer"


def test_another_artefact(guest: Context) -> None:
    other = base64.b64encode(artefact("1.3.0", "# evil\n")).decode()
    assert code(Refused, refused(guest, CONTENT, content=other)) == "checksum_mismatch"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255), st.integers(0, 50))
def test_damage_never_installs(guest: Context, place: int, flipped: int, cut: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[place] ^= flipped
    damaged_text = base64.b64encode(damaged[: len(damaged) - cut]).decode()
    assert code(Refused, refused(guest, CONTENT, content=damaged_text)) == "checksum_mismatch"


def test_an_artefact_of_another_version(guest: Context) -> None:
    # The right signature over the wrong claim: an old hole under a new name.
    error = refused(guest, artefact("1.0.0"))
    assert code(Refused, error) == "bad_artefact"
    assert "it is version 1.0.0, and 1.3.0 was announced" in error.message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"no zip", "bad_artefact"),
        (pack({**small_agent("1.3.0"), "../x.py": b""}, manifest("1.3.0")), "bad_artefact"),
        (pack(small_agent("1.3.0"), manifest("1.3.0", python=">=3.99")), "python_too_old"),
        (pack(small_agent("1.3.0"), manifest("1.3.0", minimum="1.2.4")), "agent_too_old"),
    ],
    ids=["no zip", "a name that leads out", "Python", "agent"],
)
def test_signed_and_still_not_installed(guest: Context, content: bytes, expected: str) -> None:
    assert code(Refused, refused(guest, content)) == expected


def test_a_rehearsal_that_fails(guest: Context) -> None:
    error = refused(guest, artefact("1.3.0", rehearsal="1 / 0\n"))
    assert code(Failed, error) == "update_rehearsal_failed"
    assert "ZeroDivisionError" in error.message


def test_a_place_that_others_can_change(guest: Context, updates: Path, no_download: None) -> None:
    updates.chmod(0o777)
    arguments = {**signed(KEY, "1.3.0", CONTENT), "url": "https://h/a", "content": None}
    assert code(Refused, refused(guest, **arguments)) == "unsafe_directory"


@pytest.mark.parametrize(
    "members",
    [
        {"version": "1.3"},
        {"version": 5},
        {"sha256": "AB" * 32},
        {"sha256": "ab"},
        {"signature": ""},
        {"signature": None},
        {"content": None},
        {"url": "https://h/a"},
        {"content": "%"},
        {"content": 5},
        {"content": base64.b64encode(bytes(1024 * 1024 + 1)).decode()},
        {"md5": ""},
    ],
)
def test_bad_arguments(guest: Context, members: dict[str, object]) -> None:
    assert code(Refused, refused(guest, **members)) == "bad_arguments"


def test_an_insecure_address(guest: Context, no_download: None) -> None:
    assert code(Refused, refused(guest, url="http://h/a", content=None)) == "bad_url"


def test_what_is_shown_of_it() -> None:
    assert SEALED_COMMANDS["agent_update"].secret
    parsed = update.Update("1.3.0", hashlib.sha256(b"").hexdigest(), "s", "https://h/geheim", b"geheim")
    assert "geheim" not in repr(parsed)


@pytest.mark.parametrize("value", ["", "http://h/agent.tar,d41d8cd98f00b204e9800998ecf8427e", "{}"])
def test_old_hosts_are_told_why(context: Context, value: str) -> None:
    with pytest.raises(Unsupported) as caught:
        COMMANDS["agentupdate"](context, value)
    assert caught.value.code == "unsigned_update"
    assert "signed updates only" in caught.value.message
