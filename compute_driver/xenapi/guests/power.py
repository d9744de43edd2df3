"""Guests' power: start, stop, freeze, put aside. What is reached already is left alone.

Each function ends when the state was seen that it promises, and XenServer's events told of it, too. Others may change
it meanwhile, first of all the guest itself; and an answer may be lost on its way. Then the VM itself tells what became
of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from agent_protocol.outcomes import Failed, Outcome, Refused, Unknown, Unsuccessful, Unsupported

from ...errors import XenServerAnswerLost, XenServerFailure
from ...fencing import LeaseLost
from ...states import PowerState
from ..connection.session import XenServer
from . import vms
from .vms import VM

START_TIMEOUT = 600.0
"""Seconds to build a domain: a large one's memory is scrubbed first, and its disks are attached one by one."""

GUEST_TIMEOUT = 1260.0
"""Seconds for a guest to shut down or restart by itself: xapi gives it 20 minutes, and then answers."""

MEMORY_TIMEOUT = 3600.0
"""Seconds to write a guest's memory to storage, or to read it back."""

SETTLE_TIMEOUT = 3.0
"""Seconds from a lost answer until what was asked for has at least begun, if it was received at all."""

_CANNOT_BE_ASKED = frozenset({"VM_LACKS_FEATURE", "VM_NON_SUSPENDABLE", "VM_MISSING_PV_DRIVERS"})
_DID_NOT_TAKE_IT = frozenset({"VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", "VM_FAILED_SHUTDOWN_ACK"})


def start(server: XenServer, vm: VM, *, host: str | None = None) -> VM:
    """Boot a VM that is shut down. host: a ref; None for one that XenServer chooses. Refused when it is put aside."""
    if vm.power_state is PowerState.RUNNING:
        return vms.await_told(server, vm)
    _require(vm, PowerState.SHUTDOWN)
    method, where = ("VM.start", ()) if host is None else ("VM.start_on", (host,))
    return _change(server, vm, method, *where, False, False, reached=_is(PowerState.RUNNING), timeout=START_TIMEOUT)


def shut_down(server: XenServer, vm: VM, *, timeout: float | None = None) -> VM:
    """Ask the guest to shut down; pull the plug when it cannot be asked, or does not comply in `timeout` seconds.

    timeout: None for as long as XenServer gives guests; 0 does not ask.
    """
    if vm.power_state is PowerState.RUNNING and timeout != 0:
        seconds = GUEST_TIMEOUT if timeout is None else timeout
        try:
            return _change(server, vm, "VM.clean_shutdown", reached=_is(PowerState.SHUTDOWN), timeout=seconds)
        except LeaseLost:
            raise
        except Unsuccessful:
            # Whatever it was: the guest is off at last, or loses its power now.
            with _in_doubt("VM.clean_shutdown"):
                vm = vms.again(server, vm)
    if vm.power_state is PowerState.SHUTDOWN:
        return vms.await_told(server, vm)
    return _change(server, vm, "VM.hard_shutdown", reached=_is(PowerState.SHUTDOWN), timeout=START_TIMEOUT)


def reboot(server: XenServer, vm: VM, *, hard: bool) -> VM:
    """Restart the guest. hard: without asking it, and whatever state it is in; one that is off is started.

    Of a guest that is asked: Unsupported when it cannot be, Refused when it did not take the request, Unknown when it
    took it and was not back in time.
    """
    before = vm.domid

    def is_back(now: VM) -> bool:
        return now.power_state is PowerState.RUNNING and now.domid != before

    if not hard:
        _require(vm, PowerState.RUNNING)
        return _change(server, vm, "VM.clean_reboot", reached=is_back, timeout=GUEST_TIMEOUT)
    if vm.power_state in (PowerState.RUNNING, PowerState.PAUSED):
        try:
            return _change(server, vm, "VM.hard_reboot", reached=is_back, timeout=START_TIMEOUT)
        except Refused:
            # It went down by itself meanwhile.
            vm = vms.again(server, vm)
    return start(server, shut_down(server, vm, timeout=0))


def pause(server: XenServer, vm: VM) -> VM:
    """Stop the VM's processors. Refused unless it runs."""
    if vm.power_state is PowerState.PAUSED:
        return vms.await_told(server, vm)
    _require(vm, PowerState.RUNNING)
    return _change(server, vm, "VM.pause", reached=_is(PowerState.PAUSED))


