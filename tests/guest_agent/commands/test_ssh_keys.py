from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_protocol.outcomes import Busy, Refused
from guest_agent.commands import COMMANDS, Context
from guest_agent.commands.ssh_keys import MAX_KEYS
from guest_agent.configuration import Configuration
from guest_agent.system.cloud_init import CloudInit

from ..conftest import ssh_key


def run(context: Context, **members: object) -> str:
    return COMMANDS["ssh_keys"](context, json.dumps({"user": "ann", **members})).message


def test_add_and_remove(context: Context, root: Path) -> None:
    keys = root / "home/ann/.ssh/authorized_keys"
    assert run(context, add=[ssh_key(1), ssh_key(2)]) == "2 added, 0 removed"
    assert run(context, add=[ssh_key(2, "again"), ssh_key(3)], remove=[ssh_key(1)]) == "1 added, 1 removed"
    assert keys.read_text() == f"{ssh_key(2)}\n{ssh_key(3)}\n"


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({}, "bad_arguments"),
        ({"add": [], "remove": []}, "bad_arguments"),
        ({"add": ssh_key(1)}, "bad_arguments"),
        ({"add": [5]}, "bad_arguments"),
        ({"add": [""] * (MAX_KEYS + 1)}, "bad_arguments"),
        ({"add": [ssh_key(1)], "remove": [ssh_key(1, "same")]}, "bad_arguments"),
        ({"add": ["ssh-rsa nonsense"]}, "bad_key"),
        ({"user": "", "add": [ssh_key(1)]}, "bad_arguments"),
        ({"user": 5, "add": [ssh_key(1)]}, "bad_arguments"),
        ({"user": "a\nb", "add": [ssh_key(1)]}, "bad_user_name"),
        ({"user": "nobody", "add": [ssh_key(1)]}, "no_such_user"),
    ],
)
def test_bad_arguments(context: Context, root: Path, members: dict[str, object], code: str) -> None:
    with pytest.raises(Refused) as caught:
        run(context, **members)
    assert caught.value.code == code
    assert not (root / "home/ann/.ssh").exists()


def test_the_limit_is_named(context: Context) -> None:
    with pytest.raises(Refused, match=f"at most {MAX_KEYS} entries, this one {MAX_KEYS + 1}"):
        run(context, remove=["x"] * (MAX_KEYS + 1))


def test_while_cloud_init_is_at_work(context: Context, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context.system, "cloud_init", lambda: CloudInit(enabled=True, at_work=True))
    with pytest.raises(Busy) as caught:
        run(context, add=[ssh_key(1)])
    assert caught.value.code == "cloud_init_at_work"
    assert not (root / "home/ann/.ssh").exists()
    monkeypatch.setattr(context.system, "cloud_init", lambda: CloudInit(enabled=True))
    assert run(context, add=[ssh_key(1)]) == "1 added, 0 removed"


def test_where_the_keys_are_cloud_inits(context: Context, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context.configuration = Configuration(cloud_init_ssh_keys="refuse")
    for at_work in (True, False):
        found = CloudInit(enabled=True, at_work=at_work)
        monkeypatch.setattr(context.system, "cloud_init", lambda found=found: found)
        with pytest.raises(Refused) as caught:
            run(context, add=[ssh_key(1)])
        assert caught.value.code == "cloud_init_owns_ssh_keys"
    monkeypatch.setattr(context.system, "cloud_init", CloudInit)
    assert run(context, add=[ssh_key(1)]) == "1 added, 0 removed"
