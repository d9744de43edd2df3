"""Guests that do what nobody asked them for, and their agents."""

from __future__ import annotations

import sys
from typing import Literal, get_args

from .. import lifecycle
from ..guest import Guest, Guests
from ..state import State
from .errors import FaultError

DEAD_AGENT = (sys.executable, "-I", "-S", "-c", "import signal\nwhile True: signal.pause()")
"""An agent that runs, and never says anything."""

End = Literal["reboot", "shutdown", "crash"]
"""How a guest ends by itself."""

_RESTARTING = frozenset({"restart", "coredump_and_restart", "rename_restart"})


class GuestFaults:
    """What happens inside guests of the simulated hypervisor. vm: a reference; ApiError HANDLE_INVALID without one."""

    def __init__(self, state: State, guests: Guests) -> None:
        self._state = state
        self._guests = guests

    def _guest(self, vm: str) -> Guest:
        record = self._state.database.snapshot("VM", vm)
        if self._state.settings.hypervisor != "simulated":
            raise FaultError("guests are steered so under the simulated hypervisor only")
        if record["power_state"] != "Running" or record["is_control_domain"]:
            raise FaultError("no guest runs in this VM")
        return self._guests.of(record["uuid"])

    def kill_agent(self, vm: str, restart: bool) -> None:
        """Kill a guest's agent, and start it again if wanted; one that was killed before can so come back."""
        self._guest(vm).kill_agent(restart)

    def freeze_agent(self, vm: str) -> None:
        """Stop a guest's agent where it is."""
        self._guest(vm).pause()

    def thaw_agent(self, vm: str) -> None:
        """Let it go on."""
        self._guest(vm).unpause()

    def replace_agent(self, vm: str, command: list[str] | None) -> None:
        """Kill a guest's agent, and run another command as its agent, now and after each boot; None for its own."""
        guest = self._guest(vm)
        guest.agent_command = self._state.settings.agent_command if command is None else tuple(command)
        self.kill_agent(vm, restart=True)

    def end(self, vm: str, how: End) -> int:
        """Let a guest reboot, shut down or crash by itself, as its `actions_after_…` say; gives its domid, or -1.

        FaultError when it does not run. Errors of the boot as of lifecycle.boot(). What happens for each action is
        from ocaml/xapi/xapi_xenops.ml: a guest that is preserved after a crash is paused.
        """
        if how not in get_args(End):
            raise FaultError(f"one of {', '.join(get_args(End))}")
        state = self._state
        state.database.record("VM", vm)
        with state.turn(vm):
            self._guest(vm)
            action = state.database.get("VM", vm, f"actions_after_{how}")
            if action == "preserve":
                lifecycle.pause(state, vm)
            else:
                host = state.database.get("VM", vm, "resident_on")
                lifecycle.halt(state, vm, clean=how != "crash")
                if action in _RESTARTING:
                    lifecycle.boot(state, vm, host, paused=False)
        return int(state.database.get("VM", vm, "domid"))