def unpause(server: XenServer, vm: VM) -> VM:
    """Let them go on. Refused unless they were stopped."""
    if vm.power_state is PowerState.RUNNING:
        return vms.await_told(server, vm)
    _require(vm, PowerState.PAUSED)
    return _change(server, vm, "VM.unpause", reached=_is(PowerState.RUNNING))


def suspend(server: XenServer, vm: VM) -> VM:
    """Put the VM's memory aside and end its domain. Refused unless it runs, Unsupported when the guest cannot."""
    if vm.power_state is PowerState.SUSPENDED:
        return vms.await_told(server, vm)
    _require(vm, PowerState.RUNNING)
    return _change(server, vm, "VM.suspend", reached=_is(PowerState.SUSPENDED), timeout=MEMORY_TIMEOUT)


def resume(server: XenServer, vm: VM) -> VM:
    """Bring back a VM whose memory was put aside. Refused when it has none."""
    if vm.power_state is PowerState.RUNNING:
        return vms.await_told(server, vm)
    _require(vm, PowerState.SUSPENDED)
    return _change(server, vm, "VM.resume", False, False, reached=_is(PowerState.RUNNING), timeout=MEMORY_TIMEOUT)


def _is(state: PowerState) -> Callable[[VM], bool]:
    return lambda vm: vm.power_state is state


def _require(vm: VM, state: PowerState) -> None:
    if vm.power_state is not state:
        code = "instance_not_running" if state is PowerState.RUNNING else "instance_power_state"
        raise Refused(code, f"the guest is {vm.power_state.word}, not {state.word}")


def _change(
    server: XenServer,
    vm: VM,
    method: str,
    *arguments: object,
    reached: Callable[[VM], bool],
    timeout: float = START_TIMEOUT,
) -> VM:
    """Have XenServer change a VM's power state; gives the VM as it is then, which `reached` accepted."""
    try:
        server.run(method, vm.ref, *arguments, timeout=timeout)
    except LeaseLost:
        # Nothing was sent, so nothing comes of it.
        raise
    except Unsuccessful as error:
        if error.outcome is Outcome.UNKNOWN:
            with _in_doubt(method):
                now = _await(server, vm, reached, timeout)
            if not reached(now):
                raise
            return vms.await_told(server, now)
        if not isinstance(error, XenServerFailure):
            raise
        now = vms.again(server, vm)
        if error.details[0] == "VM_BAD_POWER_STATE" and reached(now):
            return vms.await_told(server, now)
        _raise(error, now)
    with _in_doubt(method):
        now = vms.again(server, vm)
    if not reached(now):
        raise Failed("power_state_changed", f"{method} succeeded, but the guest is {now.power_state.word}")
    return vms.await_told(server, now)


@contextmanager
def _in_doubt(method: str) -> Iterator[None]:
    """Surrounds questions after a change was sent: when they cannot be asked, that is not to say that nothing was."""
    try:
        yield
    except Unsuccessful as error:
        if error.outcome in (Outcome.UNREACHABLE, Outcome.BUSY):
            raise XenServerAnswerLost(method) from None
        raise


def _raise(failure: XenServerFailure, now: VM) -> NoReturn:
    """What the guest did with a request, in our words; XenServer's own for everything else."""
    code = failure.details[0]
    if code in _CANNOT_BE_ASKED:
        raise Unsupported("guest_cannot_be_asked", "the guest has no drivers that would take such a request") from None
    if code in _DID_NOT_TAKE_IT:
        raise Refused("guest_did_not_comply", "the guest did not take the request") from None
    if code == "VM_SHUTDOWN_TIMEOUT":
        raise Unknown("guest_not_down_in_time", "the guest took the request, and is still at it") from None
    if code == "VM_BAD_POWER_STATE":
        raise Refused("instance_power_state", f"the guest is {now.power_state.word} by now") from None
    raise failure


def _await(server: XenServer, vm: VM, reached: Callable[[VM], bool], timeout: float) -> VM:
    """The VM once `reached` accepts it, or as it is when nothing is done to it, or after so many seconds."""

    def is_reached(untrusted_row: Mapping[str, Any]) -> bool:
        return reached(vms.described(vm.ref, untrusted_row, vm.instance))

    now = vms.again(server, vm)
    if not reached(now):
        # Nothing may be under way any more, or not yet.
        server.events.wait_for("VM", vm.ref, is_reached, min(SETTLE_TIMEOUT, timeout))
        now = vms.again(server, vm)
    if not reached(now) and now.operations:
        server.events.wait_for("VM", vm.ref, lambda row: not row["current_operations"], timeout)
        now = vms.again(server, vm)
    return now
