"""Ways to another pool that do not end well: exactly one pool has the VM afterwards, and all of it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import XenAPI

from tools.simulator import lifecycle
from tools.simulator.between_pools import receiver, sender
from tools.simulator.formats.streams import FormatError
from tools.simulator.process import SimulatorProcess
from tools.simulator.server import Simulator
from tools.simulator.settings import Settings

from .pools import Pool, logged_in
from .support import MIB, Vm, failure, lives, make_vm, until
from .ways import UNREACHABLE, Way, content, digest, empty, filled, nothing_left, runs_here, status

SERVICE = "services.xenops"
"""What rules call the destination's service."""


@pytest.fixture(scope="module")
def simulators(arguments: list[str]) -> Iterator[tuple[SimulatorProcess, SimulatorProcess]]:
    with SimulatorProcess(arguments) as source, SimulatorProcess(arguments) as destination:
        yield source, destination


@pytest.fixture
def here(simulators: tuple[SimulatorProcess, SimulatorProcess]) -> Iterator[Pool]:
    with logged_in(simulators[0]) as session:
        simulators[0].control.mark()
        yield Pool(simulators[0], session)


@pytest.fixture
def there(simulators: tuple[SimulatorProcess, SimulatorProcess]) -> Iterator[Pool]:
    with logged_in(simulators[1]) as session:
        simulators[1].control.mark()
        yield Pool(simulators[1], session)
        simulators[1].control.clear_rules()


@pytest.fixture
def vm(here: Pool, there: Pool) -> Iterator[Vm]:
    """One that runs."""
    vm = filled(here)
    vm.start(False, False)
    yield vm
    there.simulator.control.clear_rules()
    for pool in (here, there):
        empty(pool)
        nothing_left(pool)


@pytest.fixture
def way(here: Pool, there: Pool, vm: Vm) -> Way:
    return Way(here, there, vm, host=0)


@pytest.mark.parametrize("size", [0, 1, 100_000, 2 * MIB, 3 * MIB + 100_000, 4 * MIB + 20_000])
def test_a_connection_that_breaks(here: Pool, there: Pool, vm: Vm, way: Way, size: int) -> None:
    there.simulator.control.add_rule(SERVICE, "cut", size=size)
    assert failure(vm.migrate_send, *way.arguments()) == UNREACHABLE
    runs_here(here, there, vm, way.disk)
    there.simulator.control.clear_rules()
    vm.migrate_send(*way.arguments())
    nothing_left(here)


@pytest.mark.parametrize("fault", ["drop_before", "fail"])
def test_a_destination_that_does_not_listen(here: Pool, there: Pool, vm: Vm, way: Way, fault: Any) -> None:
    error = ["INTERNAL_ERROR", "a fault of the test's"] if fault == "fail" else None
    there.simulator.control.add_rule(SERVICE, fault, error=error)
    assert failure(vm.migrate_send, *way.arguments()) == UNREACHABLE
    runs_here(here, there, vm, way.disk)


@pytest.fixture
def under_way(here: Pool, there: Pool, vm: Vm, way: Way) -> str:
    """The task of a way that goes slowly, while its disk is sent."""
    there.simulator.control.add_rule(SERVICE, "throttle", size=2 * MIB)
    task: str = here.api.Async.VM.migrate_send(vm.ref, *way.arguments())
    until(lambda: 0 < float(here.api.task.get_progress(task)) < 1)
    return task


def test_while_it_lasts(here: Pool, there: Pool, vm: Vm, way: Way, under_way: str) -> None:
    assert vm.get_current_operations() == {under_way: "migrate_send"}
    assert here.api.VDI.get_current_operations(way.disk) == {under_way: "mirror"}
    assert here.api.task.get_allowed_operations(under_way) == ["cancel"]
    assert lives(here.simulator.agent_pid(vm.uuid))
    (disk,) = there.api.VDI.get_by_name_label("disk")
    assert "base_mirror" in there.api.VDI.get_sm_config(disk)
    assert not there.api.VM.get_by_name_label("test")
    there.simulator.control.clear_rules()
    until(lambda: here.api.task.get_status(under_way) == "success")
    nothing_left(here)
    assert there.api.VM.get_by_uuid(vm.uuid)


