"""Virtual machines' power: starting, stopping, freezing, putting aside."""

from __future__ import annotations

from .. import lifecycle, placement
from ..state import Context
from .table import call


@call("VM.start")
def start(context: Context, vm: str, start_paused: bool, force: bool) -> None:
    """Boot a VM on whichever host takes it."""
    del force
    with lifecycle.operate(context, vm, "start"):
        lifecycle.boot(context.state, vm, None, start_paused)


@call("VM.start_on")
def start_on(context: Context, vm: str, host: str, start_paused: bool, force: bool) -> None:
    """Boot a VM on that host."""
    del force
    with lifecycle.operate(context, vm, "start_on"):
        placement.assert_can_boot(context.database, vm, host)
        lifecycle.boot(context.state, vm, host, start_paused)


@call("VM.clean_shutdown")
def clean_shutdown(context: Context, vm: str) -> None:
    """Let the guest shut down."""
    with lifecycle.operate(context, vm, "clean_shutdown") as record:
        context.state.domains_of(vm).ask(record["domid"], "poweroff")
        lifecycle.halt(context.state, vm, clean=True)


@call("VM.hard_shutdown")
def hard_shutdown(context: Context, vm: str) -> None:
    """Cut the guest's power."""
    with lifecycle.operate(context, vm, "hard_shutdown"):
        lifecycle.halt(context.state, vm, clean=False)


@call("VM.shutdown")
def shutdown(context: Context, vm: str) -> None:
    """Let the guest shut down if it runs, cut its power otherwise."""
    with lifecycle.operate(context, vm, "shutdown") as record:
        running = record["power_state"] == "Running"
        if running:
            context.state.domains_of(vm).ask(record["domid"], "poweroff")
        lifecycle.halt(context.state, vm, clean=running)


@call("VM.clean_reboot")
def clean_reboot(context: Context, vm: str) -> None:
    """Let the guest shut down, and boot it again in a new domain."""
    with lifecycle.operate(context, vm, "clean_reboot") as record:
        context.state.domains_of(vm).ask(record["domid"], "reboot")
        lifecycle.halt(context.state, vm, clean=True)
        lifecycle.boot(context.state, vm, record["resident_on"], paused=False)


@call("VM.hard_reboot")
def hard_reboot(context: Context, vm: str) -> None:
    """Cut the guest's power, and boot it again in a new domain."""
    with lifecycle.operate(context, vm, "hard_reboot") as record:
        lifecycle.halt(context.state, vm, clean=False)
        lifecycle.boot(context.state, vm, record["resident_on"], paused=False)


@call("VM.pause")
def pause(context: Context, vm: str) -> None:
    """Freeze the guest."""
    with lifecycle.operate(context, vm, "pause"):
        lifecycle.pause(context.state, vm)


@call("VM.unpause")
def unpause(context: Context, vm: str) -> None:
    """Let a frozen guest go on."""
    with lifecycle.operate(context, vm, "unpause"):
        lifecycle.unpause(context.state, vm)


@call("VM.suspend")
def suspend(context: Context, vm: str) -> None:
    """Put the guest's memory aside and end its domain."""
    with lifecycle.operate(context, vm, "suspend"):
        lifecycle.suspend(context.state, vm)


@call("VM.resume")
def resume(context: Context, vm: str, start_paused: bool, force: bool) -> None:
    """Bring a suspended guest back, in a new domain."""
    del force
    with lifecycle.operate(context, vm, "resume"):
        lifecycle.resume(context.state, vm, None, start_paused)


@call("VM.resume_on")
def resume_on(context: Context, vm: str, host: str, start_paused: bool, force: bool) -> None:
    """Bring a suspended guest back on that host, in a new domain."""
    del force
    with lifecycle.operate(context, vm, "resume_on"):
        placement.assert_can_boot(context.database, vm, host)
        lifecycle.resume(context.state, vm, host, start_paused)


@call("VM.power_state_reset")
def power_state_reset(context: Context, vm: str) -> None:
    """Make a VM halted whatever became of its domain."""
    with lifecycle.operate(context, vm, "power_state_reset"):
        lifecycle.reset(context.state, vm)
