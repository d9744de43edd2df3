from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from agent_protocol.outcomes import Busy
from compute_driver.service.presence import Presence

HOLDING = """
import sys
from contextlib import ExitStack
from pathlib import Path
from compute_driver.service.presence import Presence

it = Presence(Path(sys.argv[1]))
with ExitStack() as stack:
    if sys.argv[2] == "alone":
        print(it.alone(), it.holder, sep="|", flush=True)
    else:
        is_first = stack.enter_context(it.entering(0.0))
        if sys.argv[2] == "together":
            stack.close()
        print(is_first, it.holder, sep="|", flush=True)
    sys.stdin.read()
"""


class Process:
    """Another process that holds the file: alone, together, or that is still coming in."""

    def __init__(self, path: Path, how: str) -> None:
        command = [sys.executable, "-c", HOLDING, str(path), how]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said, self.holder = self._process.stdout.readline().rstrip("\n").split("|")
        self.got = said == "True"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "host.lock"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as it:
        yield it


@pytest.fixture
def presence(path: Path, stack: ExitStack) -> Presence:
    return stack.enter_context(closing(Presence(path)))


def other(stack: ExitStack, path: Path, how: str) -> Process:
    it = Process(path, how)
    stack.callback(it.kill)
    return it


def enter(presence: Presence, timeout: float = 0.0) -> bool:
    with presence.entering(timeout) as is_first:
        return is_first


def test_who_is_alone_is_until_he_is_killed(presence: Presence, path: Path, stack: ExitStack) -> None:
    service = other(stack, path, "alone")
    assert service.got
    assert not presence.alone()
    with pytest.raises(Busy) as caught:
        enter(presence, 0.1)
    assert caught.value.code == "host_held"
    service.kill()
    assert presence.alone()
    # Asking again changes nothing.
    assert presence.alone()


def test_the_holders_name_is_the_files_and_not_the_processs(presence: Presence, path: Path, stack: ExitStack) -> None:
    assert other(stack, path, "alone").holder == presence.holder
    with closing(Presence(path.with_name("another"))) as another:
        assert another.holder != presence.holder
    assert len(presence.holder) <= 255
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_first_is_alone_while_he_comes_in(presence: Presence, path: Path, stack: ExitStack) -> None:
    first = other(stack, path, "entering")
    assert first.got
    assert not presence.alone()
    with pytest.raises(Busy):
        enter(presence, 0.1)
    # Nobody knows how far he came: whoever is next is the first again.
    first.kill()
    assert enter(presence)


def test_who_finds_others_is_not_the_first(presence: Presence, path: Path, stack: ExitStack) -> None:
    before = other(stack, path, "together")
    assert before.got
    assert not enter(presence)
    after = other(stack, path, "together")
    assert not after.got
    before.kill()
    after.kill()
    assert presence.alone()


def test_the_last_of_many_can_be_alone(path: Path, stack: ExitStack) -> None:
    one, two = (stack.enter_context(closing(Presence(path))) for _ in range(2))
    assert enter(one)
    assert not enter(two)
    assert not one.alone()
    # Who tried holds nothing any more.
    assert two.alone()


def test_who_waits_comes_in_when_the_service_ends(presence: Presence, path: Path, stack: ExitStack) -> None:
    service = other(stack, path, "alone")
    said: list[bool] = []
    thread = threading.Thread(target=lambda: said.append(enter(presence, 30.0)))
    thread.start()
    thread.join(0.2)
    assert said == []
    service.kill()
    thread.join(30)
    assert said == [True]


def test_of_those_who_wait_for_a_killed_service_one_is_the_first(path: Path, stack: ExitStack) -> None:
    service = other(stack, path, "alone")
    presences = [stack.enter_context(closing(Presence(path))) for _ in range(4)]
    order: list[bool] = []

    def come(presence: Presence) -> None:
        with presence.entering(30.0) as is_first:
            order.append(is_first)

    threads = [threading.Thread(target=come, args=(presence,)) for presence in presences]
    for thread in threads:
        thread.start()
    service.kill()
    for thread in threads:
        thread.join(30)
    assert order == [True, False, False, False]


def test_those_who_come_at_the_same_moment_are_no_company(
    path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, look = threading.Barrier(2), Presence._is_shared

    def look_when_both_are_there(self: Presence) -> bool:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.3)
        return look(self)

    monkeypatch.setattr(Presence, "_is_shared", look_when_both_are_there)
    presences = [stack.enter_context(closing(Presence(path))) for _ in range(2)]
    order: list[bool] = []
    threads = [threading.Thread(target=lambda it: order.append(enter(it, 30.0)), args=(it,)) for it in presences]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(order) == [False, True]


def test_a_child_process_does_not_keep_it(path: Path, presence: Presence) -> None:
    assert presence.alone()
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        presence.close()
        with closing(Presence(path)) as another:
            assert another.alone()
    finally:
        child.kill()
        child.wait()


def test_where_there_is_no_boot_id_there_is_a_name_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("compute_driver.service.presence._BOOT_ID", tmp_path / "none")
    with closing(Presence(path)) as it:
        assert " -/" in it.holder
