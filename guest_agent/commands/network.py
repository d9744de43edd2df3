"""The guest's network: as the host says in the command, or as hosts of the existing clouds leave it in XenStore.

What does the work is loaded when it is asked for: most guests are asked once in their life or never, and it would take
5 MiB of an agent that waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_protocol.outcomes import Failed, Refused, Unsuccessful
from agent_protocol.xenstore import StoreError

from ..configuration import CONFIGURATION_FILE, OVERRIDE
from ..system.paths import GuestPath
from .arguments import ignored
from .table import CLEAR, SEALED, Context, Result, command

if TYPE_CHECKING:
    from ..network.apply import Applied
    from ..network.data import NetworkData
    from ..network.legacy import LegacyData
    from ..network.renderer import Change

MAX_NETWORK_VALUE = 256 * 1024
"""Characters of network_apply's value: the largest data that NetworkData allows has about 225,000."""

CLOUD_INIT_FILE = GuestPath("/etc/cloud/cloud.cfg.d/99-xenward-network.cfg")

_CLOUD_INIT_CONTENT = b"""\
# Written by the xenward guest agent, which configures this guest's network.
network: {config: disabled}
"""


def _parse(untrusted_value: str) -> NetworkData:
    from ..network.sealed import parse_network_data

    return parse_network_data(untrusted_value)


@command("network_apply", tables=SEALED, parse=_parse, max_value=MAX_NETWORK_VALUE)
def network_apply(context: Context, data: NetworkData) -> Result:
    """Configure the interfaces that are named. Tells the stack, the files that changed, and what was seen of it."""
    from ..network.stacks import stack_of

    applied = _apply(context, data)
    stack = stack_of(context.system, context.configuration).name
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
        done.append(_message(_apply(context, data.network)))
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


def _apply(context: Context, data: NetworkData) -> Applied:
    from ..network.apply import apply
    from ..network.renderers import RENDERERS
    from ..network.stacks import stack_of
    from ..network.undo import undo_pending

    system, configuration = context.system, context.configuration
    also = _check_cloud_init(context)
    renderer = RENDERERS[stack_of(system, configuration).name]
    # Something that could not be put back at the agent's start, for want of room, say.
    undo_pending(system, RENDERERS)
    return apply(system, renderer, data, also=also)


def _check_cloud_init(context: Context) -> list[Change]:
    """The changes that take the network from cloud-init. Refused (`cloud_init_owns_network`) when it may keep it.

    Where the configuration lets the agent take the network over, cloud-init is told so in its own configuration: it
    would otherwise write its files again at the next boot or for the next instance, and undo what the host was told.
    """
    if not context.system.cloud_init().owns_network:
        return []
    if context.configuration.cloud_init_network != OVERRIDE:
        raise Refused(
            "cloud_init_owns_network",
            "cloud-init configures this guest's network; to let the agent do it, set network = override in section "
            f"[cloud-init] of {CONFIGURATION_FILE.text}",
        )
    from ..network.renderer import Change

    return [Change(CLOUD_INIT_FILE, _CLOUD_INIT_CONTENT)]


def _message(applied: Applied) -> str:
    files = f"files changed: {len(applied.changed)}"
    if applied.seen is None:
        return f"{files}; nothing runs that could use them"
    return f"{files}; active, static addresses seen: {applied.seen}"
