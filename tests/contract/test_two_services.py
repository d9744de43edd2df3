"""Two services claim one host. The one that has it is stopped in the middle of its work, and goes on when the other one
has the host: then it changes nothing any more, and ends."""

from __future__ import annotations

import functools
import json
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from compute_driver.db.records import Host
from compute_driver.db.repository import Repository
from compute_driver.service.process import LOST
from compute_driver.states import PowerState
from tests.databases import empty_database
from tools.simulator.faults.call_log import LoggedCall

from .house import CHECKOUT, House, house

pytestmark = pytest.mark.services

LEASE = 2.0
INSTANCES = 4
PATIENCE = 60.0

QUESTIONS = re.compile(r"\w+\.get_|event\.|session\.|task\.")
"""What changes no guest. Sessions are another matter, and tasks are only looked at, and forgotten, by it."""

STATES = {"Running": PowerState.RUNNING, "Halted": PowerState.SHUTDOWN, "Paused": PowerState.PAUSED}

TRANSACTION = {
    "postgresql": "?options=-c%20idle_in_transaction_session_timeout%3D4000",
    "mariadb": "&init_command=SET%20SESSION%20idle_transaction_timeout%3D4",
}
"""A process may be stopped in a transaction; what that has locked is free when the server gives it up."""


class Contender:
    """A service as if on a machine of its own. name: what its sessions are called at the hypervisor."""

    def __init__(self, scene: Scene, number: int) -> None:
        self.name = f"service-{number}"
        self.trigger = scene.home.directory / f"{self.name}.stop"
        self._log = scene.home.directory / f"{self.name}.log"
        self._scene = scene
        state = scene.home.directory / self.name
        state.mkdir()
        scene.home.configure(default={"state_path": str(state)})
        conf = scene.home.directory / f"{self.name}.conf"
        conf.write_text(scene.home.conf.read_text())
        program = [sys.executable, "-m", "tests.compute_driver.service.named_main", self.name, str(self.trigger)]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*program, "--config-file", str(conf)], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def await_ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", self.said()

    def await_standing_by(self) -> None:
        eventually(lambda: "waiting for its lease" in self.said(), self.said)

    def said(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        self.await_stopped()

    def await_stopped(self) -> None:
        """Until all of its threads are."""
        eventually(lambda: all(state == "T" for state in self._states()))

    def _states(self) -> list[str]:
        states = []
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            # Threads that end meanwhile are none.
            with suppress(FileNotFoundError, ProcessLookupError):
                states.append((task / "stat").read_text().rpartition(")")[2].split()[0])
        return states

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """The status with which it ends by itself."""
        return self._process.wait(PATIENCE)

    def terminate(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self.end()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Scene:
    """A host that services contend for, and a controller that gives orders on it meanwhile."""

    def __init__(self, home: House, repository: Repository, stack: ExitStack) -> None:
        self.home = home
        self.repository = repository
        self.control = home.simulator.control
        self._stack = stack
        self._started = 0

    def contender(self) -> Contender:
        self._started += 1
        it = Contender(self, self._started)
        self._stack.callback(it.kill)
        return it

    def leader(self) -> Contender:
        """A service that has the host, and serves it."""
        it = self.contender()
        it.await_ready()
        return it

    def standby(self) -> Contender:
        """One that waits for it."""
        it = self.contender()
        it.await_standing_by()
        return it

    @contextmanager
    def orders(self) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """Orders are given while the block runs; all have their answer at its end. Gives those that have it."""
        report = self.home.directory / "orders"
        command = [sys.executable, "-m", "tests.compute_driver.service.orders_main"]
        errors = self.home.directory / "orders.log"
        with errors.open("w") as log:
            process = subprocess.Popen(
                [*command, str(self.home.conf), str(INSTANCES), str(report)],
                cwd=CHECKOUT,
                stdin=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._stack.callback(process.kill)

        def given() -> list[dict[str, Any]]:
            lines = report.read_text().splitlines(keepends=True) if report.exists() else []
            return [json.loads(line) for line in lines if line.endswith("\n")]

        yield given
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE) == 0, errors.read_text()

    def said(self) -> str:
        """What all of them have logged."""
        return "".join(f"{log.name}:\n{log.read_text()}" for log in sorted(self.home.directory.glob("*.log")))

    def host(self) -> Host:
        (it,) = self.repository.list_hosts()
        return it

    def logged(self) -> int:
        """The number of the latest call."""
        calls = self.control.read_calls()
        return calls[-1].number if calls else 0

    def changes(self, name: str, since: int) -> list[LoggedCall]:
        """Calls of that service that changed something, or may have, and came after that one."""
        calls = [call for call in self.control.read_calls() if call.number > since and call.originator == name]
        return [call for call in calls if call.outcome in ("SUCCESS", "") and not QUESTIONS.match(call.name)]

    def take_over(self, heir: Contender) -> int:
        """Wait until the heir serves. Gives the number of the latest call when it had just got the lease."""
        epoch = self.host().epoch
        eventually(lambda: self.host().epoch == epoch + 1)
        marker = self.logged()
        heir.await_ready()
        return marker

    def check(self, given: list[dict[str, Any]]) -> None:
        """Each order has one outcome, each instance one guest, and nobody works on anything any more."""
        assert len({row["order"] for row in given}) == len(given)
        for row in given:
            action = self.repository.get_action(row["order"])
            assert action is not None and action.outcome is not None, row
            assert str(action.outcome) == row["outcome"], row
            # Who sends again what has succeeded is told just that.
            assert action.code == row["code"] or row["outcome"] == "succeeded", row
        assert self.repository.unfinished_actions(self.host().name) == []
        instances = self.repository.list_instances()
        assert [it.task_state for it in instances] == [None] * len(instances)
        created = {row["instance"] for row in given if row["method"] == "build_and_run_instance"}
        assert {it.uuid for it in instances} == created
        with self.home.session() as xenapi:
            vms = [it for it in xenapi.VM.get_all_records().values() if not it["is_control_domain"]]
        guests = {vm["name_label"].removeprefix("instance-"): vm["power_state"] for vm in vms}
        assert len(vms) == len(guests)
        # An instance whose creation was interrupted is in error, and has no guest.
        whole = {it.uuid: it.power_state for it in instances if it.vm_state != "error"}
        assert {it: STATES[state] for it, state in guests.items()} == whole


@contextmanager
def scene(directory: Path, kind: str = "postgresql", backend: str = "threading") -> Iterator[Scene]:
    with (
        house(directory, "--no-agent") as home,
        empty_database(kind, directory) as url,
        ExitStack() as stack,
    ):
        home.configure(
            default={
                "host": f"test-{uuid.uuid4().hex[:8]}",
                "transport_url": "rabbit://guest:guest@127.0.0.1:5672/",
                "concurrency_backend": backend,
            },
            database={"connection": url + TRANSACTION[kind]},
            service={"lease": str(LEASE), "reconcile_interval": "1"},
            oslo_messaging_rabbit={"amqp_auto_delete": "true"},
            endpoint={"port": "-1"},
        )
        repository = Repository(url)
        stack.callback(repository.close)
        home.simulator.control.log_calls()
        yield Scene(home, repository, stack)


def eventually(is_so: Callable[[], object], said: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, said()
        time.sleep(0.02)


def in_motion(at: Scene, given: Callable[[], list[dict[str, Any]]], more: int) -> None:
    """Wait until so many more orders have ended."""
    before = len(given())
    eventually(lambda: len(given()) >= before + more, at.said)


@pytest.mark.parametrize(("kind", "backend", "rounds"), [("postgresql", "threading", 5), ("mariadb", "eventlet", 2)])
def test_a_service_that_was_stopped_past_its_lease_does_nothing_more(
    directory: Path, kind: str, backend: str, rounds: int
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    with scene(directory, kind, backend) as it:
        leader = it.leader()
        with it.orders() as given:
            for _ in range(rounds):
                heir = it.standby()
                in_motion(it, given, 2 * INSTANCES)
                it.control.clear_calls()
                # The moment matters, not that anything is waited for.
                time.sleep(chance.uniform(0.0, 0.5))
                leader.stop()
                marker = it.take_over(heir)
                in_motion(it, given, INSTANCES)
                leader.go_on()
                assert leader.end() == LOST, leader.said()
                assert it.changes(leader.name, marker) == []
                # What ended until here may be orders that nobody had begun when their senders gave up.
                eventually(functools.partial(it.changes, heir.name, marker), it.said)
                leader = heir
        it.check(given())
        assert leader.terminate() == 0, leader.said()
        assert it.host().holder == ""


def test_what_was_let_pass_just_before_is_refused_by_the_hypervisor(directory: Path) -> None:
    with scene(directory) as it:
        leader = it.leader()
        with it.orders() as given:
            heir = it.standby()
            in_motion(it, given, INSTANCES)
            it.control.clear_calls()
            leader.trigger.write_text("VM.hard_shutdown")
            leader.await_stopped()
            marker = it.take_over(heir)
            in_motion(it, given, INSTANCES)
            since = it.logged()
            leader.go_on()
            assert leader.end() == LOST, leader.said()
            assert it.changes(leader.name, marker) == []
            after = [call for call in it.control.read_calls() if call.number > since]
            refused = [call for call in after if call.outcome == "SESSION_INVALID" and not QUESTIONS.match(call.name)]
            # Others may have been on their way as well.
            assert [call.name for call in refused].count("VM.hard_shutdown") == 1
            assert [call.name for call in after if call.originator == leader.name] == []
        it.check(given())
        assert heir.terminate() == 0, heir.said()


@pytest.mark.parametrize("backend", ["threading", "eventlet"])
def test_who_waits_for_the_host_can_be_stopped(directory: Path, backend: str) -> None:
    with scene(directory, backend=backend) as it:
        leader = it.leader()
        standby = it.standby()
        before = it.host()
        assert standby.terminate() == 0, standby.said()
        assert (it.host().holder, it.host().epoch) == (before.holder, before.epoch)
        assert leader.terminate() == 0, leader.said()
        assert it.host().holder == ""
