"""Messages: what a pool tells its operators about its objects. They are no rows of the database.

Source: ocaml/xapi/xapi_message.ml. A message's generation is the database's at its moment, so its events have their
place among all others, but clients' tokens count them apart.
"""

from __future__ import annotations

import datetime
import uuid as uuids
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from . import errors
from .database import Database, Row
from .values import format_date

MAX_MESSAGES = 10_000
"""Beyond this many, the oldest vanish (xapi_globs.ml's message_limit)."""

KEPT_DELETIONS = 512
MAX_DELETIONS = 1024
"""When so many deletions are remembered, all but the latest KEPT_DELETIONS are forgotten."""

_TABLES = {"Host": "host", "Pool": "pool"}
"""The classes of the datamodel that messages call by another name."""


class Message(NamedTuple):
    """A message, or what is left of it: then there is no row.

    moment: when it was made or removed, more exactly than its row says.
    """

    ref: str
    generation: int
    row: Row | None
    moment: datetime.datetime


class Messages:
    """All messages of a pool. Methods may be called by any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._messages: dict[str, Message] = {}
        self._deleted: list[Message] = []

    def create(self, **fields: Any) -> str:
        """A new message's reference. The fields are those of the datamodel, without uuid and timestamp.

        ApiError UUID_INVALID when there is no object `obj_uuid` of class `cls`.
        """
        self.check_subject(fields["cls"], fields["obj_uuid"])
        ref = f"OpaqueRef:{uuids.uuid4()}"
        with self._database.exclusively():
            moment = _now()
            row = {**fields, "uuid": str(uuids.uuid4()), "timestamp": format_date(moment)}
            self._messages[ref] = Message(ref, self._database.announce("message", ref, "add", row), row, moment)
            while len(self._messages) > MAX_MESSAGES:
                self.destroy(next(iter(self._messages)))
        return ref

    def check_subject(self, cls: str, uuid: str) -> None:
        """ApiError UUID_INVALID when there is no object with that uuid of the class that messages call `cls`."""
        try:
            self._database.by_uuid(_TABLES.get(cls, cls), uuid)
        except errors.ApiError:
            raise errors.uuid_invalid(cls, uuid) from None

    def destroy(self, ref: str) -> None:
        """Remove a message. ApiError HANDLE_INVALID when there is none."""
        with self._database.exclusively():
            row = self.row(ref)
            del self._messages[ref]
            generation = self._database.announce("message", ref, "del", row)
            self._deleted.append(Message(ref, generation, None, _now()))
            if len(self._deleted) > MAX_DELETIONS:
                del self._deleted[:-KEPT_DELETIONS]

    def row(self, ref: str) -> Row:
        """A message's fields. ApiError HANDLE_INVALID when there is none."""
        with self._database.exclusively():
            message = self._messages.get(ref)
        if message is None or message.row is None:
            raise errors.handle_invalid("message", ref)
        return message.row

    def rows(self, since: datetime.datetime | None = None) -> dict[str, Row]:
        """All messages, or those made after a moment, newest first."""
        with self._database.exclusively():
            messages = reversed(self._messages.values())
            return {
                message.ref: message.row
                for message in messages
                if message.row and (since is None or message.moment > since)
            }

    def get(self, ref: str) -> Message | None:
        """A message as a whole; None when there is none."""
        with self._database.exclusively():
            return self._messages.get(ref)

    def all(self) -> dict[str, Message]:
        """All messages as a whole, by reference, oldest first."""
        with self._database.exclusively():
            return dict(self._messages)

    def restore(self, messages: Iterable[Message]) -> None:
        """Begin with the messages of former times, oldest first. Nobody is told of them."""
        with self._database.exclusively():
            self._messages.update((message.ref, message) for message in messages)

    def by_uuid(self, uuid: str) -> str:
        """The reference of the message with that uuid. ApiError UUID_INVALID when there is none."""
        for ref, row in self.rows().items():
            if row["uuid"] == uuid:
                return ref
        raise errors.uuid_invalid("message", uuid)

    def since(self, generation: int) -> Iterator[Message]:
        """What was made, newest first, and then what was removed after a generation. Call it with the database held."""
        for messages in (list(self._messages.values()), self._deleted):
            for message in reversed(messages):
                if message.generation <= generation:
                    break
                yield message


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
