"""The simulated XenServer's database: objects by class and reference, as in xapi's own.

A row is never changed: whoever writes puts another one into its place. So a row can be handed out as it is, and stays
what it was at that moment. The methods that give something to change give copies. Relations that the model knows are
kept at both ends: setting a VBD's VM puts the VBD into that VM's set, and destroying it takes it out.
"""

from __future__ import annotations

import contextlib
import threading
import uuid as uuids
from collections.abc import Mapping
from typing import Any, Callable, Literal

from . import errors
from .changes import ChangeLog, Changes, Life
from .model import NULL_REF, Model

Row = Mapping[str, Any]
"""An object as it was at one moment. Shared by all who have it: neither it nor what is in it may be changed."""

Operation = Literal["add", "mod", "del"]

Observer = Callable[[str, str, Operation, Row], None]
"""Is told each change: class, reference, what happened, and the object (at its end, as it was)."""


def _copied(value: Any) -> Any:
    """A copy of a field's value. Cheaper than copy.deepcopy: there are only lists and dicts of simple values."""
    if isinstance(value, list):
        return [_copied(item) for item in value]
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return value


class Database:
    """All objects of a simulated pool. Every method is atomic and may be called by any thread."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lock = threading.RLock()
        self._tables: dict[str, dict[str, Row]] = {cls: {} for cls in model.classes}
        self._log = ChangeLog(self._tables)
        self._observers: list[Observer] = []
        self._empty = {
            cls: {
                name: field.default if field.has_default else field.type.empty(model.enums)
                for name, field in content.fields.items()
            }
            for cls, content in model.classes.items()
        }
        self._far_ends = {(many, ref): (one, refs) for many, ref, one, refs in model.relations}
        for cls, refs, other, other_refs in model.relations:
            if model.classes[cls].fields[refs].type.kind == "set":
                # Many to many: either end may be set.
                self._far_ends[other, other_refs] = (cls, refs)

    # Changes

    def exclusively(self) -> contextlib.AbstractContextManager[Any]:
        """While it is entered, no other thread reads or writes: several calls are one."""
        return self._lock

    def observe(self, observer: Observer) -> None:
        """Tell `observer` every change from now on. It is called with the database locked, so it must be quick."""
        with self._lock:
            self._observers.append(observer)

    @property
    def generation(self) -> int:
        """The number of the latest change."""
        with self._lock:
            return self._log.generation

    def changes(self, cls: str, generation: int) -> Changes:
        """What happened to a class' objects after a generation (changes.py)."""
        with self._lock:
            return self._log.since(cls, generation)

    def life(self, cls: str, ref: str) -> Life:
        """When an object was made and changed last. KeyError when there is none."""
        with self._lock:
            return self._log.life(cls, ref)

    def restore(self, objects: Mapping[str, Mapping[str, tuple[Life, Row]]], generation: int) -> None:
        """Fill an empty database with the objects of a former one, by class and reference, oldest first.

        generation: at least the former one's latest, so that what clients know of it stays right. Both ends of their
        relations are in the objects already; nobody is told of them.
        """
        with self._lock:
            for cls, lives in objects.items():
                self._tables[cls].update((ref, row) for ref, (_, row) in lives.items())
            self._log.restore(
                {cls: {ref: life for ref, (life, _) in lives.items()} for cls, lives in objects.items()}, generation
            )

    def announce(self, cls: str, ref: str, operation: Operation, row: Row) -> int:
        """Something changed that is kept elsewhere, but has its place among the changes here. Gives its generation."""
        with self._lock:
            generation = self._log.advance()
            self._tell(cls, ref, operation, row)
            return generation

    def touch(self, cls: str, ref: str) -> int:
        """Write an object as it is; gives the generation before. ApiError HANDLE_INVALID when there is none."""
        with self._lock:
            row, before = self._row(cls, ref), self._log.generation
            self._put(cls, ref, row)
            return before

    def _tell(self, cls: str, ref: str, operation: Operation, row: Row) -> None:
        for observer in self._observers:
            observer(cls, ref, operation, row)

    # Objects

    def create(self, cls: str, **fields: Any) -> str:
        """A new object's reference. A field that is not given has its default, or its type's empty value; `uuid` is
        made up when it is not given. KeyError for a field that the class lacks."""
        ref = f"OpaqueRef:{uuids.uuid4()}"
        row = {**self._empty[cls], "uuid": str(uuids.uuid4())}
        for name, value in fields.items():
            if name not in row:
                raise KeyError(name)
            row[name] = _copied(value)
        with self._lock:
            self._put(cls, ref, row)
            for name, value in fields.items():
                self._link(cls, ref, name, self._empty[cls][name], value)
        return ref

    def destroy(self, cls: str, ref: str) -> None:
        """Remove an object. References to it are left dangling, as in xapi, but for the model's relations.

        ApiError HANDLE_INVALID when there is none.
        """
        with self._lock:
            row = self._row(cls, ref)
            for name, value in row.items():
                self._link(cls, ref, name, value, [] if isinstance(value, list) else NULL_REF)
            # A set of its own that a relation fills may have lost members just now.
            row = self._tables[cls].pop(ref)
            self._log.delete(cls, ref)
            self._tell(cls, ref, "del", row)

    def get(self, cls: str, ref: str, field: str) -> Any:
        """A field's value. ApiError HANDLE_INVALID when there is no such object."""
        return _copied(self.snapshot(cls, ref)[field])

    def record(self, cls: str, ref: str) -> dict[str, Any]:
        """All fields of an object. ApiError HANDLE_INVALID when there is none."""
        return {name: _copied(value) for name, value in self.snapshot(cls, ref).items()}

    def snapshot(self, cls: str, ref: str) -> Row:
        """An object as it is now, only to be read. ApiError HANDLE_INVALID when there is none."""
        with self._lock:
            return self._row(cls, ref)

    def set(self, cls: str, ref: str, **fields: Any) -> None:
        """Change fields of an object, all at once. A value that was there before is no change.

        ApiError HANDLE_INVALID when there is no such object.
        """
        with self._lock:
            row = self._row(cls, ref)
            changed = {name: _copied(value) for name, value in fields.items() if row[name] != value}
            if not changed:
                return
            self._put(cls, ref, {**row, **changed})
            for name, value in changed.items():
                self._link(cls, ref, name, row[name], value)

    def add_to_map(self, cls: str, ref: str, field: str, key: Any, value: Any) -> None:
        """Add a key to a map. ApiError MAP_DUPLICATE_KEY when it is there, HANDLE_INVALID without the object."""
        with self._lock:
            content = self._row(cls, ref)[field]
            if key in content:
                raise errors.map_duplicate_key(cls, field, ref, str(key))
            self.set(cls, ref, **{field: {**content, key: value}})

    def remove_from_map(self, cls: str, ref: str, field: str, key: Any) -> None:
        """Remove a key from a map; a missing one is no error. ApiError HANDLE_INVALID without the object."""
        with self._lock:
            content = self._row(cls, ref)[field]
            self.set(cls, ref, **{field: {name: value for name, value in content.items() if name != key}})

    def add_to_set(self, cls: str, ref: str, field: str, value: Any) -> None:
        """Add a value to a set, once. ApiError HANDLE_INVALID without the object."""
        with self._lock:
            content = self._row(cls, ref)[field]
            if value not in content:
                self.set(cls, ref, **{field: [*content, value]})

    def remove_from_set(self, cls: str, ref: str, field: str, value: Any) -> None:
        """Remove a value from a set; a missing one is no error. ApiError HANDLE_INVALID without the object."""
        with self._lock:
            content = self._row(cls, ref)[field]
            self.set(cls, ref, **{field: [item for item in content if item != value]})

    def exists(self, cls: str, ref: str) -> bool:
        """Whether there is such an object."""
        with self._lock:
            return ref in self._tables[cls]

    # Searching

    def count(self, cls: str) -> int:
        """How many objects of a class there are."""
        with self._lock:
            return len(self._tables[cls])

    def refs(self, cls: str) -> list[str]:
        """The references of all objects of a class, oldest first."""
        with self._lock:
            return list(self._tables[cls])

    def records(self, cls: str) -> dict[str, dict[str, Any]]:
        """All objects of a class, oldest first."""
        return {ref: {name: _copied(value) for name, value in row.items()} for ref, row in self.snapshots(cls).items()}

    def snapshots(self, cls: str) -> dict[str, Row]:
        """All objects of a class as they are now, oldest first, only to be read."""
        with self._lock:
            return dict(self._tables[cls])

    def find(self, cls: str, field: str, value: Any) -> list[str]:
        """The references of the objects whose field has that value, oldest first."""
        return [ref for ref, row in self.snapshots(cls).items() if row[field] == value]

    def by_uuid(self, cls: str, uuid: str) -> str:
        """The reference of the object with that uuid. ApiError UUID_INVALID when there is none."""
        found = self.find(cls, "uuid", uuid)
        if not found:
            raise errors.uuid_invalid(cls, uuid)
        return found[0]

    # Rows

    def _row(self, cls: str, ref: str) -> Row:
        try:
            return self._tables[cls][ref]
        except KeyError:
            raise errors.handle_invalid(cls, ref) from None

    def _put(self, cls: str, ref: str, row: Row) -> None:
        table = self._tables[cls]
        operation: Operation = "mod" if ref in table else "add"
        table[ref] = row
        self._log.write(cls, ref)
        self._tell(cls, ref, operation, row)

    def _link(self, cls: str, ref: str, field: str, before: Any, after: Any) -> None:
        """Keep the other ends of a relation in step with one end's new value."""
        far = self._far_ends.get((cls, field))
        if far is None or before == after:
            return
        far_cls, far_field = far
        befores: set[str] = {*before} if isinstance(before, list) else {before}
        afters: set[str] = {*after} if isinstance(after, list) else {after}
        for other in befores ^ afters:
            far_row = self._tables[far_cls].get(other)
            if far_row is None:
                continue
            refs = [item for item in far_row[far_field] if item != ref]
            if other in afters:
                refs.append(ref)
            if refs != far_row[far_field]:
                self._put(far_cls, other, {**far_row, far_field: refs})
