from __future__ import annotations

import pytest

from guest_agent.commands import COMMANDS, Context


@pytest.mark.parametrize("value", ["", "agent", "xentools", "anything\0"])
def test_version_whatever_is_asked(context: Context, value: str) -> None:
    assert COMMANDS["version"](context, value) == "1.2.3"


def test_features(context: Context) -> None:
    assert COMMANDS["features"](context, "").split(",") == sorted(COMMANDS)
