from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest

from agent_protocol.outcomes import Failed, Refused, Unknown, Unsuccessful
from guest_agent.launch import PROVEN, ROLLED_BACK, TRYING, State, choose, read_state, write_state
from guest_agent.update import installation
from guest_agent.update.artefact import Artefact, read_artefact
from guest_agent.update.installation import check_requirements, install, prepare
from guest_agent.update.running import Launch

from ..conftest import names
from .agents import artefact, put, small_agent, taken

NEW = read_artefact(artefact("1.3.0"))


def failed(kind: type[Unsuccessful], launch: Launch, artefact: Artefact) -> tuple[str, str]:
    with pytest.raises(kind) as caught:
        install(launch, artefact, "/")
    return caught.value.code, caught.value.message


def test_installed_and_to_be_tried(updates: Path, launch: Launch) -> None:
    umask = os.umask(0)
    try:
        install(launch, NEW, "/")
    finally:
        os.umask(umask)
    assert names(updates) == ["1.3.0", "state.json"]
    assert taken(updates / "1.3.0") == NEW.files
    assert read_state(str(updates)) == State("1.3.0", TRYING)
    for path in (updates / "1.3.0").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.suffix == ".pyc", path
        assert not path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((updates / "1.3.0").stat().st_mode) == 0o700
    # There is bytecode for each module already.
    assert len(list((updates / "1.3.0").rglob("*.pyc"))) == len(NEW.files)


def test_the_one_that_runs_is_the_previous_one(updates: Path, launch: Launch) -> None:
    put(updates / "1.2.0", small_agent("1.2.0"))
    write_state(str(updates), State("1.2.0", PROVEN))
    install(replace(launch, version="1.2.0"), NEW, "/")
    assert read_state(str(updates)) == State("1.3.0", TRYING, previous="1.2.0")
    assert names(updates) == ["1.2.0", "1.3.0", "state.json"]


def test_what_is_left_of_earlier_attempts_goes(updates: Path, launch: Launch) -> None:
    put(updates / "1.3.0.unfinished", {"guest_agent/old.py": b""})
    put(updates / "1.3.0", {"guest_agent/old.py": b""})
    put(updates / "1.0.0", small_agent("1.0.0"))
    (updates / "artefact.unfinished").write_bytes(b"")
    (updates / "link").symlink_to("/etc")
    write_state(str(updates), State("1.3.0", ROLLED_BACK, 2, None, "it crashed"))
    install(launch, NEW, "/")
    assert names(updates) == ["1.3.0", "state.json"]
    assert taken(updates / "1.3.0") == NEW.files


@pytest.mark.parametrize("broken", [b"{", b"[]", None])
def test_a_broken_state_is_replaced(updates: Path, launch: Launch, broken: bytes | None) -> None:
    if broken is None:
        (updates / "state.json").mkdir()
    else:
        (updates / "state.json").write_bytes(broken)
    install(launch, NEW, "/")
    assert read_state(str(updates)) == State("1.3.0", TRYING)


@pytest.mark.parametrize(
    ("rehearsal", "reason"),
    [
        ("def rehearse(root): raise ValueError('no\\nway')", "it ended with 1: ValueError: no way"),
        ("import nothing_like_that", "it ended with 1: ModuleNotFoundError: No module named 'nothing_like_that'"),
        ("import sys; sys.exit('stop')", "it ended with 1: SystemExit: stop"),
        ("import os; os.abort()", "it ended with -6: it said nothing"),
    ],
)
def test_a_rehearsal_that_fails(updates: Path, launch: Launch, rehearsal: str, reason: str) -> None:
    before = State("1.2.0", PROVEN)
    write_state(str(updates), before)
    code, message = failed(Failed, launch, read_artefact(artefact("1.3.0", rehearsal=rehearsal)))
    assert (code, message) == ("update_rehearsal_failed", f"the update was tried and is not installed: {reason}")
    assert names(updates) == ["state.json"]
    assert read_state(str(updates)) == before


