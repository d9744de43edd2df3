"""Keeps a pool's objects in a file, so that they are there again when the simulator is started again.

The database tells each change to one observer here, which only notes what changed; a thread writes all that has changed
since, PERIOD seconds later, as one line of a journal (journal.py). So a change costs its caller next to nothing, and
whoever kills the simulator loses the changes of the last PERIOD, or of the time that a line needs if that is longer,
and never a part of what belongs together: what is done with the database held is in one line. Sessions and tasks are
not kept, and neither is the history of deletions, as in xapi.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .changes import Life
from .database import Database, Operation, Row
from .journal import Journal
from .messages import Message, Messages
from .model import Model, Type

LOG = logging.getLogger("xenward.simulator.persistence")

FILE_NAME = "pool.journal"
"""Below the state directory."""

PERIOD = 0.05
"""Seconds from a change until it is written, together with what else changes meanwhile."""

RESERVE = 1_000_000
"""How many generations a line says in advance that they may have been used. A client may know of one that no line
tells: after a restart the database goes on beyond all of them, so no client's token is ever ahead of it."""

VOLATILE = frozenset({"session", "task"})
"""Classes whose objects end with the simulator."""

_MESSAGE = "message"
_CHUNK = 200
_MIN_GROWTH = 8 * 1024 * 1024
_MAX_GROWTH = 2
"""The journal is written anew when what was appended is longer than _MIN_GROWTH bytes and than this many times what it
began with."""


def kind(model: Model) -> str:
    """What a journal of this datamodel's objects calls itself: one of other classes or fields cannot be read."""
    fields = [
        (cls.name, name, field.type)
        for cls in model.classes.values()
        if cls.is_stored and cls.name not in VOLATILE
        for name, field in cls.fields.items()
    ]
    digest = hashlib.sha256(repr(sorted(fields, key=lambda item: item[:2])).encode()).hexdigest()
    return f"xenward simulator: pool of datamodel {digest[:16]}"


