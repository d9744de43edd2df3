"""The guest's name."""

from __future__ import annotations

from ..system.hostname import HostName
from .arguments import json_object, text
from .table import SEALED, Context, Result, command


def _parse(untrusted_value: str) -> HostName:
    return HostName(text(json_object(untrusted_value, ["name"]), "name"))


@command("hostname", tables=SEALED, parse=_parse)
def hostname(context: Context, name: HostName) -> Result:
    """Set it, for now and for the next boots."""
    context.system.set_hostname(name)
    return Result("", {"name": name.value})