def test_cancelled(here: Pool, there: Pool, vm: Vm, way: Way, under_way: str) -> None:
    here.api.task.cancel(under_way)
    until(lambda: here.api.task.get_status(under_way) == "cancelled")
    there.simulator.control.clear_rules()
    runs_here(here, there, vm, way.disk)


def test_cancelled_while_nobody_answers(here: Pool, there: Pool, vm: Vm, way: Way) -> None:
    there.simulator.control.add_rule(SERVICE, "hang")
    task = here.api.Async.VM.migrate_send(vm.ref, *way.arguments())
    until(lambda: vm.get_current_operations())
    here.api.task.cancel(task)
    until(lambda: here.api.task.get_status(task) == "cancelled")
    there.simulator.control.clear_rules()
    runs_here(here, there, vm, way.disk)


def test_a_session_that_ends(here: Pool, there: Pool, vm: Vm, way: Way, under_way: str) -> None:
    there.simulator.control.expire_sessions("migration")
    there.simulator.control.clear_rules()
    until(lambda: here.api.task.get_status(under_way) == "failure")
    assert here.api.task.get_error_info(under_way) == UNREACHABLE
    runs_here(here, there, vm, way.disk)


def test_a_repository_that_becomes_full(here: Pool, there: Pool, vm: Vm, way: Way, under_way: str) -> None:
    there.simulator.control.fill_sr(way.repository)
    there.simulator.control.clear_rules()
    until(lambda: here.api.task.get_status(under_way) == "failure")
    there.simulator.control.empty_sr(way.repository)
    assert here.api.task.get_error_info(under_way)[0] == "VDI_IO_ERROR"
    runs_here(here, there, vm, way.disk)


# Pools that end in the middle


@contextlib.contextmanager
def kept(arguments: list[str], state: Path) -> Iterator[Pool]:
    with SimulatorProcess([*arguments, "--state", str(state)]) as simulator, logged_in(simulator) as session:
        yield Pool(simulator, session)


def kill(pool: Pool) -> None:
    os.kill(pool.simulator.pid, signal.SIGKILL)


def test_a_source_that_is_killed(arguments: list[str], there: Pool, tmp_path: Path) -> None:
    with contextlib.suppress(OSError, XenAPI.Failure), kept(arguments, tmp_path / "s") as here:
        vm = filled(here)
        vm.start(False, False)
        way = Way(here, there, vm, host=0)
        there.simulator.control.add_rule(SERVICE, "throttle", size=2 * MIB)
        here.api.Async.VM.migrate_send(vm.ref, *way.arguments())
        until(lambda: there.api.VDI.get_by_name_label("disk"))
        kill(here)
    there.simulator.control.clear_rules()
    nothing_left(there)
    with kept(arguments, tmp_path / "s") as here:
        ref = here.api.VM.get_by_uuid(vm.uuid)
        assert here.api.VM.get_power_state(ref) == "Halted"
        disk = here.api.VBD.get_VDI(here.api.VM.get_VBDs(ref)[0])
        assert digest(here, disk) == content(here, disk)
        here.api.VM.start(ref, False, False)


