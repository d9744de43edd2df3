"""The guest's network: as the host says in the command, or as hosts of the existing clouds leave it in XenStore.

What does the work is loaded when it is asked for: most guests are asked once in their life or never, and it would take
5 MiB of an agent that waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_protocol.outcomes import Failed, Refused, Unsuccessful
from agent_protocol.xenstore import StoreError

from .arguments import ignored
from .table import CLEAR, SEALED, Context, Result, command

if TYPE_CHECKING:
    from ..network.apply import Applied
    from ..network.data import NetworkData
    from ..network.legacy import LegacyData

MAX_NETWORK_VALUE = 256 * 1024
"""Characters of network_apply's value: the largest data that NetworkData allows has about 225,000."""


def _parse(untrusted_value: str) -> NetworkData:
    from ..network.sealed import parse_network_data

    return parse_network_data(untrusted_value)


@command("network_apply", tables=SEALED, parse=_parse, max_value=MAX_NETWORK_VALUE)
def network_apply(context: Context, data: NetworkData) -> Result:
    """Configure the interfaces that are named. Tells the stack, the files that changed, and what was seen of it."""
    applied = context.system.apply_network(data, context.configuration)
    stack = context.system.network_stack_name(context.configuration)
    told: dict[str, object] = {"stack": stack, "changed": list(applied.changed), "active": applied.seen is not None}
    return Result(_message(applied), told)


@command("resetnetwork", tables=CLEAR, parse=ignored)
def resetnetwork(context: Context, arguments: None) -> Result:
    """Configure the interfaces and set the name that stand in vm-data; nothing when nothing stands there.

    Old hosts ask every guest, also those that they left nothing for. The message tells which it was.
    """
    del arguments
    data = _legacy_data(context)
    if data.network is None and data.hostname is None:
        return Result("nothing was changed: the host left neither network data nor a name")
    done = []
    if data.network is not None:
        done.append(_message(context.system.apply_network(data.network, context.configuration)))
    if data.hostname is not None:
        try:
            context.system.set_hostname(data.hostname)
        except Unsuccessful as error:
            if not done:
                raise
            raise Failed("hostname_failed", f"{done[0]}; but the name is not set: {error}") from None
        done.append(f"the name is {data.hostname.value}")
    return Result("; ".join(done))


def _legacy_data(context: Context) -> LegacyData:
    from ..network.legacy import LegacyData, read_legacy_data

    if context.nodes is None:
        return LegacyData(None, None)
    try:
        return read_legacy_data(context.nodes)
    except StoreError as error:
        raise Refused("unreadable_network_data", f"the agent cannot read the network data: {error.code}") from None


def _message(applied: Applied) -> str:
    files = f"files changed: {len(applied.changed)}"
    if applied.seen is None:
        return f"{files}; nothing runs that could use them"
    return f"{files}; active, static addresses seen: {applied.seen}"
