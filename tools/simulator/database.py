"""The simulated XenServer's database: objects by class and reference, as in xapi's own.

Whoever reads gets copies, so nothing that a caller does to them changes the database. Relations that the model knows
are kept at both ends: setting a VBD's VM puts the VBD into that VM's set, and destroying it takes it out.
"""

from __future__ import annotations

import copy
import threading
import uuid as uuids
from typing import Any

from . import errors
from .model import NULL_REF, Model


class Database:
    """All objects of a simulated pool. Every method is atomic and may be called by any thread."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lock = threading.RLock()
        self._tables: dict[str, dict[str, dict[str, Any]]] = {cls: {} for cls in model.classes}
        self._far_ends = {(many, ref): (one, refs) for many, ref, one, refs in model.relations}

    def create(self, cls: str, **fields: Any) -> str:
        """A new object's reference. A field that is not given has its default, or its type's empty value; `uuid` is
        made up when it is not given. KeyError for a field that the class lacks."""
        model_fields = self._model.classes[cls].fields
        row: dict[str, Any] = {}
        for name, field in model_fields.items():
            default = field.default if field.has_default else field.type.empty(self._model.enums)
            row[name] = copy.deepcopy(default)
        row["uuid"] = str(uuids.uuid4())
        ref = f"OpaqueRef:{uuids.uuid4()}"
        with self._lock:
            self._tables[cls][ref] = row
            for name, value in fields.items():
                self._set(cls, ref, name, value)
        return ref

    def destroy(self, cls: str, ref: str) -> None:
        """Remove an object. References to it are left dangling, as in xapi, but for the model's relations.

        ApiError HANDLE_INVALID when there is none.
        """
        with self._lock:
            row = self._row(cls, ref)
            for name in row:
                if (cls, name) in self._far_ends:
                    self._set(cls, ref, name, NULL_REF)
            del self._tables[cls][ref]

    def get(self, cls: str, ref: str, field: str) -> Any:
        """A field's value. ApiError HANDLE_INVALID when there is no such object."""
        with self._lock:
            return copy.deepcopy(self._row(cls, ref)[field])

    def record(self, cls: str, ref: str) -> dict[str, Any]:
        """All fields of an object. ApiError HANDLE_INVALID when there is none."""
        with self._lock:
            return copy.deepcopy(self._row(cls, ref))

    def set(self, cls: str, ref: str, **fields: Any) -> None:
        """Change fields of an object, all at once. ApiError HANDLE_INVALID when there is none."""
        with self._lock:
            self._row(cls, ref)
            for name, value in fields.items():
                self._set(cls, ref, name, value)

    def add_to_map(self, cls: str, ref: str, field: str, key: Any, value: Any) -> None:
        """Add a key to a map. ApiError MAP_DUPLICATE_KEY when it is there, HANDLE_INVALID without the object."""
        with self._lock:
            content = self._row(cls, ref)[field]
            if key in content:
                raise errors.map_duplicate_key(cls, field, ref, str(key))
            content[key] = copy.deepcopy(value)

    def remove_from_map(self, cls: str, ref: str, field: str, key: Any) -> None:
        """Remove a key from a map; a missing one is no error. ApiError HANDLE_INVALID without the object."""
        with self._lock:
            self._row(cls, ref)[field].pop(key, None)

    def add_to_set(self, cls: str, ref: str, field: str, value: Any) -> None:
        """Add a value to a set, once. ApiError HANDLE_INVALID without the object."""
        with self._lock:
            content = self._row(cls, ref)[field]
            if value not in content:
                content.append(value)

    def remove_from_set(self, cls: str, ref: str, field: str, value: Any) -> None:
        """Remove a value from a set; a missing one is no error. ApiError HANDLE_INVALID without the object."""
        with self._lock:
            content = self._row(cls, ref)[field]
            if value in content:
                content.remove(value)

    def exists(self, cls: str, ref: str) -> bool:
        """Whether there is such an object."""
        with self._lock:
            return ref in self._tables[cls]

    def refs(self, cls: str) -> list[str]:
        """The references of all objects of a class, oldest first."""
        with self._lock:
            return list(self._tables[cls])

    def records(self, cls: str) -> dict[str, dict[str, Any]]:
        """All objects of a class, oldest first."""
        with self._lock:
            return copy.deepcopy(self._tables[cls])

    def find(self, cls: str, field: str, value: Any) -> list[str]:
        """The references of the objects whose field has that value, oldest first."""
        with self._lock:
            return [ref for ref, row in self._tables[cls].items() if row[field] == value]

    def by_uuid(self, cls: str, uuid: str) -> str:
        """The reference of the object with that uuid. ApiError UUID_INVALID when there is none."""
        found = self.find(cls, "uuid", uuid)
        if not found:
            raise errors.uuid_invalid(cls, uuid)
        return found[0]

    def _row(self, cls: str, ref: str) -> dict[str, Any]:
        try:
            return self._tables[cls][ref]
        except KeyError:
            raise errors.handle_invalid(cls, ref) from None

    def _set(self, cls: str, ref: str, field: str, value: Any) -> None:
        row = self._tables[cls][ref]
        previous = row[field]
        row[field] = copy.deepcopy(value)
        far = self._far_ends.get((cls, field))
        if far is None or previous == value:
            return
        far_cls, far_field = far
        old, new = self._tables[far_cls].get(previous), self._tables[far_cls].get(value)
        if old is not None and ref in old[far_field]:
            old[far_field].remove(ref)
        if new is not None and ref not in new[far_field]:
            new[far_field].append(ref)
