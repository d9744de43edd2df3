from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Failed, Refused, Unsupported
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context
from guest_agent.commands.freeze import MAX_SECONDS, _parse_freeze
from guest_agent.system.freezing import Freezer, Frozen, Thawed


class FakeFreezer(Freezer):
    """Notes for how many seconds something is frozen, None for nothing."""

    seconds: float | None = None

    def freeze(self, seconds: float) -> Frozen:
        self.seconds = seconds
        return Frozen(("/data", "/"), ("/boot/efi",), 9.98765)

    def thaw(self) -> Thawed:
        if self.seconds is None:
            raise Failed("made_up", "of a freezer")
        self.seconds = None
        return Thawed(("/", "/data"), 1.23456)


@pytest.fixture
def freezer(context: Context, tmp_path: Path) -> FakeFreezer:
    context.freezer = made = FakeFreezer(str(tmp_path))
    return made


@pytest.mark.parametrize(("value", "seconds"), [("{}", 10), ('{"seconds": 1}', 1), ('{"seconds": 60}', 60)])
def test_freeze(context: Context, freezer: FakeFreezer, value: str, seconds: int) -> None:
    assert SEALED_COMMANDS["freeze"](context, value).data == {
        "filesystems": ["/data", "/"],
        "skipped": ["/boot/efi"],
        "until_seconds": 9.988,
    }
    assert freezer.seconds == seconds


@pytest.mark.parametrize("value", ["", "anything"])
def test_thaw(context: Context, freezer: FakeFreezer, value: str) -> None:
    freezer.seconds = 5
    assert SEALED_COMMANDS["thaw"](context, value).data == {"seconds": 1.235, "filesystems": ["/", "/data"]}
    assert freezer.seconds is None


def test_errors_of_the_freezer_come_through(context: Context, freezer: FakeFreezer) -> None:
    with pytest.raises(Failed) as caught:
        SEALED_COMMANDS["thaw"](context, "")
    assert (caught.value.code, freezer.seconds) == ("made_up", None)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "10",
        "[]",
        '{"seconds": 0}',
        '{"seconds": -1}',
        '{"seconds": 61}',
        '{"seconds": 1.5}',
        '{"seconds": true}',
        '{"seconds": "10"}',
        '{"seconds": null}',
        '{"seconds": 1e1}',
        '{"other": 1}',
    ],
)
def test_bad_arguments(context: Context, freezer: FakeFreezer, value: str) -> None:
    with pytest.raises(Refused) as caught:
        SEALED_COMMANDS["freeze"](context, value)
    assert caught.value.code == "bad_arguments"
    assert freezer.seconds is None


@given(st.text() | st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_whatever_comes_is_a_number_of_seconds_or_refused(value: str) -> None:
    try:
        assert 1 <= _parse_freeze(value) <= MAX_SECONDS
    except Refused as error:
        assert error.code == "bad_arguments"


@pytest.mark.parametrize(("name", "value"), [("freeze", "{}"), ("thaw", "")])
def test_a_directory_cannot_be_frozen(context: Context, name: str, value: str) -> None:
    with pytest.raises(Unsupported) as caught:
        SEALED_COMMANDS[name](context, value)
    assert caught.value.code == "nothing_runs"


def test_only_sealed() -> None:
    assert not {"freeze", "thaw"} & COMMANDS.keys()
