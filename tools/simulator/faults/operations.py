"""Everything that a test can let go wrong, as one object. The admin socket (admin.py) offers the same methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import hosts
from ..calls import HANDLERS
from ..errors import ApiError
from ..generic import generic_calls
from ..guest import Guests
from ..state import State
from .call_log import LoggedCall
from .conditions import UNKNOWN
from .errors import FaultError
from .guests import DEAD_AGENT, End, GuestFaults
from .leftovers import Leftover, Leftovers
from .rules import Action, ActiveRule, Garbling, Rule, When
from .storage import UNAVAILABLE
from .toolstack import Toolstack

DATA_REQUESTS = (
    "import_raw_vdi",
    "export_raw_vdi",
    "import",
    "export",
    "export_metadata",
    "services.xenops",
    "rrd_updates",
    "vm_rrd",
    "host_rrd",
    "sr_rrd",
    "console",
)
"""The names of HTTP data requests, in rules and in the call log: their paths without the slash."""

PLUGIN_FAILURE = ("XENAPI_PLUGIN_FAILURE", "non-zero exit", "", "")
"""What xapi says of a plugin that ended with a traceback at its very beginning."""


class Faults:
    """The faults of a simulated pool. Objects are named by reference.

    Methods may be called by any thread. FaultError for what cannot be, ApiError HANDLE_INVALID for what is not there.
    """

    def __init__(self, state: State, guests: Guests) -> None:
        self._state = state
        self._conditions = state.conditions
        self._guests = GuestFaults(state, guests)
        self._toolstack = Toolstack(state)
        self._leftovers = Leftovers(state.database)
        self._leftovers.mark()
        self._names = {*generic_calls(state.model), *HANDLERS, *DATA_REQUESTS, UNKNOWN}

    # Rules

    def add_rule(
        self,
        pattern: str,
        action: Action,
        *,
        seconds: float = 0.0,
        error: list[str] | None = None,
        garbling: Garbling = "page",
        size: int = 0,
        nth: int | None = None,
        first: int | None = None,
        originator: str | None = None,
        arguments: Mapping[str, str] | None = None,
        when: When | None = None,
    ) -> int:
        """Let calls and data requests be hit (rules.py says how); gives the rule's number.

        FaultError also when the pattern matches nothing that there is.
        """
        rule = Rule(
            pattern=pattern,
            action=action,
            seconds=seconds,
            error=tuple(error or ()),
            garbling=garbling,
            size=size,
            nth=nth,
            first=first,
            originator=originator,
            arguments=dict(arguments or {}),
            when=when,
        )
        of_data = {"call", "data"} - {*rule.kinds} == {"call"}
        if not any(rule.names(name) for name in (DATA_REQUESTS if of_data else self._names)):
            raise FaultError(f"nothing that can be hit so is called {pattern}")
        return self._conditions.rules.add(rule)

    def remove_rule(self, rule: int) -> None:
        """Let a rule hold no longer; what hangs because of it is executed."""
        self._conditions.rules.remove(rule)

    def clear_rules(self) -> None:
        """Remove all rules, those of plugins and of the methods below too."""
        self._conditions.rules.clear()

    def list_rules(self) -> list[ActiveRule]:
        """All rules, with the number of arrivals that matched each."""
        return self._conditions.rules.active()

    def fail_plugin(
        self, pattern: str, *, error: list[str] | None = None, host: str | None = None, first: int | None = None
    ) -> int:
        """Let functions of dom0's plugins fail without running, `first` times or until the rule is removed.

        pattern: of `plugin.function`. error: by default as a plugin that crashes. host: on this one only.
        """
        return self._plugin_rule(pattern, "fail", host, first, tuple(error or PLUGIN_FAILURE))

    def hang_plugin(self, pattern: str, *, host: str | None = None, first: int | None = None) -> int:
        """Let functions of dom0's plugins run only when the rule is removed. Arguments as of fail_plugin()."""
        return self._plugin_rule(pattern, "hang", host, first)

    def _plugin_rule(
        self, pattern: str, action: Action, host: str | None, first: int | None, error: tuple[str, ...] = ()
    ) -> int:
        arguments = {}
        if host is not None:
            self._state.database.snapshot("host", host)
            arguments["host"] = host
        return self._conditions.rules.add(
            Rule(pattern, action, target="plugin", error=error, first=first, arguments=arguments)
        )

    def stick_tasks(self, pattern: str = "*", *, first: int | None = None) -> int:
        """Let asynchronous calls stay pending, whatever is done to their tasks, until the rule is removed."""
        return self.add_rule(f"Async.{pattern}", "hang", first=first)

    # The call log

    def log_calls(self, on: bool = True) -> None:
        """Write down calls and data requests from now on, or no longer."""
        self._conditions.log.switch(on)

    def read_calls(self, since: int = 1) -> list[LoggedCall]:
        """What was written down, from a number on. FaultError when some of it is no longer kept."""
        return self._conditions.log.read(since)

    def clear_calls(self) -> None:
        """Forget what was written down."""
        self._conditions.log.clear()

    def await_calls(
        self, pattern: str, count: int = 1, timeout: float = 10.0, *, since: int = 1, ended: bool = False
    ) -> list[LoggedCall]:
        """Wait until `count` calls have arrived whose name matches, or have ended; gives these.

        timeout: in seconds, after which it is a FaultError.
        """
        return self._conditions.log.wait(pattern, count, timeout, since, ended)

    # Guests

    def kill_agent(self, vm: str, restart: bool = False) -> None:
        """Kill the agent of a guest. restart: and start it again; so one comes back that was killed before."""
        self._guests.kill_agent(vm, restart)

    def freeze_agent(self, vm: str) -> None:
        """Stop the agent of a guest where it is."""
        self._guests.freeze_agent(vm)

    def thaw_agent(self, vm: str) -> None:
        """Let it go on."""
        self._guests.thaw_agent(vm)

    def replace_agent(self, vm: str, agent: list[str] | None = None) -> None:
        """Let another command be the guest's agent, now and after each boot; by default one that never answers.

        agent: as the setting `agent_command`.
        """
        self._guests.replace_agent(vm, [*DEAD_AGENT] if agent is None else agent)

    def restore_agent(self, vm: str) -> None:
        """Give a guest its own agent back."""
        self._guests.replace_agent(vm, None)

    def end_guest(self, vm: str, how: End) -> int:
        """Let a guest reboot, shut down or crash by itself; gives the domid that the VM has then, -1 for none."""
        return self._guests.end(vm, how)

    # Storage

    def fill_sr(self, sr: str) -> None:
        """Let a storage repository have no room: allocations fail with SR_BACKEND_FAILURE_44, writes with VDI_IO_ERROR.

        What was allocated before can still be overwritten.
        """
        self._set_full(sr, True)

    def empty_sr(self, sr: str) -> None:
        """Give it its room back."""
        self._set_full(sr, False)

    def _set_full(self, sr: str, full: bool) -> None:
        # Imported here: vdis.py asks the conditions.
        from .. import vdis

        uuid = self._state.database.get("SR", sr, "uuid")
        vdis.refresh(self._state, sr)
        self._state.disks.set_full(uuid, full)
        vdis.refresh(self._state, sr)

    def break_sr(self, sr: str, error: list[str] | None = None) -> None:
        """Let a storage repository not answer: scanning it, attaching it and what is in it, and changes there fail.

        error: by default SR_BACKEND_FAILURE_47. Disks that are attached stay so.
        """
        self._state.database.snapshot("SR", sr)
        self._conditions.repositories.set(sr, ApiError(*(error or UNAVAILABLE)))

    def repair_sr(self, sr: str) -> None:
        """Let it answer again."""
        self._conditions.repositories.set(sr, None)

    # Sessions and events

    def expire_sessions(self, originator: str | None = None) -> int:
        """End all sessions, or those of an originator: the next call of each is SESSION_INVALID. Gives their number."""
        database = self._state.database
        with database.exclusively():
            ended = [
                ref
                for ref, row in database.snapshots("session").items()
                if originator is None or row["originator"] == originator
            ]
            for ref in ended:
                database.destroy("session", ref)
        return len(ended)

    def lose_events(self, first: int | None = 1) -> int:
        """Let event.from and event.next fail with EVENTS_LOST, so many times; gives the rule's number."""
        return self.add_rule("event.????", "fail", error=["EVENTS_LOST"], first=first)

    def reset_event_tokens(self) -> None:
        """Let event.from refuse all tokens given out until now, with EVENT_FROM_TOKEN_PARSE_FAILURE."""
        self._conditions.tokens.reset(self._state.pool)

    def restart_toolstack(self, seconds: float = 0.5) -> None:
        """Cut all connections, keep the ports closed for so long, and lose the tasks that are under way.

        Sessions and event tokens survive. Gives back when the ports are open again.
        """
        self._toolstack.restart(seconds)

    # Hosts

    def crash_host(self, host: str) -> None:
        """Cut a host's power (hosts.py): its guests are gone, and its ports refuse connections."""
        hosts.crash_host(self._state, host)

    def start_host(self, host: str) -> None:
        """Switch a host on again; none of its guests run then."""
        hosts.start_host(self._state, host)

    def change_coordinator(self, host: str) -> None:
        """Make another host the pool's coordinator; all sessions end."""
        hosts.change_coordinator(self._state, host)

    # What is left

    def mark(self) -> None:
        """What is there now is not left over."""
        self._leftovers.mark()

    def leftovers(self) -> list[Leftover]:
        """What is there and was not when the simulator started, or at the latest mark()."""
        return self._leftovers.found()


def commands() -> dict[str, Any]:
    """The methods that the admin socket offers, by name."""
    return {name: method for name, method in vars(Faults).items() if callable(method) and not name.startswith("_")}
