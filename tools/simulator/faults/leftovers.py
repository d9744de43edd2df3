"""What is there that was not there before: for tests that promise to leave nothing behind."""

from __future__ import annotations

from dataclasses import dataclass

from ..database import Database, Row

CLASSES = ("VM", "VDI", "VBD", "VIF", "SR", "PBD", "network", "session", "task", "console")
"""Of what nothing may be left. Of VMs all but control domains and default templates count, of tasks the pending."""


@dataclass(frozen=True)
class Leftover:
    """An object that is left. ref: empty for a session, since that would let everybody in who knows it.

    name: its label, or of a session its originator.
    """

    cls: str
    ref: str
    uuid: str
    name: str


def _counts(cls: str, row: Row) -> bool:
    if cls == "VM":
        return not row["is_control_domain"] and not row["is_default_template"]
    return cls != "task" or row["status"] == "pending"


class Leftovers:
    """Compares what there is with what there was at a moment."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: set[str] = set()

    def mark(self) -> None:
        """From now on only what is made later is left over."""
        with self._database.exclusively():
            self._known = {ref for cls in CLASSES for ref in self._database.refs(cls)}

    def found(self) -> list[Leftover]:
        """What was made since, and is still there."""
        with self._database.exclusively():
            return [
                Leftover(
                    cls=cls,
                    ref="" if cls == "session" else ref,
                    uuid=row["uuid"],
                    name=row["originator"] if cls == "session" else row.get("name_label", ""),
                )
                for cls in CLASSES
                for ref, row in self._database.snapshots(cls).items()
                if ref not in self._known and _counts(cls, row)
            ]