def test_a_rehearsal_that_hangs(updates: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "REHEARSAL_SECONDS", 0.5)
    hangs = read_artefact(artefact("1.3.0", rehearsal="import signal\nsignal.pause()\n"))
    assert failed(Failed, launch, hangs)[0] == "update_rehearsal_failed"
    assert names(updates) == []


def test_the_rehearsal_is_the_new_code_s_for_this_guest(updates: Path, launch: Launch) -> None:
    rehearsal = "import guest_agent\ndef rehearse(root): raise ValueError(guest_agent.VERSION + root)\n"
    new = read_artefact(artefact("1.3.0", rehearsal=rehearsal))
    with pytest.raises(Failed, match=r"1\.3\.0/srv/guest"):
        install(launch, new, "/srv/guest")


def test_code_that_is_no_python(updates: Path, launch: Launch) -> None:
    for source in (b"def", b"\0", b"\xff"):
        files = {**NEW.files, "guest_agent/x.py": source}
        assert failed(Refused, launch, replace(NEW, files=files))[0] == "bad_artefact"
        assert names(updates) == []


def test_code_of_another_version(updates: Path, launch: Launch) -> None:
    code, message = failed(Refused, launch, replace(NEW, version="1.4.0"))
    assert code == "bad_artefact"
    assert "another version" in message
    assert names(updates) == []


def test_requirements() -> None:
    check_requirements(NEW, "0.1.0")
    for artefact_, running, code in [
        (replace(NEW, python=999), "1.0.0", "python_too_old"),
        (replace(NEW, minimum=(1, 2, 3)), "1.2.2", "agent_too_old"),
    ]:
        with pytest.raises(Refused) as caught:
            check_requirements(artefact_, running)
        assert caught.value.code == code


def test_the_directory_is_made(updates: Path) -> None:
    updates.rmdir()
    updates.parent.rmdir()
    prepare(str(updates))
    assert [stat.S_IMODE(path.stat().st_mode) for path in (updates, updates.parent)] == [0o700, 0o700]
    prepare(str(updates))


def open_directory(updates: Path) -> None:
    updates.chmod(0o777)


def open_sticky_directory(updates: Path) -> None:
    updates.chmod(0o1777)


def group_can_swap(updates: Path) -> None:
    updates.parent.chmod(0o775)


def link(updates: Path) -> None:
    updates.rename(updates.with_name("elsewhere"))
    updates.symlink_to("elsewhere")


def link_above(updates: Path) -> None:
    updates.parent.rename(updates.parent.with_name("elsewhere"))
    updates.parent.symlink_to("elsewhere")


SPOILED = [open_directory, open_sticky_directory, group_can_swap, link, link_above]


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_directory_that_others_can_change(updates: Path, spoil: Callable[[Path], None]) -> None:
    spoil(updates)
    with pytest.raises(Refused) as caught:
        prepare(str(updates))
    assert caught.value.code == "unsafe_directory"


