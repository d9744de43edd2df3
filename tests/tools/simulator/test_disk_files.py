"""Disks that outlive their process: their files and what disk_index.py wrote down make the same disks again."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.simulator import disk_index
from tools.simulator.disks import BLOCK, Disks

SIZE = 5 * BLOCK + 512


def loaded(directory: Path) -> Disks:
    disks = Disks(directory)
    disks.load()
    return disks


def content(disks: Disks) -> dict[str, Any]:
    """All that can be asked about all disks."""
    names = sorted(disks.names("sr"))
    return {
        name: (
            disks.read(name, 0, 2 * SIZE),
            disks.size(name),
            disks.parent(name),
            disks.is_shared(name),
            disks.utilisation(name),
            disks.allocated(name, BLOCK),
        )
        for name in names
    }


OPERATION = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 5), st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=3000)),
    st.tuples(st.just("fill"), st.integers(0, 5), st.integers(0, 4), st.sampled_from([b"\0", b"f"])),
    st.tuples(st.sampled_from(["create", "branch", "remove", "load"]), st.integers(0, 5), st.just(0), st.just(b"")),
    st.tuples(st.just("resize"), st.integers(0, 5), st.integers(1, 2 * BLOCK), st.just(b"")),
)


@given(operations=st.lists(OPERATION, max_size=25))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_loaded_disks_are_the_same(operations: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("state") / "disks"
    disks = Disks(directory)
    disks.set_capacity("sr", 2**40)
    disks.create("first", "sr", SIZE)
    for number, (operation, chosen, offset, data) in enumerate(operations):
        names = sorted(name for name in disks.names("sr") if not disks.is_shared(name))
        name = names[chosen % len(names)] if names else ""
        if operation == "create":
            disks.create(f"new-{number}", "sr", SIZE)
        elif operation == "load":
            disks.close()
            disks = loaded(directory)
        elif not name:
            continue
        elif operation == "write":
            disks.write(name, offset, data[: disks.size(name) - offset])
        elif operation == "fill":
            disks.write(name, offset * BLOCK, data * BLOCK)
        elif operation == "branch":
            disks.branch(name, f"shared-{number}", f"branch-{number}")
        elif operation == "remove":
            disks.remove(name)
        else:
            disks.resize(name, disks.size(name) + offset)
    before = content(disks)
    disks.close()
    again = loaded(directory)
    assert content(again) == before
    assert again.capacity("sr") == 2**40
    again.remove_repository("sr")
    assert list(directory.iterdir()) == []
    again.close()
    assert loaded(directory).names("sr") == []


def layered(directory: Path) -> Disks:
    """A disk `a`, whose clone is `b`, above what both have in common."""
    disks = Disks(directory)
    disks.create("a", "sr", SIZE)
    disks.write("a", 0, b"x" * SIZE)
    disks.branch("a", "base", "b")
    disks.write("a", 10, b"a" * 10)
    disks.write("b", 2 * BLOCK, b"b" * 10)
    return disks


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("operation", ["create", "branch", "remove", "merge"])
def test_an_operation_that_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    """Wherever it ends among its calls to the system, a restart finds what it was to become, or what was before."""
    step, outcomes = 0, set()
    while True:
        directory = tmp_path / str(step)
        disks = layered(directory)
        a, b = disks.read("a", 0, SIZE), disks.read("b", 0, SIZE)
        left = step

        def count() -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1

        with monkeypatch.context() as patch:
            for owner, name in ((os, "pwrite"), (os, "write"), (os, "truncate"), (Path, "rename"), (Path, "unlink")):
                interrupt(patch, owner, name, count)
            for owner, name in ((Path, "replace"), (Path, "open")):
                interrupt(patch, owner, name, count)
            try:
                if operation == "create":
                    disks.create("c", "sr", SIZE)
                elif operation == "branch":
                    disks.branch("b", "shared", "c")
                elif operation == "remove":
                    disks.remove("a")
                else:
                    disks._index.note("remove", "a")
                    (directory / "a").unlink()
                    del disks._layers["a"]
                    disks._merge("b")
                done = True
            except Killed:
                done = False
        disks.close()
        again = loaded(directory)
        assert again.read("b", 0, SIZE) == b
        if "a" in again.names("sr"):
            assert again.read("a", 0, SIZE) == a
        if "c" in again.names("sr"):
            assert again.read("c", 0, SIZE) == (bytes(SIZE) if operation == "create" else b)
        outcomes.add(tuple(sorted(again.names("sr"))))
        # And it goes on from there.
        again.write("b", 3 * BLOCK - 5, b"z" * 10)
        expected = again.read("b", 0, SIZE)
        again.close()
        assert loaded(directory).read("b", 0, SIZE) == expected
        if done:
            break
        step += 1
    assert step > 1
    assert len(outcomes) > 1


def interrupt(patch: pytest.MonkeyPatch, owner: Any, name: str, count: Any) -> None:
    original = getattr(owner, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        count()
        return original(*arguments, **named)

    patch.setattr(owner, name, counted)


def test_a_block_of_which_only_the_beginning_was_written(tmp_path: Path) -> None:
    disks = layered(tmp_path / "disks")
    # A writer that is killed while it copies a block from the layer below leaves some pages of it.
    with (tmp_path / "disks/b").open("r+b") as file:
        file.seek(3 * BLOCK)
        file.write(b"w" * 4096)
        file.seek(5 * BLOCK - 4096)
        file.write(b"w" * 4096)
    disks.close()
    read = loaded(tmp_path / "disks").read("b", 0, SIZE)
    assert read[3 * BLOCK : 5 * BLOCK] == b"w" * 4096 + b"x" * (2 * BLOCK - 8192) + b"w" * 4096
    assert read[5 * BLOCK :] == b"x" * 512


def test_files_that_are_missing(tmp_path: Path) -> None:
    directory = tmp_path / "disks"
    layered(directory).close()
    (directory / "a").unlink()
    assert sorted(loaded(directory).names("sr")) == ["b", "base"]
    journal = (tmp_path / "disks.journal").read_bytes()
    (directory / "base").rename(tmp_path / "base")
    with pytest.raises(ValueError, match="base is missing; nothing was changed"):
        Disks(directory).load()
    assert (tmp_path / "disks.journal").read_bytes() == journal
    (tmp_path / "base").rename(directory / "base")
    assert loaded(directory).read("b", 0, 1) == b"x"


def test_a_damaged_index(tmp_path: Path) -> None:
    layered(tmp_path / "disks").close()
    path = tmp_path / "disks.journal"
    lines = path.read_bytes()
    path.write_bytes(lines.replace(b"base", b"bose"))
    with pytest.raises(ValueError, match="damaged"):
        Disks(tmp_path / "disks").load()
    index = disk_index.DiskIndex(tmp_path / "disks")
    for line in (["remove", "nobody"], ["else", "a"], ["create"]):
        index._journal.rewrite([line])
        index.close()
        with pytest.raises(ValueError, match="does not fit together"):
            Disks(tmp_path / "disks").load()
    path.write_bytes(lines)
    assert loaded(tmp_path / "disks").read("b", 0, 1) == b"x"


def test_a_file_system_that_tells_no_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layered(tmp_path / "disks").close()
    monkeypatch.setattr(disk_index, "extents", lambda file, size: iter([(0, size)]))
    with pytest.raises(OSError, match="cannot tell the holes"):
        Disks(tmp_path / "disks").load()


def test_nothing_to_load(tmp_path: Path) -> None:
    disks = loaded(tmp_path / "disks")
    assert disks.names("sr") == []
    disks.create("a", "sr", SIZE)
    disks.close()
    assert loaded(tmp_path / "disks").names("sr") == ["a"]


@pytest.mark.parametrize("number", range(15))
def test_a_process_that_is_killed(tmp_path: Path, number: int) -> None:
    """However busy it was, what it had written long before is there, through all layers."""
    directory = tmp_path / "disks"
    disks = layered(directory)
    expected = disks.read("a", 0, SIZE), disks.read("b", 0, SIZE)
    disks.close()
    for _ in range(2):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            churn(directory, writer)
        os.close(writer)
        assert os.read(reader, 1) == b"+"
        time.sleep(number / 500)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        disks = loaded(directory)
        assert (disks.read("a", 0, SIZE), disks.read("b", 0, SIZE)) == expected
        for name in disks.names("sr"):
            # Each disk was written with one letter only, above the others' `x`.
            letters = set(disks.read(name, 0, SIZE)) - set(b"x\0ab")
            assert len(letters) <= 26
            assert disks.size(name) == SIZE
        disks.close()


def churn(directory: Path, told: int) -> None:
    """In the child: clone, write and remove for ever, but never write to `a` and `b`."""
    try:
        disks, chance = loaded(directory), random.Random(os.getpid())
        os.write(told, b"+")
        number = 0
        while True:
            number += 1
            clones = [name for name in disks.names("sr") if name.startswith("c-")]
            if len(clones) > 5:
                disks.remove(chance.choice(clones))
            source = chance.choice(["a", "b", *clones])
            clone = f"c-{os.getpid()}-{number}"
            if source in disks.names("sr"):
                disks.branch(source, f"s-{os.getpid()}-{number}", clone)
                for _ in range(5):
                    disks.write(clone, chance.randrange(SIZE - 5000), b"q" * 5000)
    finally:
        os._exit(1)
