"""The client of a simulator's admin socket: lets XenServer misbehave, from a test in another process.

control = Control(path)
control.add_rule("VM.start", "fail", error=["HOST_NOT_ENOUGH_FREE_MEMORY", "1", "0"], first=1)
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .faults.call_log import LoggedCall
from .faults.guests import End
from .faults.leftovers import Leftover
from .faults.rules import Action, ActiveRule, Garbling, Rule, When

TIMEOUT = 60.0
"""Seconds until an answer must be there, besides those that a command takes by its own arguments."""


class ControlError(Exception):
    """Raised when the simulator refuses a command, and says why; or when it does not answer."""


class Control:
    """Steers a simulator. The methods are those of Faults (faults/operations.py), which says what they do.

    path: of the admin socket. Each command has a connection of its own, so methods may be called by any thread.
    ControlError when the simulator refuses something, or nobody answers.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def _ask(self, command: str, patience: float = 0.0, **arguments: Any) -> Any:
        request = {"command": command, **arguments}
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(TIMEOUT + patience)
                connection.connect(str(self._path))
                connection.sendall(json.dumps(request).encode("ascii") + b"\n")
                with connection.makefile("rb") as answers:
                    untrusted_line = answers.readline()
            untrusted_answer = json.loads(untrusted_line)
        except (OSError, ValueError) as error:
            raise ControlError(f"{command}: the simulator does not answer ({type(error).__name__})") from error
        if untrusted_answer.get("ok") is not True:
            raise ControlError(f"{command}: {untrusted_answer.get('error')}")
        return untrusted_answer["result"]

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
        """Let calls and data requests be hit; gives the rule's number."""
        number: int = self._ask(
            "add_rule",
            pattern=pattern,
            action=action,
            seconds=seconds,
            error=error,
            garbling=garbling,
            size=size,
            nth=nth,
            first=first,
            originator=originator,
            arguments=dict(arguments) if arguments else None,
            when=when,
        )
        return number

    def remove_rule(self, rule: int) -> None:
        """Let a rule hold no longer."""
        self._ask("remove_rule", rule=rule)

    def clear_rules(self) -> None:
        """Remove all rules."""
        self._ask("clear_rules")

    def list_rules(self) -> list[ActiveRule]:
        """All rules, with the number of arrivals that matched each."""
        return [
            ActiveRule(each["id"], each["matches"], Rule(**{**each["rule"], "error": tuple(each["rule"]["error"])}))
            for each in self._ask("list_rules")
        ]

    def fail_plugin(
        self, pattern: str, *, error: list[str] | None = None, host: str | None = None, first: int | None = None
    ) -> int:
        """Let functions of dom0's plugins fail; gives the rule's number."""
        number: int = self._ask("fail_plugin", pattern=pattern, error=error, host=host, first=first)
        return number

    def hang_plugin(self, pattern: str, *, host: str | None = None, first: int | None = None) -> int:
        """Let functions of dom0's plugins hang; gives the rule's number."""
        number: int = self._ask("hang_plugin", pattern=pattern, host=host, first=first)
        return number

    def stick_tasks(self, pattern: str = "*", *, first: int | None = None) -> int:
        """Let asynchronous calls stay pending; gives the rule's number."""
        number: int = self._ask("stick_tasks", pattern=pattern, first=first)
        return number

    def log_calls(self, on: bool = True) -> None:
        """Write down calls and data requests from now on, or no longer."""
        self._ask("log_calls", on=on)

    def read_calls(self, since: int = 1) -> list[LoggedCall]:
        """What was written down, from a number on."""
        return _calls(self._ask("read_calls", since=since))

    def clear_calls(self) -> None:
        """Forget what was written down."""
        self._ask("clear_calls")

    def await_calls(
        self, pattern: str, count: int = 1, timeout: float = 10.0, *, since: int = 1, ended: bool = False
    ) -> list[LoggedCall]:
        """Wait until `count` calls have arrived whose name matches, or have ended; gives these."""
        return _calls(
            self._ask("await_calls", timeout, pattern=pattern, count=count, timeout=timeout, since=since, ended=ended)
        )

    def kill_agent(self, vm: str, restart: bool = False) -> None:
        """Kill the agent of a guest, and start it again if wanted."""
        self._ask("kill_agent", vm=vm, restart=restart)

    def freeze_agent(self, vm: str) -> None:
        """Stop the agent of a guest where it is."""
        self._ask("freeze_agent", vm=vm)

    def thaw_agent(self, vm: str) -> None:
        """Let it go on."""
        self._ask("thaw_agent", vm=vm)

    def replace_agent(self, vm: str, agent: list[str] | None = None) -> None:
        """Let another command be the guest's agent; by default one that never answers."""
        self._ask("replace_agent", vm=vm, agent=agent)

    def restore_agent(self, vm: str) -> None:
        """Give a guest its own agent back."""
        self._ask("restore_agent", vm=vm)

    def end_guest(self, vm: str, how: End) -> int:
        """Let a guest reboot, shut down or crash by itself; gives the domid that the VM has then, -1 for none."""
        domid: int = self._ask("end_guest", vm=vm, how=how)
        return domid

    def fill_sr(self, sr: str) -> None:
        """Let a storage repository have no room."""
        self._ask("fill_sr", sr=sr)

    def empty_sr(self, sr: str) -> None:
        """Give it its room back."""
        self._ask("empty_sr", sr=sr)

    def break_sr(self, sr: str, error: list[str] | None = None) -> None:
        """Let a storage repository not answer."""
        self._ask("break_sr", sr=sr, error=error)

    def repair_sr(self, sr: str) -> None:
        """Let it answer again."""
        self._ask("repair_sr", sr=sr)

    def expire_sessions(self, originator: str | None = None) -> int:
        """End all sessions, or those of an originator; gives their number."""
        number: int = self._ask("expire_sessions", originator=originator)
        return number

    def lose_events(self, first: int | None = 1) -> int:
        """Let event.from and event.next fail with EVENTS_LOST; gives the rule's number."""
        number: int = self._ask("lose_events", first=first)
        return number

    def reset_event_tokens(self) -> None:
        """Let event.from refuse all tokens given out until now."""
        self._ask("reset_event_tokens")

    def restart_toolstack(self, seconds: float = 0.5) -> None:
        """Cut all connections, keep the ports closed for so long, and lose the tasks that are under way."""
        self._ask("restart_toolstack", seconds, seconds=seconds)

    def crash_host(self, host: str) -> None:
        """Cut a host's power."""
        self._ask("crash_host", host=host)

    def start_host(self, host: str) -> None:
        """Switch a host on again; none of its guests run then."""
        self._ask("start_host", host=host)

    def change_coordinator(self, host: str) -> None:
        """Make another host the pool's coordinator; all sessions end."""
        self._ask("change_coordinator", host=host)

    def mark(self) -> None:
        """What is there now is not left over."""
        self._ask("mark")

    def leftovers(self) -> list[Leftover]:
        """What is there and was not when the simulator started, or at the latest mark()."""
        return [Leftover(**each) for each in self._ask("leftovers")]


def _calls(untrusted_calls: list[dict[str, Any]]) -> list[LoggedCall]:
    return [
        LoggedCall(**{**each, "references": tuple(each["references"]), "rules": tuple(each["rules"])})
        for each in untrusted_calls
    ]