def test_a_destination_that_is_killed(arguments: list[str], here: Pool, vm: Vm, tmp_path: Path) -> None:
    with contextlib.suppress(OSError, XenAPI.Failure), kept(arguments, tmp_path / "s") as there:
        way = Way(here, there, vm, host=0)
        there.simulator.control.add_rule(SERVICE, "throttle", size=2 * MIB)
        task = here.api.Async.VM.migrate_send(vm.ref, *way.arguments())
        until(lambda: float(here.api.task.get_progress(task)) > 0)
        # Written down, so that it is there again.
        until(lambda: b"base_mirror" in (there.simulator.state / "pool.journal").read_bytes())
        kill(there)
    until(lambda: here.api.task.get_status(task) == "failure")
    assert here.api.task.get_error_info(task) == UNREACHABLE
    with kept(arguments, tmp_path / "s") as there:
        runs_here(here, there, vm, way.disk)
        assert there.api.VDI.get_all() == []


# The moment at which it changes hands


@pytest.fixture
def pair(tmp_path: Path, own_plugin: Path) -> Iterator[tuple[Simulator, Simulator]]:
    """Two pools in this process."""
    with contextlib.ExitStack() as stack:
        pools = []
        for name in ("a", "b"):
            state = tmp_path / name
            state.mkdir()
            agent = ("/bin/sleep", "600")
            settings = Settings(state, plugins=own_plugin, agent_command=agent, login_failure_delay=0, is_kept=True)
            pools.append(Simulator(settings))
            pools[-1].start()
            stack.callback(pools[-1].stop)
        yield pools[0], pools[1]


class Handover:
    """A VM that is about to change hands: the arguments of VM.migrate_send, and what becomes of it."""

    def __init__(self, source: Simulator, destination: Simulator) -> None:
        self.source, self.destination = source, destination
        self.here, self.there = (self.session(pool).xenapi for pool in (source, destination))
        self.vm = make_vm(self.session(source))
        self.vm.start(False, False)
        network = self.there.network.get_all()[0]
        self.arguments = [self.there.host.migrate_receive(self.there.host.get_all()[0], network, {}), True, {}, {}, {}]

    def session(self, pool: Simulator) -> XenAPI.Session:
        session = XenAPI.Session(pool.coordinator.url)
        session.login_with_password("root", pool.settings.password)
        return session

    def send(self) -> str:
        ref: str = self.vm.migrate_send(*self.arguments)
        return ref

    def states(self) -> tuple[list[str], list[str]]:
        """Of the VM here and there."""
        found = []
        for api in (self.here, self.there):
            found.append([api.VM.get_power_state(ref) for ref in api.VM.get_by_name_label("test")])
        return found[0], found[1]

    def agents(self) -> int:
        """How many run for it, in both pools together. Those that are frozen do not."""
        states = [pool.settings.state for pool in (self.source, self.destination)]
        files = [state / "guests" / self.vm.uuid / "agent.pid" for state in states]
        pids = [int(file.read_text()) for file in files if file.exists()]
        return sum(lives(pid) and status(pid) != "T" for pid in pids)


@pytest.fixture
def handover(pair: tuple[Simulator, Simulator]) -> Handover:
    return Handover(*pair)


def losing(act: bool) -> Callable[[Any, Any], Any]:
    """Instead of receiver's answer to `go`: none, whether it did it or not."""
    go = receiver._Receiver._go

    def lose(self: Any, frame: Any) -> Any:
        if act:
            go(self, frame)
        raise FormatError("the connection breaks")

    return lose


def test_an_answer_that_is_lost(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver._Receiver, "_go", losing(act=True))
    ref = handover.send()
    assert handover.there.VM.get_uuid(ref) == handover.vm.uuid
    assert handover.states() == ([], ["Running"])
    until(lambda: handover.agents() == 1)


def test_a_word_that_is_lost(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver._Receiver, "_go", losing(act=False))
    assert failure(handover.send) == UNREACHABLE
    assert handover.states() == (["Running"], [])
    assert handover.vm.get_blocked_operations() == {}
    until(lambda: handover.agents() == 1)
    monkeypatch.undo()
    handover.send()
    assert handover.states() == ([], ["Running"])


