"""Tasks that clients look at, cancel, or make for themselves. Source: ocaml/xapi/xapi_task.ml."""

from __future__ import annotations

from ..generic import map_adder, map_remover, setter
from ..state import Context
from .table import HANDLERS, call


@call("task.create")
def create(context: Context, label: str, description: str) -> str:
    """A new task, pending, for a client's own use: for what it does by HTTP, say."""
    return context.state.tasks.create(context.session, label, description)


@call("task.destroy")
def destroy(context: Context, self: str) -> None:
    """Remove a task; one that has not ended only when it ends."""
    context.state.tasks.destroy(self)


@call("task.cancel")
def cancel(context: Context, task: str) -> None:
    """Ask for its end. That comes later, or never when it has ended already or nobody performs it."""
    context.state.tasks.cancel(task, context.task)


for _field in ("error_info", "other_config", "progress", "result", "status"):
    HANDLERS[f"task.set_{_field}"] = setter("task", _field)
HANDLERS["task.add_to_other_config"] = map_adder("task", "other_config")
HANDLERS["task.remove_from_other_config"] = map_remover("task", "other_config")
