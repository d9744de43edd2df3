"""What the agent tells about itself and its guest."""

from __future__ import annotations

import time

from ..update.running import PROCESS
from .arguments import ignored
from .table import BOTH, SEALED, Context, Result, command


@command("version", tables=BOTH, parse=ignored)
def version(context: Context, arguments: None) -> Result:
    """The agent's version. Old hosts ask with a value for the parts that Windows agents have; it is not looked at."""
    del arguments
    return Result(context.version, {"version": context.version})


@command("features", tables=BOTH, parse=ignored)
def features(context: Context, arguments: None) -> Result:
    """The names of all commands, with commas between them."""
    del arguments
    return Result(",".join(context.features), {"features": list(context.features)})


@command("ping", tables=SEALED, parse=ignored)
def ping(context: Context, arguments: None) -> Result:
    """The guest's clock: its answer is the proof that the agent lives, and is the one that the host knows."""
    del context, arguments
    return Result("", {"time": int(time.time())})


@command("info", tables=SEALED, parse=ignored)
def info(context: Context, arguments: None) -> Result:
    """What guest this is. What the system cannot tell is left out."""
    del arguments
    told: dict[str, object] = {
        "version": context.version,
        "vm": context.vm,
        "boot_id": context.system.boot_id(),
        "os": context.system.release(),
        "distribution": context.system.distribution().family,
        "network_stack": context.system.network_stack_name(context.configuration),
        "kernel": context.system.kernel(),
        "hostname": context.system.hostname(),
        "addresses": context.system.addresses(),
        "update": dict(PROCESS.state()),
        "reboot_pending": context.system.reboot_pending(),
    }
    return Result("", {name: value for name, value in told.items() if value})