@pytest.mark.parametrize("act", [False, True])
def test_nobody_knows(handover: Handover, monkeypatch: pytest.MonkeyPatch, act: bool) -> None:
    lose = losing(act)

    def lose_sessions(self: Any, frame: Any) -> Any:
        for session in handover.destination.state.database.find("session", "originator", "migration"):
            handover.destination.state.database.destroy("session", session)
        return lose(self, frame)

    monkeypatch.setattr(receiver._Receiver, "_go", lose_sessions)
    monkeypatch.setattr(sender, "FIND_OUT_TIMEOUT", 0.3)
    error = failure(handover.send)
    assert (error[0], error[1]) == ("VM_MIGRATE_FAILED", handover.vm.ref)
    # It is nowhere lost, and runs in one pool at most.
    assert handover.states() == (["Paused"], ["Running"] if act else [])
    if not act:
        handover.vm.unpause()
        assert handover.states() == (["Running"], [])
        until(lambda: handover.agents() == 1)
    handover.vm.hard_shutdown()


def test_a_destination_whose_toolstack_restarts(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there for a while, and its guests run."""
    destination, go = handover.destination, receiver._Receiver._go
    port = urlsplit(destination.coordinator.url).port
    restart = threading.Thread(target=destination.faults.restart_toolstack, args=(0.5,), daemon=True)

    def is_closed() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED

    def go_and_restart(self: Any, frame: Any) -> Any:
        ref = go(self, frame)
        restart.start()
        until(is_closed)
        return ref

    monkeypatch.setattr(receiver._Receiver, "_go", go_and_restart)
    ref = handover.send()
    restart.join()
    monkeypatch.undo()
    database = destination.state.database
    assert database.get("VM", ref, "power_state") == "Running"
    assert handover.here.VM.get_by_name_label("test") == []


def test_a_source_that_is_killed_at_that_moment(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not know what became of its VM: nobody starts it there unawares."""
    source, saved = handover.source, []
    journal = source.settings.state / "pool.journal"
    handover.vm.add_to_other_config("auto_poweron", "true")
    handover.here.pool.add_to_other_config(handover.here.pool.get_all()[0], "auto_poweron", "true")
    go = receiver._Receiver._go

    def save(self: Any, frame: Any) -> Any:
        saved.append(journal.read_bytes())
        return go(self, frame)

    monkeypatch.setattr(receiver._Receiver, "_go", save)
    handover.send()
    source.stop()
    journal.write_bytes(saved[0])
    again = Simulator(source.settings)
    again.start()
    try:
        api = handover.session(again).xenapi
        (ref,) = api.VM.get_by_name_label("test")
        assert api.VM.get_power_state(ref) == "Halted"
        assert failure(api.VM.start, ref, False, False)[0] == "OPERATION_BLOCKED"
        assert handover.there.VM.get_power_state(handover.there.VM.get_by_uuid(handover.vm.uuid)) == "Running"
    finally:
        again.stop()


def test_what_was_built_is_taken_down(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "arrive", lambda *_: (_ for _ in ()).throw(OSError("no socket")))
    assert failure(handover.send)[0] == "INTERNAL_ERROR"
    assert handover.states() == (["Running"], [])
    assert not (handover.destination.settings.state / "guests" / handover.vm.uuid).exists()


def test_what_was_built_is_forgotten_after_a_restart(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    destination = handover.destination
    journal = destination.settings.state / "pool.journal"
    saved = []

    def save(self: Any, frame: Any) -> Any:
        assert handover.there.VM.get_power_state(self._vm) == "Paused"
        assert destination._persistence is not None
        destination._persistence.flush()
        saved.append(journal.read_bytes())
        return losing(act=False)(self, frame)

    monkeypatch.setattr(receiver._Receiver, "_go", save)
    assert failure(handover.send) == UNREACHABLE
    destination.stop()
    # As if it had been killed then.
    journal.write_bytes(saved[0])
    again = Simulator(destination.settings)
    again.start()
    try:
        assert again.state.database.find("VM", "name_label", "test") == []
    finally:
        again.stop()
