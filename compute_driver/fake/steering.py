"""How a test steers a fake driver, and what it is told: faults to come, verbs held back, and the calls that were made.

A name is that of a verb of ComputeDriver, such as `reboot`, or of a step of one, such as `boot`.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agent_protocol.messages import Password

from ..driver import ComputeDriver, Progress
from ..files import InjectedFile
from ..images import Image
from ..network import Interface
from ..volumes import Volume

PATIENCE = 60.0
"""Seconds that a verb is held back at most, and that a test waits for one to arrive: nothing hangs for ever."""

STEPS = (
    "create_vm",
    "create_root_disk",
    "attach_interfaces",
    "attach_volume",
    "config_drive",
    "boot",
    "wait_for_agent",
    "apply_network",
    "set_admin_password",
    "add_ssh_keys",
    "inject_file",
    "undo",
    "power_off",
    "replace_root_disk",
    "remove_old_disk",
    "create_rescue_disk",
    "set_rescue_password",
    "snapshot",
    "keep_root_disk",
    "move",
    "resize",
    "check",
    "migrate",
    "clean_up",
)

TELLING = "tell"
"""Stands for what listeners are told of changes: it can be held back like a step."""

_VERBS = ComputeDriver.__abstractmethods__
_NAMES = _VERBS | frozenset(STEPS)

_QUESTIONS = frozenset(
    {
        "init_host",
        "close",
        "listen",
        "await_quiet",
        "check_can_live_migrate_destination",
        "get_info",
        "list_instances",
        "list_instance_uuids",
        "get_console_output",
        "get_vnc_console",
        "get_diagnostics",
        "get_available_nodes",
        "check_node",
        "get_available_resource",
        "get_inventory",
        "get_host_uptime",
    }
)
"""The verbs that change nothing, so that no fence is asked."""


@dataclass(frozen=True)
class Call:
    """A verb that was called. instance: its uuid, empty where there is none.

    arguments: by name; of what may hold secrets only a name is kept: the path of a file, the ids of images, volumes and
    interfaces, the keys of metadata. A password is `***`.
    """

    verb: str
    instance: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Fault:
    error: BaseException
    after: bool


class Gate:
    """Holds a verb back. The gate opens when it is released, for all that are there and all that come."""

    def __init__(self) -> None:
        self._arrived = threading.Event()
        self._open = threading.Event()

    def await_arrival(self, timeout: float = PATIENCE) -> None:
        """Wait until a call is held back here. TimeoutError after so many seconds."""
        if not self._arrived.wait(timeout):
            raise TimeoutError("no call arrived")

    def release(self) -> None:
        """Let everything pass."""
        self._open.set()

    def pass_through(self) -> None:
        """Wait for the release. TimeoutError after PATIENCE."""
        self._arrived.set()
        if not self._open.wait(PATIENCE):
            raise TimeoutError("a call was held back, and nobody released it")


class Steering:
    """The knobs of one driver. Every method may be called by any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._calls: list[Call] = []
        self._faults: dict[str, deque[_Fault]] = {}
        self._gates: dict[str, Gate] = {}

    @property
    def calls(self) -> list[Call]:
        """The verbs that were called, in their order; not the steps."""
        with self._guard:
            return list(self._calls)

    @property
    def verbs(self) -> list[str]:
        """Their names."""
        return [call.verb for call in self.calls]

    def clear_calls(self) -> None:
        """Forget what was called until now."""
        with self._guard:
            self._calls.clear()

    def fail(self, name: str, error: BaseException, *, after: bool = False) -> None:
        """Have the next call of a verb, or the next such step, end with an error. Several wait for one call each.

        after: when it had its effect, as when an answer is lost; a fault is used up by whichever call comes to it.
        ValueError for a name that is none.
        """
        _check(name)
        with self._guard:
            self._faults.setdefault(name, deque()).append(_Fault(error, after))

    @contextmanager
    def blocked(self, name: str) -> Iterator[Gate]:
        """Hold back a verb or a step before its effect, until the gate is released or the block ends.

        It has not asked its fence then. `tell` holds back what listeners are told.
        """
        if name != TELLING:
            _check(name)
        gate = Gate()
        with self._guard:
            self._gates[name] = gate
        try:
            yield gate
        finally:
            with self._guard:
                self._gates.pop(name, None)
            gate.release()

    @contextmanager
    def verb(self, name: str, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Surrounds the effect of a verb: for the driver."""
        instance = str(getattr(arguments.get("instance"), "uuid", ""))
        told = {key: _told(value) for key, value in arguments.items() if key not in ("instance", "progress")}
        with self._guard:
            self._calls.append(Call(name, instance, told))
        with self._around(name):
            yield

    @contextmanager
    def step(self, progress: Progress, name: str) -> Iterator[None]:
        """Surrounds a step, and reports it: for the driver."""
        with progress.step(name), self._around(name):
            yield

    def await_telling(self) -> None:
        """Return when listeners may be told something: for the driver."""
        self._pass_gate(TELLING)

    def _pass_gate(self, name: str) -> None:
        with self._guard:
            gate = self._gates.get(name)
        if gate is not None:
            gate.pass_through()

    @contextmanager
    def _around(self, name: str) -> Iterator[None]:
        self._pass_gate(name)
        with self._guard:
            waiting = self._faults.get(name)
            fault = waiting.popleft() if waiting else None
        if fault is not None and not fault.after:
            raise fault.error
        yield
        if fault is not None:
            raise fault.error


def _check(name: str) -> None:
    if name not in _NAMES:
        raise ValueError(f"{name!r} is neither a verb of a driver nor a step of one")


def _told(value: Any) -> Any:
    """What a log may show of an argument."""
    if isinstance(value, Password):
        return "***"
    if isinstance(value, InjectedFile):
        return value.path
    if isinstance(value, (Image, Interface, Volume)):
        return value.id
    if isinstance(value, Mapping):
        return tuple(map(str, value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_told(each) for each in value)
    return value if isinstance(value, (str, int, float, type(None))) else type(value).__name__


D = TypeVar("D")


def steered(cls: type[D]) -> type[D]:
    """For a driver that has a `steering`: logs the calls of its verbs, has them wait, and has them fail.

    What changes something is admitted by its `admit()` first; after each of those `note()` is called.
    """
    for name in _VERBS:
        setattr(cls, name, _verb(getattr(cls, name)))
    return cls


def _verb(method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def verb(self: Any, *arguments: Any, **named: Any) -> Any:
        _, *bound = signature.bind(self, *arguments, **named).arguments.items()
        is_question = method.__name__ in _QUESTIONS
        try:
            with self.steering.verb(method.__name__, dict(bound)):
                if not is_question:
                    self.admit()
                return method(self, *arguments, **named)
        finally:
            if not is_question:
                self.note()

    return verb
