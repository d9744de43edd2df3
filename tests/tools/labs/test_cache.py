"""What a lab keeps is complete or absent, made once, and says why it cannot be made."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tools.labs.cache import LabError, kept, run


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "xenward"


def test_it_is_made_once_and_kept(cache: Path) -> None:
    made = []

    def make(directory: Path) -> None:
        made.append(directory)
        assert not directory.exists()
        directory.mkdir()
        (directory / "content").write_text("complete")

    for _ in range(2):
        assert kept("things", "one", make) == cache / "things" / "one"
    assert (cache / "things/one/content").read_text() == "complete"
    assert len(made) == 1


def test_what_failed_halfway_is_begun_again(cache: Path) -> None:
    def fail(directory: Path) -> None:
        directory.mkdir()
        (directory / "half").touch()
        raise LabError("no")

    with pytest.raises(LabError):
        kept("things", "one", fail)
    assert not (cache / "things/one").exists()
    assert list(kept("things", "one", Path.mkdir).iterdir()) == []


def test_others_wait_while_it_is_made(cache: Path) -> None:
    def make(directory: Path) -> None:
        with (cache / "things/one.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        directory.mkdir()

    kept("things", "one", make)
    with (cache / "things/one.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    assert run(["sh", "-c", "pwd"], tmp_path) == f"{tmp_path}\n"
    with pytest.raises(LabError, match="sh ended with 3: its words"):
        run(["sh", "-c", "echo its words >&2; exit 3"])
    with pytest.raises(LabError, match="no-such-program cannot be run"):
        run(["no-such-program"])
