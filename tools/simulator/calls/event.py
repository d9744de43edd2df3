"""What happens in the pool, as it happens. Source: ocaml/xapi/xapi_event.ml."""

from __future__ import annotations

from typing import Any

from .. import errors
from ..state import Context
from ..subscriptions import Token
from .table import call


@call("event.from")
def since(context: Context, classes: list[str], token: str, timeout: float) -> dict[str, Any]:
    """What changed since the token, as soon as there is something."""
    return context.state.events.since(context.session, classes, token, timeout)


@call("event.inject")
def inject(context: Context, cls: str, ref: str) -> str:
    """Pretend that an object changed. Whoever has read further than the token given has seen everything until now."""
    if cls not in context.state.model.classes:
        raise errors.handle_invalid(cls, ref)
    return str(Token(context.database.touch(cls, ref)))


@call("event.register")
def register(context: Context, classes: list[str]) -> None:
    """Let event.next tell this session about these classes."""
    context.state.events.register(context.session, classes)


@call("event.unregister")
def unregister(context: Context, classes: list[str]) -> None:
    """Let it tell about them no more."""
    context.state.events.unregister(context.session, classes)


@call("event.next")
def following(context: Context) -> list[dict[str, Any]]:
    """What happened since the last time, as soon as there is something."""
    return context.state.events.next(context.session)


@call("event.get_current_id")
def get_current_id(context: Context) -> int:
    """The number that the next event of event.next will have."""
    return context.state.events.current_id
