from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from agent_protocol.outcomes import Failed, Refused, Unknown, Unsupported
from guest_agent.network import undo
from guest_agent.network.apply import Applied, apply
from guest_agent.network.renderer import Change
from guest_agent.network.undo import UNDO_FILE, recover
from guest_agent.system.directory import DirectorySystem
from guest_agent.system.paths import GuestPath

from .standins import ETH0, ETH1, ONE, TWO, FileRenderer, RunningDirectory, picture

RENDERER = FileRenderer()
RENDERERS = {RENDERER.name: RENDERER}


@pytest.fixture
def system(root: Path) -> RunningDirectory:
    """A system with ONE active, and files that a change must not lose."""
    running = RunningDirectory(root)
    apply(running, RENDERER, ONE)
    (root / "etc/net/eth0").chmod(0o600)
    (root / "etc/net/obsolete").write_bytes(b"old \xff\0\n")
    (root / "etc/net/obsolete").chmod(0o4711)
    running.live.ran.clear()
    return running


def test_apply(system: RunningDirectory, root: Path) -> None:
    applied = apply(system, RENDERER, TWO)
    assert applied == Applied(("/etc/net/eth0", "/etc/net/eth1", "/etc/net/obsolete"), 3)
    assert system.live.ran == [["reload"], ["up", "eth0"], ["up", "eth1"]]
    assert (root / "etc/net/eth0").read_text() == f"{ETH0}\n192.0.2.6/24\n2001:db8::6/64"
    assert not (root / "etc/net/obsolete").exists()
    # A narrower mode stays, a new file has the one that was asked for.
    assert [(root / f"etc/net/{name}").stat().st_mode & 0o777 for name in ("eth0", "eth1")] == [0o600, 0o640]
    assert {str(address) for _, address in system.live.standing} == {
        "192.0.2.6/24",
        "2001:db8::6/64",
        "198.51.100.6/24",
    }
    assert not (root / UNDO_FILE.text[1:]).exists()


def test_twice(system: RunningDirectory) -> None:
    apply(system, RENDERER, TWO)
    system.live.ran.clear()
    assert apply(system, RENDERER, TWO) == Applied((), 3)
    assert len(system.live.ran) == 3


def test_a_mode_that_is_too_wide_is_a_change(system: RunningDirectory, root: Path) -> None:
    (root / "etc/net/eth0").chmod(0o644)
    (root / "etc/net/obsolete").unlink()
    assert apply(system, RENDERER, ONE).changed == ("/etc/net/eth0",)
    assert (root / "etc/net/eth0").stat().st_mode & 0o777 == 0o640


def test_files_that_belong_to_the_change(system: RunningDirectory, root: Path) -> None:
    also = [Change(GuestPath("/etc/also"), b"x")]
    assert "/etc/also" in apply(system, RENDERER, TWO, also=also).changed
    assert (root / "etc/also").read_bytes() == b"x"


def test_a_directory_gets_files_only(root: Path) -> None:
    for name, mac in (("lo", "00:00:00:00:00:00"), ("eth7", ETH0.upper())):
        (root / f"sys/class/net/{name}").mkdir(parents=True)
        (root / f"sys/class/net/{name}/address").write_text(mac + "\n")
    assert apply(DirectorySystem(str(root)), RENDERER, ONE) == Applied(("/etc/net/eth7",), None)


def test_a_directory_without_names(root: Path) -> None:
    with pytest.raises(Unsupported, match=f"tells the name of {ETH0}") as caught:
        apply(DirectorySystem(str(root)), RENDERER, ONE)
    assert caught.value.code == "names_unknown"


def assert_refused(system: RunningDirectory, root: Path, code: str, data: Any = TWO) -> None:
    before = picture(root)
    with pytest.raises(Refused) as caught:
        apply(system, RENDERER, data)
    assert caught.value.code == code
    assert (picture(root), system.live.ran) == (before, [])


def test_interfaces_that_are_not_there(system: RunningDirectory, root: Path) -> None:
    del system.live.known[ETH1]
    assert_refused(system, root, "no_such_interface")
    system.live.known[ETH1] = ["eth1", "eth2"]
    assert_refused(system, root, "ambiguous_interface")


def test_a_link_in_a_files_place(system: RunningDirectory, root: Path) -> None:
    (root / "etc/net/eth1").symlink_to("eth0")
    assert_refused(system, root, "not_a_file")


def test_files_that_are_too_large(system: RunningDirectory, root: Path) -> None:
    (root / "etc/net/eth1").write_bytes(bytes(undo.MAX_READ))
    assert_refused(system, root, "network_files_too_large")


def failed(system: RunningDirectory, code: str) -> str:
    with pytest.raises(Failed) as caught:
        apply(system, RENDERER, TWO)
    assert caught.value.code == code
    return caught.value.message