class Persistence:
    """The file of one pool. load() once, then start() once, then stop() once.

    ValueError of load() when the file is damaged or of another version; then nothing is changed. OSError when it cannot
    be read or written.
    """

    def __init__(self, directory: Path, model: Model, database: Database, messages: Messages) -> None:
        self._model = model
        self._database = database
        self._messages = messages
        self._journal = Journal(directory / FILE_NAME, kind(model))
        self._int_keyed = {
            cls.name: fields
            for cls in model.classes.values()
            if (fields := [name for name, field in cls.fields.items() if _is_int_keyed(field.type)])
        }
        # As the file has it: by class and reference.
        self._lives: dict[str, dict[str, tuple[Life, Row]]] = {cls: {} for cls in model.classes if cls not in VOLATILE}
        self._kept_messages: dict[str, Message] = {}
        self._reserved = 0
        self._changed: dict[tuple[str, str], None] = {}
        self._first_size = 0
        self._guard = threading.Lock()
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    # Reading

    def load(self) -> bool:
        """Fill an empty database and empty messages with what the file holds. False when there is no file."""
        lines = self._journal.read()
        if lines is None:
            return False
        try:
            for line in lines:
                self._read(line)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"{self._journal.path} does not fit together; nothing was changed") from error
        if not any(line.get("complete") for line in lines):
            raise ValueError(f"{self._journal.path} is damaged: its end is missing; nothing was changed")
        self._database.restore(self._lives, self._reserved)
        self._messages.restore(self._kept_messages.values())
        return True

    def _read(self, line: dict[str, Any]) -> None:
        self._reserved = line["reserved"]
        for cls, ref, created, last, fields in line["objects"]:
            lives = self._lives[cls]
            if fields is None:
                lives.pop(ref, None)
                continue
            for name in self._int_keyed.get(cls, ()):
                if name in fields:
                    fields[name] = {int(key): value for key, value in fields[name].items()}
            row = {**lives[ref][1], **fields} if ref in lives else fields
            if row.keys() != self._model.classes[cls].fields.keys():
                raise ValueError("the fields are not those of the class")
            lives[ref] = (Life(created, last), row)
        for ref, generation, moment, row in line["messages"]:
            if row is None:
                self._kept_messages.pop(ref, None)
            else:
                self._kept_messages[ref] = Message(ref, generation, row, datetime.datetime.fromisoformat(moment))

    # Writing

    def start(self) -> None:
        """Write all that there is now, and from then on all that changes."""
        with self._database.exclusively():
            self._database.observe(self._note)
            rows = {cls: self._database.snapshots(cls) for cls in self._lives}
            self._lives = {
                cls: {ref: (self._database.life(cls, ref), row) for ref, row in table.items()}
                for cls, table in rows.items()
            }
            self._kept_messages = self._messages.all()
            self._reserved = self._database.generation + RESERVE
        self._rewrite()
        self._thread = threading.Thread(target=self._write_for_ever, name="persistence", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what has changed, and nothing more."""
        if self._thread is not None:
            self._stopped.set()
            self._woken.set()
            self._thread.join()
            # Nobody will use more generations than these.
            self.flush(reserve=0)
        self._journal.close()

    def flush(self, reserve: int = RESERVE) -> None:
        """Write now what has changed until now. reserve: how many generations are said in advance.

        OSError when it cannot be written; it is then written with the next change.
        """
        with self._guard:
            with self._database.exclusively():
                changed, self._changed = self._changed, {}
                lives = self._current(changed)
                messages = {ref: self._messages.get(ref) for cls, ref in changed if cls == _MESSAGE}
                generation = self._database.generation
            # Only now and then: what is volatile moves the generation all the time.
            reserved = self._reserved
            if not reserve or generation + reserve // 2 > reserved:
                reserved = generation + reserve
            if not changed and reserved == self._reserved:
                return
            objects = [self._change(cls, ref, life) for (cls, ref), life in lives.items()]
            try:
                self._journal.append(_line(reserved, objects, map(_message, messages.items())))
                self._journal.sync()
            except OSError:
                with self._database.exclusively():
                    self._changed = {**changed, **self._changed}
                raise
            self._reserved = reserved
            self._kept(lives, messages)
            if self._journal.size - self._first_size > max(_MIN_GROWTH, _MAX_GROWTH * self._first_size):
                self._rewrite()

    def _note(self, cls: str, ref: str, operation: Operation, row: Row) -> None:
        """Called with the database held, at every change."""
        del operation, row
        if cls not in VOLATILE:
            self._changed[cls, ref] = None
        if not self._woken.is_set():
            self._woken.set()

    def _write_for_ever(self) -> None:
        while self._woken.wait() and not self._stopped.wait(PERIOD):
            self._woken.clear()
            try:
                self.flush()
            except OSError as error:
                LOG.error("the pool cannot be written down: %s", error.strerror)

    def _current(self, changed: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[Life, Row] | None]:
        database = self._database
        return {
            (cls, ref): (database.life(cls, ref), database.snapshot(cls, ref)) if database.exists(cls, ref) else None
            for cls, ref in changed
            if cls != _MESSAGE
        }

    def _change(self, cls: str, ref: str, now: tuple[Life, Row] | None) -> list[Any]:
        """An object's place in a line: all its fields, or those that are others than the file has, or None."""
        if now is None:
            return [cls, ref, 0, 0, None]
        life, row = now
        before = self._lives[cls].get(ref)
        if before is not None:
            # A row shares with the one before what has not changed.
            row = {name: value for name, value in row.items() if value is not before[1][name]}
        return [cls, ref, *life, row]

    def _kept(self, lives: dict[tuple[str, str], tuple[Life, Row] | None], messages: dict[str, Message | None]) -> None:
        for (cls, ref), life in lives.items():
            if life is None:
                self._lives[cls].pop(ref, None)
            else:
                self._lives[cls][ref] = life
        for ref, message in messages.items():
            if message is None:
                self._kept_messages.pop(ref, None)
            else:
                self._kept_messages[ref] = message

    def _rewrite(self) -> None:
        self._journal.rewrite(self._everything())
        self._first_size = self._journal.size

    def _everything(self) -> Iterator[dict[str, Any]]:
        objects = [[cls, ref, *life, row] for cls, table in self._lives.items() for ref, (life, row) in table.items()]
        for first in range(0, len(objects), _CHUNK):
            yield _line(self._reserved, objects[first : first + _CHUNK], ())
        yield {**_line(self._reserved, (), map(_message, self._kept_messages.items())), "complete": True}


def _line(reserved: int, objects: Iterable[Any], messages: Iterable[Any]) -> dict[str, Any]:
    return {"reserved": reserved, "objects": list(objects), "messages": list(messages)}


def _message(item: tuple[str, Message | None]) -> list[Any]:
    ref, message = item
    if message is None:
        return [ref, 0, "", None]
    return [ref, message.generation, message.moment.isoformat(), message.row]


def _is_int_keyed(wanted: Type) -> bool:
    return wanted.kind == "map" and wanted.key is not None and wanted.key.kind == "int"
