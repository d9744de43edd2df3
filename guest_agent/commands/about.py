"""What the agent tells about itself."""

from __future__ import annotations

from .arguments import ignored
from .table import Context, command


@command("version", parse=ignored)
def version(context: Context, arguments: None) -> str:
    """The agent's version. Old hosts ask with a value for the parts that Windows agents have; it is not looked at."""
    del arguments
    return context.version


@command("features", parse=ignored)
def features(context: Context, arguments: None) -> str:
    """The names of all commands, with commas between them."""
    del arguments
    return ",".join(context.features)
