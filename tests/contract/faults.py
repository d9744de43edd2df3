"""One fault at each call that an operation makes to XenServer, and what is there afterwards."""

from __future__ import annotations

import io
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from agent_protocol.outcomes import Unsuccessful
from compute_driver.agents import AgentsInMemory
from compute_driver.errors import ImageNotFound
from compute_driver.images import DiskFormat, Image, ImageReader, NewImage
from compute_driver.states import PowerState
from compute_driver.xenapi.connection.session import ORIGINATOR, Connection
from compute_driver.xenapi.driver import XenServerDriver
from compute_driver.xenapi.guests import vms
from compute_driver.xenapi.storage import transfer_tasks
from tools.simulator.control import Control
from tools.simulator.faults.leftovers import Leftover
from tools.simulator.process import SimulatorProcess

SIZE = 1024 * 1024

DEADLINE = 10.0
"""Seconds for whatever has to happen by itself."""

FAULTS: dict[str, dict[str, Any]] = {
    "fails": {"action": "fail", "error": ["INTERNAL_ERROR", "a fault of the test's"]},
    "is lost": {"action": "drop_before"},
    "loses its answer": {"action": "drop_after"},
}
"""How the call goes wrong, and the rule of the simulator for that."""

_SPARED = ("event.", "session.", "task.cancel")
"""Calls by which nothing of an operation is done."""

_QUESTION = re.compile(r"\w+\.get_")
"""To a driver it is all the same how such a call goes wrong: the first fault is enough."""

COUNTED = ("VM", "VDI", "VBD", "VIF", "SR", "PBD", "network", "task", "session")
"""Classes of which nothing may be left. The driver's own sessions may be there as long as it is: see Bench.close()."""

WAITS = {"NEWS_TIMEOUT": 0.5, "UNTOUCHED_TIMEOUT": 0.5}
"""Shorter times of transfer_tasks.py for what never comes here."""


@dataclass(frozen=True)
class Wanted:
    """An instance, as far as a driver is concerned."""

    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    display_name: str = "web"
    memory_mb: int = 64
    vcpus: int = 1
    root_gb: int = 1


class _Reader(io.BytesIO):
    size: int | None = SIZE


class _Bytes:
    """An image's bytes, which are always there."""

    digest_required = False

    @contextmanager
    def open(self) -> Iterator[ImageReader]:
        yield _Reader(bytes(SIZE))


def image(name: str, **properties: str) -> Image:
    """An image of one MiB."""
    return Image(name, name, DiskFormat.RAW, _Bytes(), size=SIZE, properties=properties)


AGENTLESS = image("agentless", img_use_agent="no")
WITH_AGENT = image("with-agent")


