"""Messages to the pool's operators. Source: ocaml/xapi/xapi_message.ml."""

from __future__ import annotations

import datetime

from .. import errors
from ..database import Row
from ..state import Context
from .table import call


@call("message.create")
def create(context: Context, name: str, priority: int, cls: str, obj_uuid: str, body: str) -> str:
    """A new message about an object."""
    return context.state.messages.create(name=name, priority=priority, cls=cls, obj_uuid=obj_uuid, body=body)


@call("message.destroy")
def destroy(context: Context, self: str) -> None:
    """Remove a message."""
    context.state.messages.destroy(self)


@call("message.destroy_many")
def destroy_many(context: Context, messages: list[str]) -> None:
    """Remove messages, one after the other; the first that does not exist ends it."""
    for message in messages:
        context.state.messages.destroy(message)


@call("message.get")
def get(context: Context, cls: str, obj_uuid: str, since: str) -> dict[str, Row]:
    """An object's messages that are younger than the date, newest first."""
    messages = context.state.messages
    try:
        messages.check_subject(cls, obj_uuid)
    except errors.ApiError:
        # Unlike everywhere else, xapi does not say which uuid.
        raise errors.ApiError("UUID_INVALID") from None
    return {
        ref: row
        for ref, row in messages.rows().items()
        if row["cls"] == cls and row["obj_uuid"] == obj_uuid and row["timestamp"] > since
    }


@call("message.get_all")
def get_all(context: Context) -> list[str]:
    """All messages' references."""
    return list(context.state.messages.rows())


@call("message.get_all_records")
def get_all_records(context: Context) -> dict[str, Row]:
    """All messages, newest first."""
    return context.state.messages.rows()


@call("message.get_all_records_where")
def get_all_records_where(context: Context, expr: str) -> dict[str, Row]:
    """All messages too: xapi does not look at the expression."""
    del expr
    return context.state.messages.rows()


@call("message.get_by_uuid")
def get_by_uuid(context: Context, uuid: str) -> str:
    """The message with that uuid."""
    return context.state.messages.by_uuid(uuid)


@call("message.get_record")
def get_record(context: Context, self: str) -> Row:
    """A message."""
    return context.state.messages.row(self)


@call("message.get_since")
def get_since(context: Context, since: str) -> dict[str, Row]:
    """The messages that came after that second began, newest first."""
    moment = datetime.datetime.strptime(since, "%Y%m%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
    return context.state.messages.rows(moment)