@pytest.mark.parametrize(
    "error",
    [
        Failed("program_failed", "up ended with 1: no carrier"),
        Unknown("program_timeout", "up was ended after 17 s"),
        Unsupported("program_missing", "this guest has no up"),
    ],
)
def test_a_program_that_fails(system: RunningDirectory, root: Path, error: Failed | Unknown | Unsupported) -> None:
    before, standing = picture(root), set(system.live.standing)
    errors: Iterator[Failed | Unknown | Unsupported] = iter([error])

    def spoil(arguments: Sequence[str]) -> None:
        if arguments == ["up", "eth1"]:
            for error in errors:
                raise error

    system.live.spoil = spoil
    message = failed(system, "network_failed")
    assert message == f"the files cannot be made active: {error.message}; the old configuration is back"
    assert (picture(root), system.live.standing) == (before, standing)
    # The second time for the old files.
    assert system.live.ran == [["reload"], ["up", "eth0"], ["up", "eth1"]] * 2


def test_an_address_that_does_not_come_up(system: RunningDirectory, root: Path) -> None:
    before, standing = picture(root), set(system.live.standing)
    system.live.lame = {"eth1"}
    message = failed(system, "network_failed")
    assert message == "the files are active, but 198.51.100.6/24 does not come up; the old configuration is back"
    assert (picture(root), system.live.standing) == (before, standing)


def test_a_file_that_cannot_be_written(system: RunningDirectory, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = picture(root)
    link = os.link

    def full(source: str, target: str, **options: Any) -> None:
        if target == "eth1":
            raise OSError(28, "No space left on device")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", full)
    message = failed(system, "network_failed")
    assert message.startswith("/etc/net/eth1 cannot be written: ENOSPC")
    assert message.endswith("; the old configuration is back")
    # What was never active need not be activated.
    assert (picture(root), system.live.ran) == (before, [])


def test_an_error_of_the_agents_own(system: RunningDirectory, root: Path) -> None:
    before = picture(root)

    def spoil(arguments: Sequence[str]) -> None:
        if len(system.live.ran) == 2:
            raise ZeroDivisionError

    system.live.spoil = spoil
    with pytest.raises(ZeroDivisionError):
        apply(system, RENDERER, TWO)
    assert picture(root) == before


def test_an_old_configuration_that_does_not_work_either(system: RunningDirectory, root: Path) -> None:
    before = picture(root)

    def spoil(arguments: Sequence[str]) -> None:
        raise Failed("program_failed", f"{arguments[0]} is broken")

    system.live.spoil = spoil
    message = failed(system, "network_lost")
    assert message == (
        "the files cannot be made active: reload is broken; and the old files are back, but cannot be made active: "
        "reload is broken"
    )
    assert picture(root) == before


def test_an_old_address_that_does_not_come_back(system: RunningDirectory, root: Path) -> None:
    before = picture(root)
    system.live.lame = {"eth0", "eth1"}
    assert failed(system, "network_lost").endswith("; and the old files are back and active, but not 192.0.2.5/24")
    assert picture(root) == before


def test_files_that_cannot_be_put_back(system: RunningDirectory, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = picture(root)
    system.live.lame = {"eth1"}

    def full(*arguments: Any) -> NoReturn:
        raise Failed("enospc", "ENOSPC: no room")

    with monkeypatch.context() as patched:
        patched.setattr(undo, "put_back", full)
        message = failed(system, "network_lost")
    assert "; and files cannot be put back: ENOSPC: no room" in message
    # The record stays, so nothing new is begun, and the next start of the agent tries again.
    system.live.lame = set()
    with pytest.raises(Refused) as caught:
        apply(system, RENDERER, TWO)
    assert caught.value.code == "network_undo_pending"
    recover(system, RENDERERS)
    assert picture(root) == before
    apply(system, RENDERER, TWO)


STEPS = ("rename", "link", "unlink", "fsync", "fchmod", "write")
"""What apply does to the disk, by the functions of os."""


def run_until(step: int, work: Callable[[], object]) -> bool:
    """Do the work in a process that ends, as if by a power failure, before its step of that number."""
    child = os.fork()
    if child == 0:
        remaining = [step]

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                remaining[0] -= 1
                if remaining[0] < 0:
                    os._exit(9)
                return function(*arguments, **options)

            return call

        try:
            for name in STEPS:
                setattr(os, name, counted(getattr(os, name)))
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), code
    return code == 0


def test_a_crash_at_any_step(system: RunningDirectory, root: Path) -> None:
    before = picture(root)
    step = 0
    while not run_until(step, lambda: apply(system, RENDERER, TWO)):
        undone = (root / UNDO_FILE.text[1:]).exists()
        recover(system, RENDERERS)
        if picture(root) != before:
            break
        assert undone or step < 5, step
        step += 1
    # The record and a new file are written in five steps each, one that replaces another in six, one is removed in two,
    # and then the record is. All is done as soon as that is gone; the last step only makes sure that it stays so.
    assert step == 19
    assert not (root / UNDO_FILE.text[1:]).exists()
    assert set(picture(root)) ^ set(before) == {"etc/net/eth1", "etc/net/obsolete"}
    assert apply(system, RENDERER, TWO).changed == ()


def test_a_crash_at_any_step_of_going_back(system: RunningDirectory, root: Path) -> None:
    before = picture(root)
    system.live.lame = {"eth1"}
    step = 0
    while True:

        def fail() -> None:
            with pytest.raises(Failed):
                apply(system, RENDERER, TWO)

        ended = run_until(step, fail)
        recover(system, RENDERERS)
        assert picture(root) == before, step
        if ended:
            break
        step += 1
    assert step > 30