class Steps:
    """A Progress that remembers the steps."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def step(self, name: str) -> AbstractContextManager[None]:
        self.names.append(name)
        return nullcontext()


class Images:
    """An image service that forgets the bytes. stored: what came to its end."""

    def __init__(self) -> None:
        self.stored: list[Image] = []

    def get(self, image_ref: str) -> Image:
        raise ImageNotFound(image_ref)

    def store(self, new: NewImage, pieces: Iterator[bytes]) -> Image:
        size = sum(map(len, pieces))
        self.stored.append(Image("stored", new.name, new.disk_format, _Bytes(), size=size))
        return self.stored[-1]

    def delete(self, image_ref: str) -> None:
        self.stored = [image for image in self.stored if image.id != image_ref]


class Bench:
    """A driver of a simulated XenServer that can be made to misbehave.

    images: where its snapshots go. elsewhere: another one, to which guests can be sent, if there is one. calls: those
    of operations, by name, once they are known.
    """

    def __init__(self, simulator: SimulatorProcess, elsewhere: Bench | None = None) -> None:
        self.elsewhere = elsewhere
        self.calls: dict[str, list[tuple[str, int]]] = {}
        self.simulator = simulator
        self.control: Control = simulator.control
        self.memory = AgentsInMemory()
        self.images = Images()
        connection = Connection(simulator.url, simulator.username, simulator.password)
        self.driver = XenServerDriver(connection, self.memory, agent_timeout=15.0, boot_timeout=30.0)
        self.server = self.driver._server

    def guest(self) -> Wanted:
        """One that runs, without an agent."""
        instance = Wanted()
        self.driver.spawn(instance, image=AGENTLESS, progress=Steps())
        return instance

    def has(self, instance: Wanted) -> bool:
        """By asking XenServer, as below."""
        return bool(self.server.call("VM.get_by_name_label", f"instance-{instance.uuid}"))

    def vm(self, instance: Wanted) -> vms.VM:
        return vms.find(self.server, instance)

    def state(self, instance: Wanted) -> PowerState:
        """By asking XenServer: what its events told may be a moment old after something went wrong."""
        return self.vm(instance).power_state

    def disks(self, instance: Wanted) -> dict[str, str]:
        """The VDIs of a guest, by device number."""
        records = [self.server.call("VBD.get_record", vbd) for vbd in self.vm(instance).vbds]
        return {record["userdevice"]: record["VDI"] for record in records}

    def leftovers(self) -> dict[str, int]:
        """How many objects there are that were not there at the latest mark, by class."""
        deadline = time.monotonic() + DEADLINE
        while True:
            left = dict(Counter(it.cls for it in self.control.leftovers() if _counts(it)))
            # What a task did may be seen a moment before the task's end.
            if set(left) != {"task"} or time.monotonic() >= deadline:
                return left

    def assert_nothing_left(self) -> None:
        left = self.leftovers()
        assert left == {}, left

    def close(self) -> int:
        """The driver ends; gives the number of sessions that are left."""
        self.driver.close()
        return sum(it.cls == "session" for it in self.control.leftovers())


def _counts(it: Leftover) -> bool:
    return it.cls in COUNTED and (it.cls != "session" or it.name != ORIGINATOR)


@contextmanager
def bench(*arguments: str, elsewhere: Bench | None = None) -> Iterator[Bench]:
    """A fresh one, in whose pool the images are already. arguments: further ones for the simulator."""
    with SimulatorProcess(["--login-failure-delay", "0", *arguments]) as simulator:
        it = Bench(simulator, elsewhere)
        try:
            for each in (AGENTLESS, WITH_AGENT):
                instance = Wanted()
                it.driver.spawn(instance, image=each, power_on=False, progress=Steps())
                it.driver.destroy(instance)
            it.control.mark()
            yield it
        finally:
            it.driver.close()


@contextmanager
def bench_of(operation: Operation) -> Iterator[Bench]:
    """A fresh one for an operation, which does not wait long for what never comes."""
    with ExitStack() as stack:
        for name, seconds in WAITS.items():
            stack.callback(setattr, transfer_tasks, name, getattr(transfer_tasks, name))
            setattr(transfer_tasks, name, seconds)
        arguments = () if operation.agent else ("--no-agent",)
        elsewhere = stack.enter_context(bench(*arguments)) if operation.leaves else None
        yield stack.enter_context(bench(*arguments, "--hosts", str(operation.hosts), elsewhere=elsewhere))


@dataclass(frozen=True)
class Operation:
    """Something that a driver does.

    prepare: makes what it is done to. run: does it. check: after it ended, with the error that it ended with, if any;
    asserts that all is well, and leaves nothing. agent: whether it needs one in its guests. hosts: how many its pool
    has. leaves: whether it needs another pool.
    """

    name: str
    prepare: Callable[[Bench], Wanted]
    run: Callable[[Bench, Wanted], object]
    check: Callable[[Bench, Wanted, Unsuccessful | None], None]
    agent: bool = False
    hosts: int = 1
    leaves: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table: the n-th call of that name, what the operation said, and what was wrong afterwards."""

    call: str
    fault: str
    outcome: str
    left: Mapping[str, int]
    wrong: str

    def __str__(self) -> str:
        left = ", ".join(f"{count} {cls}" for cls, count in self.left.items()) or "nothing"
        return f"{self.call:34} {self.fault:17} {self.outcome:42} {left:20} {self.wrong}"


def calls_of(bench: Bench, operation: Operation) -> list[tuple[str, int]]:
    """The calls that an operation makes when all goes well: name, and how many times it was called until then."""
    instance = operation.prepare(bench)
    bench.control.log_calls()
    bench.control.clear_calls()
    operation.run(bench, instance)
    names = [call.name for call in bench.control.read_calls() if call.originator == ORIGINATOR]
    bench.control.log_calls(False)
    operation.check(bench, instance, None)
    seen: Counter[str] = Counter()
    calls = []
    for name in names:
        if not name.startswith(_SPARED):
            seen[name] += 1
            calls.append((name, seen[name]))
    return calls


def try_each(bench: Bench, operation: Operation, fault: str) -> list[Row]:
    """The operation once for each of its calls, which goes wrong in that way."""
    if operation.name not in bench.calls:
        bench.calls[operation.name] = calls_of(bench, operation)
    calls = bench.calls[operation.name]
    if fault != "fails":
        calls = [(name, number) for name, number in calls if not _QUESTION.match(name)]
    return [_try(bench, operation, fault, name, number) for name, number in calls]


def _try(bench: Bench, operation: Operation, fault: str, name: str, number: int) -> Row:
    instance = operation.prepare(bench)
    bench.control.add_rule(name, nth=number, originator=ORIGINATOR, **FAULTS[fault])
    error: Unsuccessful | None = None
    try:
        operation.run(bench, instance)
    except Unsuccessful as caught:
        error = caught
    hit = bench.control.list_rules()[0].matches >= number
    bench.control.clear_rules()
    if (name, fault) == ("host.migrate_receive", "loses its answer"):
        # The lost answer was the only word of the session that was made: XenServer ends it when it was idle for long.
        bench.control.expire_sessions("migration")
    said = "succeeded" if error is None else f"{error.outcome}: {error.code}"
    wrong = ""
    try:
        operation.check(bench, instance, error)
        bench.assert_nothing_left()
    except (AssertionError, Unsuccessful) as problem:
        wrong = f"{type(problem).__name__}: {problem}".splitlines()[0]
    benches = [bench] if bench.elsewhere is None else [bench, bench.elsewhere]
    left = dict(sum((Counter(each.leftovers()) for each in benches), Counter()))
    if wrong or left:
        # One bad row must not spoil the next.
        for each in benches:
            each.driver.destroy(instance)
            each.control.mark()
    return Row(f"{name} {number}", fault if hit else "(not called)", said, left, wrong)
