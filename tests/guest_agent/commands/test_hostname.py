from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_protocol.outcomes import Refused
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context


def test_hostname(context: Context, root: Path) -> None:
    (root / "etc/os-release").write_text("ID=alpine\n")
    assert SEALED_COMMANDS["hostname"](context, '{"name": "web-1"}').data == {"name": "web-1"}
    assert context.system.hostname() == "web-1"
    assert "hostname" not in COMMANDS


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("", "bad_arguments"),
        ("{}", "bad_arguments"),
        ('{"name": 5}', "bad_arguments"),
        ('{"name": "a", "fqdn": "b"}', "bad_arguments"),
        (json.dumps({"name": "a\n127.0.0.1 evil"}), "bad_hostname"),
    ],
)
def test_bad_values(context: Context, root: Path, value: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        SEALED_COMMANDS["hostname"](context, value)
    assert caught.value.code == code
    assert not (root / "etc/hostname").exists()
