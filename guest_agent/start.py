"""What the agent does before it serves: it ends what an earlier run left in the middle, and looks at the system."""

from __future__ import annotations

import contextlib

from agent_protocol.outcomes import Unsuccessful

from .commands import Context
from .network import UNDO_FILE
from .network.stacks import stack_of
from .system.lookup import any_there


def prepare(context: Context) -> None:
    """Make the guest whole: thaw its file systems, put back a network that was half changed. The log tells.

    Nothing that goes wrong here ends the start: an agent that serves can be told to repair the rest.
    """
    system = context.system
    if system.live is not None:
        from .system.freezing import Freezer

        context.freezer = Freezer(system.root)
        context.freezer.thaw_leftovers()
    with contextlib.suppress(Unsuccessful):
        if any_there(system.root, UNDO_FILE.text):
            from .network.renderers import RENDERERS
            from .network.undo import recover

            recover(system, RENDERERS)
    # Its log line is what matters; a guest without a stack is served too.
    with contextlib.suppress(Unsuccessful):
        stack_of(system, context.configuration)
