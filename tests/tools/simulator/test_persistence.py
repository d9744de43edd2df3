"""persistence.py and journal.py: what was written is read again, whatever ended the writer; damage is said."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.simulator import model, persistence
from tools.simulator.database import Database
from tools.simulator.journal import Journal
from tools.simulator.messages import Messages
from tools.simulator.persistence import FILE_NAME, RESERVE, VOLATILE, Persistence, kind

MODEL = model.load()

# The journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal", "test 1")
    yield journal
    journal.close()


def test_a_journal_s_life(journal: Journal) -> None:
    assert journal.read() is None
    journal.rewrite([1, {"a": "ä\n"}])
    journal.append([None])
    assert Journal(journal.path, "test 1").read() == [1, {"a": "ä\n"}, [None]]
    assert journal.size == journal.path.stat().st_size
    journal.rewrite(["new"])
    journal.append("more")
    assert Journal(journal.path, "test 1").read() == ["new", "more"]
    assert [path.name for path in journal.path.parent.iterdir()] == ["journal"]


def test_an_unfinished_line_is_passed_over(journal: Journal) -> None:
    journal.rewrite(["first"])
    journal.append("second")
    content = journal.path.read_bytes()
    whole = content.rindex(b"\n", 0, -1) + 1
    for length in range(whole, len(content)):
        journal.path.write_bytes(content[:length])
        reader = Journal(journal.path, "test 1")
        assert reader.read() == ["first"]
        # Reading changes nothing; what is appended next stands in a line of its own.
        assert journal.path.read_bytes() == content[:length]
        reader.append("third")
        reader.close()
        assert Journal(journal.path, "test 1").read() == ["first", "third"]


def test_every_damage_is_said(journal: Journal) -> None:
    journal.rewrite(["first", "second"])
    content = journal.path.read_bytes()
    for position in range(len(content) - 1):
        damaged = bytearray(content)
        damaged[position] ^= 1
        journal.path.write_bytes(damaged)
        with pytest.raises(ValueError, match="nothing was changed"):
            Journal(journal.path, "test 1").read()
        assert journal.path.read_bytes() == damaged
    journal.path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        Journal(journal.path, "test 1").read()


def test_another_version_is_refused(journal: Journal) -> None:
    journal.rewrite(["first"])
    with pytest.raises(ValueError, match="another version"):
        Journal(journal.path, "test 2").read()


def test_what_could_not_be_written_is_not_there(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.rewrite(["first"])
    write = os.write

    def full(file: int, content: Any) -> int:
        if len(content) < 10:
            raise OSError(errno.ENOSPC, "no space")
        return write(file, content[: len(content) // 2])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="no space"):
        journal.append("x" * 100)
    with pytest.raises(OSError, match="no space"):
        journal.rewrite(["x" * 100])
    monkeypatch.undo()
    journal.append("second")
    assert Journal(journal.path, "test 1").read() == ["first", "second"]


# The pool


class Pool:
    """A database with its messages, and what keeps them."""

    def __init__(self, directory: Path) -> None:
        self.database = Database(MODEL)
        self.messages = Messages(self.database)
        self.persistence = Persistence(directory, MODEL, self.database, self.messages)

    def content(self) -> Any:
        """All that is kept, with the order of objects and the generations of their changes."""
        tables = {cls: list(self.database.snapshots(cls).items()) for cls in MODEL.classes if cls not in VOLATILE}
        lives = {cls: [(ref, self.database.life(cls, ref)) for ref, _ in rows] for cls, rows in tables.items()}
        return tables, lives, list(self.messages.all().items())


def loaded(directory: Path) -> Pool:
    pool = Pool(directory)
    assert pool.persistence.load()
    return pool


FIELDS = {
    "VM": ("name_label", st.text()),
    "VM_metrics": ("VCPUs_utilisation", st.dictionaries(st.integers(0, 3), st.floats(allow_nan=False))),
    "VDI": ("other_config", st.dictionaries(st.text(), st.text())),
    "VBD": ("unpluggable", st.booleans()),
    "host": ("cpu_info", st.dictionaries(st.text(), st.text())),
    "task": ("progress", st.floats(0, 1)),
}
OPERATION = st.one_of(
    *(
        st.tuples(st.sampled_from(["create", "set", "destroy"]), st.just(cls), st.integers(0, 5), values)
        for cls, (_, values) in FIELDS.items()
    ),
    st.tuples(st.just("relate"), st.just("VBD"), st.integers(0, 5), st.integers(0, 5)),
    st.tuples(st.sampled_from(["flush", "rewrite", "message", "forget"]), st.just("VM"), st.integers(0, 5), st.just(0)),
)


def perform(pool: Pool, operation: str, cls: str, number: int, value: Any) -> None:
    database, messages = pool.database, pool.messages
    refs = database.refs(cls)
    ref = refs[number % len(refs)] if refs else None
    if operation == "create":
        database.create(cls, **{FIELDS[cls][0]: value})
    elif operation == "flush":
        pool.persistence.flush()
    elif operation == "rewrite":
        with pool.persistence._guard:
            pool.persistence._rewrite()
    elif operation == "forget":
        for message in list(messages.all())[:1]:
            messages.destroy(message)
    elif ref is None:
        return
    elif operation == "set":
        database.set(cls, ref, **{FIELDS[cls][0]: value})
    elif operation == "destroy":
        database.destroy(cls, ref)
    elif operation == "relate":
        vms = database.refs("VM")
        database.set("VBD", ref, VM=vms[value % len(vms)] if vms else model.NULL_REF)
    else:
        messages.create(cls="VM", obj_uuid=database.get("VM", ref, "uuid"), name="x", priority=5, body="é")


@given(operations=st.lists(OPERATION, max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_kept_is_what_there_was(operations: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("state")
    pool = Pool(directory)
    assert not pool.persistence.load()
    half = len(operations) // 2
    for operation in operations[:half]:
        if operation[0] not in ("flush", "rewrite"):
            perform(pool, *operation)
    pool.persistence.start()
    for operation in operations[half:]:
        perform(pool, *operation)
    generation = pool.database.generation
    pool.persistence.flush()
    killed = loaded(directory)
    assert killed.content() == pool.content()
    # A client may know of generations that were used since.
    assert killed.database.generation > generation + RESERVE // 4
    pool.persistence.stop()
    again = loaded(directory)
    assert again.content() == pool.content()
    assert again.database.generation == generation
    again.persistence.start()
    again.persistence.stop()
    assert loaded(directory).content() == pool.content()


def test_the_history_goes_on(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    first, second = (pool.database.create("VM") for _ in range(2))
    pool.persistence.start()
    token = pool.database.generation
    pool.database.set("VM", first, name_label="changed")
    pool.persistence.stop()
    again = loaded(tmp_path).database
    assert [change.ref for change in again.changes("VM", token).modified] == [first]
    assert [change.ref for change in again.changes("VM", 0).added] == [first, second]
    again.set("VM", second, name_label="x")
    assert [change.ref for change in again.changes("VM", token).modified] == [second, first]
    third = again.create("VM")
    again.destroy("VM", first)
    changes = again.changes("VM", token)
    assert [change.ref for change in changes.added] == [third]
    assert [change.ref for change in changes.deleted] == [first]


def test_the_thread_writes_by_itself(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    pool.persistence.start()
    ref = pool.database.create("VM", name_label="by itself")
    deadline = time.monotonic() + 10
    while not loaded(tmp_path).database.exists("VM", ref) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert loaded(tmp_path).database.get("VM", ref, "name_label") == "by itself"
    pool.persistence.stop()


def test_what_belongs_together_is_written_together(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    pool.persistence.start()
    with pool.database.exclusively():
        vm = pool.database.create("VM")
        vbd = pool.database.create("VBD", VM=vm)
    pool.persistence.flush()
    content = (tmp_path / FILE_NAME).read_bytes()
    begun = content.index(b"\n", content.index(b'"complete"')) + 1
    for length in range(begun, len(content), 11):
        (tmp_path / FILE_NAME).write_bytes(content[:length])
        database = loaded(tmp_path).database
        assert database.exists("VM", vm) == database.exists("VBD", vbd)
    pool.persistence.stop()


def test_changes_are_short(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    ref = pool.database.create("VM")
    pool.persistence.start()
    before = (tmp_path / FILE_NAME).stat().st_size
    pool.database.set("VM", ref, name_label="another")
    # What is volatile is not written at all.
    for _ in range(100):
        pool.database.destroy("task", pool.database.create("task"))
    pool.persistence.flush()
    assert (tmp_path / FILE_NAME).stat().st_size - before < 300
    pool.persistence.stop()


def test_a_journal_that_has_grown_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.simulator.persistence._MIN_GROWTH", 1000)
    pool = Pool(tmp_path)
    ref = pool.database.create("VM")
    pool.persistence.start()
    for number in range(500):
        pool.database.set("VM", ref, name_label=str(number))
        pool.persistence.flush()
    size = (tmp_path / FILE_NAME).stat().st_size
    pool.persistence.stop()
    assert size < 500 * 100
    assert loaded(tmp_path).content() == pool.content()


def test_what_could_not_be_written_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(tmp_path)
    gone = pool.database.create("VM")
    pool.persistence.start()
    write = os.write
    broken = [True]

    def full(file: int, content: Any) -> int:
        if broken[0]:
            raise OSError(errno.ENOSPC, "no space")
        return write(file, content)

    monkeypatch.setattr(os, "write", full)
    ref = pool.database.create("VM", name_label="later")
    pool.database.destroy("VM", gone)
    with pytest.raises(OSError, match="no space"):
        pool.persistence.flush()
    broken[0] = False
    pool.persistence.flush()
    assert loaded(tmp_path).database.refs("VM") == [ref]
    pool.persistence.stop()
    assert loaded(tmp_path).content() == pool.content()


def test_another_datamodel_is_refused(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    pool.persistence.start()
    pool.persistence.stop()
    content = (tmp_path / FILE_NAME).read_bytes()
    lines = Journal(tmp_path / FILE_NAME, kind(MODEL)).read()
    Journal(tmp_path / FILE_NAME, "another datamodel").rewrite(lines or [])
    with pytest.raises(ValueError, match="another version of the simulator"):
        Pool(tmp_path).persistence.load()
    for spoil in SPOILED:
        journal = Journal(tmp_path / FILE_NAME, kind(MODEL))
        journal.rewrite(spoil(list(lines or [])))
        journal.close()
        with pytest.raises(ValueError, match="nothing was changed"):
            Pool(tmp_path).persistence.load()
    (tmp_path / FILE_NAME).write_bytes(content)
    assert loaded(tmp_path)


def _with(**changes: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda lines: [*lines, {"reserved": 1, "objects": [], "messages": [], **changes}]


SPOILED: list[Callable[[list[Any]], list[Any]]] = [
    lambda lines: [],
    lambda lines: [{**line, "complete": False} for line in lines],
    lambda lines: [*lines, "x"],
    _with(objects=[["VM", "OpaqueRef:x", 1, 1, {"name_label": "not all fields"}]]),
    _with(objects=[["no class", "OpaqueRef:x", 1, 1, {}]]),
    _with(messages=[["OpaqueRef:x", 1, "no date", {}]]),
    _with(objects=[["VM"]]),
]


@pytest.mark.parametrize("number", range(20))
def test_a_writer_that_is_killed(tmp_path: Path, number: int) -> None:
    """The child counts in two objects at once; whenever it is killed, both say the same, and never less than before."""
    pool = Pool(tmp_path)
    for name in ("a", "b"):
        pool.database.create("VM", name_label=name, memory_target=0)
    pool.persistence.start()
    pool.persistence.stop()
    counted = 0
    for _ in range(3):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            count(tmp_path, writer)
        os.close(writer)
        # It has begun, and has written this many at least.
        at_least = int(os.read(reader, 20))
        time.sleep(number / 1000)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        database = loaded(tmp_path).database
        values = [database.get("VM", ref, "memory_target") for ref in database.refs("VM")[:2]]
        assert values[0] == values[1] >= at_least >= counted
        # What was made with them is whole as well.
        for vbd, row in database.snapshots("VBD").items():
            assert vbd in database.get("VM", row["VM"], "VBDs")
        counted = values[0]


def count(directory: Path, told: int) -> None:
    """In the child: change the pool as fast as it can, for ever."""
    try:
        # So that it is also killed while it writes all anew.
        persistence._MIN_GROWTH = 5000
        pool = loaded(directory)
        pool.persistence.start()
        database = pool.database
        vms = database.refs("VM")[:2]
        while True:
            with database.exclusively():
                for vm in vms:
                    value = database.get("VM", vm, "memory_target") + 1
                    database.set("VM", vm, memory_target=value)
                if value % 10 == 0:
                    database.create("VBD", VM=vms[0])
                elif value % 10 == 5 and database.refs("VBD"):
                    database.destroy("VBD", database.refs("VBD")[0])
            if value % 50 == 0:
                pool.persistence.flush()
                if told >= 0:
                    os.write(told, b"%d" % value)
                    os.close(told)
                    told = -1
    finally:
        os._exit(1)


def test_no_token_is_ever_ahead(tmp_path: Path) -> None:
    """What is volatile uses generations too, which clients are told of; a killed writer has said enough in advance."""
    pool = Pool(tmp_path)
    pool.persistence.start()
    for _ in range(3):
        for _ in range(10):
            pool.database.destroy("task", pool.database.create("task"))
        pool.persistence.flush(reserve=12)
        assert loaded(tmp_path).database.generation > pool.database.generation
    pool.persistence._reserved = pool.database.generation + 5
    pool.persistence.flush(reserve=12)
    assert loaded(tmp_path).database.generation == pool.database.generation + 12
    pool.persistence.stop()
    assert loaded(tmp_path).database.generation == pool.database.generation
