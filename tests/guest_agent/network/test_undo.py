from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent_protocol.outcomes import Failed
from guest_agent.network.undo import UNDO_FILE, Undo, keep, recover, undo_pending
from guest_agent.system.paths import GuestPath
from guest_agent.system.snapshots import take_snapshot

from .standins import ETH0, ETH1, TWO, FileRenderer, RunningDirectory, picture

RENDERERS = {"standin": FileRenderer()}


@pytest.fixture
def system(root: Path) -> RunningDirectory:
    """A system on which a change of two files was interrupted."""
    running = RunningDirectory(root)
    (root / "etc/net").mkdir()
    (root / "etc/net/eth0").write_bytes(b"\0\xff\n192.0.2.5/24")
    (root / "etc/net/eth0").chmod(0o604)
    paths = [GuestPath("/etc/net/eth0"), GuestPath("/etc/net/eth1")]
    keep(str(root), Undo("standin", TWO, tuple(take_snapshot(str(root), path) for path in paths)))
    (root / "etc/net/eth0").unlink()
    (root / "etc/net/eth1").write_text("new")
    return running


def record(root: Path) -> Path:
    return root / UNDO_FILE.text[1:]


def test_the_record_is_for_the_superuser_only(system: RunningDirectory, root: Path) -> None:
    assert record(root).stat().st_mode & 0o7777 == 0o600
    assert set(json.loads(record(root).read_text())["files"]["/etc/net/eth0"]) == {"content", "mode", "uid", "gid"}


def test_recover(system: RunningDirectory, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    recover(system, RENDERERS)
    assert picture(root)["etc/net/eth0"][0::3] == (0o604, b"\0\xff\n192.0.2.5/24")
    assert not (root / "etc/net/eth1").exists()
    assert not record(root).exists()
    assert system.live.ran == [["reload"], ["up", "eth0"], ["up", "eth1"]]
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]
    recover(system, RENDERERS)
    assert len(system.live.ran) == 3
    assert len(caplog.records) == 1


def test_only_what_is_still_there_is_made_active(system: RunningDirectory, root: Path) -> None:
    del system.live.known[ETH0]
    assert undo_pending(system, RENDERERS)
    assert system.live.ran == [["reload"], ["up", "eth1"]]


def test_nothing_is_there_any_more(system: RunningDirectory, root: Path) -> None:
    system.live.known.clear()
    assert undo_pending(system, RENDERERS)
    assert (system.live.ran, record(root).exists()) == ([], False)


def test_a_program_that_fails(system: RunningDirectory, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    def spoil(arguments: Sequence[str]) -> None:
        raise Failed("program_failed", "no")

    system.live.spoil = spoil
    recover(system, RENDERERS)
    assert (root / "etc/net/eth0").exists()
    assert not record(root).exists()
    assert "the old files are back, but cannot be made active: no" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"v":2}',
        b'{"v":1,"stack":"standin","network":{},"files":{}}',
        b'{"v":1,"stack":"other","network":{"interfaces":[{"mac":"00:16:3e:00:00:01"}]},"files":{}}',
        b'{"v":1,"stack":"standin","network":{"interfaces":[{"mac":"00:16:3e:00:00:01"}]},"files":{"etc":{}}}',
        b'{"v":1,"stack":"standin","network":{"interfaces":[{"mac":"00:16:3e:00:00:01"}]},"files":{"/f":[]}}',
        b'{"v":1,"stack":"standin","network":{"interfaces":[{"mac":"00:16:3e:00:00:01"}]},"files":{"/f":{"content":5}}}',
        b'{"v":1,"stack":"standin","network":{"interfaces":[{"mac":"00:16:3e:00:00:01"}]},"files":5}',
    ],
)
def test_records_that_are_none(
    system: RunningDirectory, root: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    record(root).write_bytes(content)
    before = picture(root)
    with pytest.raises(Failed) as caught:
        undo_pending(system, RENDERERS)
    assert caught.value.code == "network_lost"
    recover(system, RENDERERS)
    assert [entry.levelno for entry in caplog.records] == [logging.ERROR]
    assert picture(root) == before
    assert ETH1 not in caplog.text