def test_a_directory_of_somebody_else(updates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    if os.getuid() == 0:
        # The superuser's directories are good for everybody; for this, they have to be another user's.
        os.chown(updates, 12345, 12345)
    with pytest.raises(Refused) as caught:
        prepare(str(updates))
    assert caught.value.code == "unsafe_directory"


class Killed(BaseException):
    """What stands for the end of the process at some step."""


CHANGES = ("open", "mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "chmod", "write")
"""Every call by which Python's os changes a disk here; replace is what py_compile uses."""


class Dying:
    """Ends the process at its `last` change of the disk; after that it can do nothing any more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
        self.remaining = last
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        for name in CHANGES:
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.remaining == 0:
                raise Killed
            self.remaining -= 1
            # A descriptor by the name of what it is open for.
            told = [
                str(Path(f"/proc/self/fd/{argument}").readlink())
                if name == "fsync" and isinstance(argument, int)
                else argument
                for argument in arguments
            ]
            self.calls.append((name, tuple(told)))
            return real(*arguments, **options)

        return call


def dying(last: int, work: Callable[[], object]) -> tuple[bool, list[tuple[str, tuple[Any, ...]]]]:
    """Whether `work` came to its end, and its changes of the disk."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        process = Dying(monkeypatch, last)
        try:
            work()
        except Killed:
            return False, process.calls
    return True, process.calls


def situations(tmp_path: Path) -> Iterator[tuple[Path, Path, Launch, dict[str, dict[str, bytes]]]]:
    """For each number of steps: a packaged agent, an update that runs, remains of an earlier one, and what they are."""
    old = small_agent("1.2.0")
    packaged = tmp_path / "packaged"
    put(packaged, small_agent("1.1.0"))
    for number in range(10_000):
        updates = tmp_path / f"updates{number}"
        put(updates / "1.2.0", old)
        put(updates / "1.3.0", {"guest_agent/__init__.py": b'VERSION = "1.3.0"\n'})
        updates.chmod(0o700)
        write_state(str(updates), State("1.2.0", PROVEN, previous="1.3.0"))
        launch = Launch(("python3",), str(updates), "1.2.0")
        yield packaged, updates, launch, {"1.2.0": old, "1.3.0": dict(NEW.files)}


def test_death_at_any_step_leaves_a_complete_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_rehearse", lambda directory, root: None)
    chosen = []
    for number, (packaged, updates, launch, complete) in enumerate(situations(tmp_path)):
        ended, _ = dying(number, lambda launch=launch: install(launch, NEW, "/"))  # type: ignore[misc]
        choice = choose(str(updates), str(packaged))
        assert choice.version is not None
        assert taken(Path(choice.directory)) == complete[choice.version]
        # And who comes later can install it.
        if not chosen or chosen[-1] != choice.version or number % 10 == 0:
            install(launch, NEW, "/")
            assert taken(updates / "1.3.0") == NEW.files
        chosen.append(choice.version)
        if ended:
            break
    # Before some step it is the old one, and from there on the new one.
    assert chosen == sorted(chosen)
    assert set(chosen) == {"1.2.0", "1.3.0"}
    assert len(chosen) > 50


def test_everything_is_on_the_disk_before_it_gets_its_name(updates: Path, launch: Launch) -> None:
    ended, calls = dying(10_000, lambda: install(launch, NEW, "/"))
    assert ended
    unfinished = str(updates / "1.3.0.unfinished")
    renamed = next(n for n, (name, told) in enumerate(calls) if name == "rename" and str(told[0]) == unfinished)
    synced = {str(told[0]) for name, told in calls[:renamed] if name == "fsync"}
    wanted = {str(path).replace("1.3.0", "1.3.0.unfinished") for path in (updates / "1.3.0").rglob("*")}
    assert synced >= {*wanted, unfinished}
    # The name lasts before the state file speaks of it.
    switched = next(n for n, (name, told) in enumerate(calls) if name == "rename" and "state.json" in str(told[0]))
    assert ("fsync", (str(updates),)) in calls[renamed:switched]
    assert ("fsync", (str(updates / "state.json.unfinished"),)) in calls[renamed:switched]
    assert ("fsync", (str(updates),)) in calls[switched:]


def test_death_of_the_launcher_at_any_step(tmp_path: Path) -> None:
    """An attempt is counted before the new code runs, or the new code does not run."""
    packaged, updates = tmp_path / "packaged", tmp_path / "updates"
    put(packaged, small_agent("1.1.0"))
    put(updates / "1.3.0", small_agent("1.3.0"))
    updates.chmod(0o700)
    for number in range(100):
        write_state(str(updates), State("1.3.0", TRYING))
        ended, _ = dying(number, lambda: choose(str(updates), str(packaged)))
        state = read_state(str(updates))
        assert state is not None
        assert state.attempts in ((1,) if ended else (0, 1))
        if ended:
            assert number > 3
            return
    pytest.fail("it never ended")


def test_a_full_disk(updates: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert failed(Failed, launch, NEW)[0] == "enospc"
    assert names(updates) == []


def test_a_switch_that_may_not_last(updates: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.rename

    def rename(source: str, target: str) -> None:
        real(source, target)
        if target.endswith("state.json"):
            monkeypatch.setattr(os, "fsync", broken)

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "rename", rename)
    assert failed(Unknown, launch, NEW)[0] == "update_state_unknown"
