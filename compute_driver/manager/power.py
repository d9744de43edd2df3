"""Guests are started and stopped."""

from __future__ import annotations

from agent_protocol.outcomes import Refused

from ..context import RequestContext
from ..states import PowerState, VmState
from . import operations
from .life import RUNNING, STOPPED, LifeOperations


class PowerOperations(LifeOperations):
    """Each is recorded as an action of its own name."""

    def start_instance(self, context: RequestContext, target: str) -> None:
        """Boot an instance that was stopped, or shut itself down (action `start`)."""
        with self._turn(context, target, operations.START) as turn:
            self._driver.power_on(turn.instance)
            turn.values = {**RUNNING, **self._place(turn.instance)}

    def stop_instance(self, context: RequestContext, target: str, *, timeout: float | None = None) -> None:
        """Shut an instance down (action `stop`). timeout: seconds until that is done by force; see power_off."""
        with self._turn(context, target, operations.STOP) as turn:
            self._driver.power_off(turn.instance, timeout=timeout)
            turn.values = dict(STOPPED)

    def reboot_instance(self, context: RequestContext, target: str, reboot_type: str) -> None:
        """Restart an instance (action `reboot`). reboot_type: `SOFT`, or `HARD`, which also ends vm_state `error`."""
        if reboot_type not in ("SOFT", "HARD"):
            raise Refused("bad_reboot_type", "a reboot is SOFT or HARD")
        operation = operations.REBOOT_HARD if reboot_type == "HARD" else operations.REBOOT
        with self._turn(context, target, operation) as turn:
            self._driver.reboot(turn.instance, reboot_type)
            turn.values = {**RUNNING, **self._place(turn.instance)}

    def pause_instance(self, context: RequestContext, target: str) -> None:
        """Stop its processors (action `pause`)."""
        with self._turn(context, target, operations.PAUSE) as turn:
            self._driver.pause(turn.instance)
            turn.values = {"vm_state": VmState.PAUSED, "power_state": PowerState.PAUSED}

    def unpause_instance(self, context: RequestContext, target: str) -> None:
        """Let them go on (action `unpause`)."""
        with self._turn(context, target, operations.UNPAUSE) as turn:
            self._driver.unpause(turn.instance)
            turn.values = dict(RUNNING)

    def suspend_instance(self, context: RequestContext, target: str) -> None:
        """Write its memory to storage (action `suspend`)."""
        with self._turn(context, target, operations.SUSPEND) as turn:
            self._driver.suspend(turn.instance)
            turn.values = {"vm_state": VmState.SUSPENDED, "power_state": PowerState.SUSPENDED, "node": ""}

    def resume_instance(self, context: RequestContext, target: str) -> None:
        """Bring a suspended instance back (action `resume`)."""
        with self._turn(context, target, operations.RESUME) as turn:
            self._driver.resume(turn.instance)
            turn.values = {**RUNNING, **self._place(turn.instance)}
