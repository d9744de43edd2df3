"""The main job over RabbitMQ and a database server, service and command as processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from compute_driver.db.repository import Repository
from compute_driver.files import InjectedFile
from tests.databases import empty_database
from tools.commands import proof

from .house import CHECKOUT, FIRST_PASSWORD, SECOND_PASSWORD, SECONDS, House
from .test_outcomes import ended

pytestmark = pytest.mark.services


@contextmanager
def service(home: House) -> Iterator[subprocess.Popen[str]]:
    """`xenward-compute` as a process, ready to serve."""
    command = [sys.executable, "-m", "compute_driver.service", "--config-file", str(home.conf)]
    with (home.directory / "service.log").open("a") as log:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", (home.directory / "service.log").read_text()
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0, (home.directory / "service.log").read_text()


def over_the_bus(home: House, database: str, backend: str) -> None:
    home.configure(
        default={
            # A host of its own, so that tests that run at the same time do not share a queue.
            "host": f"test-{uuid.uuid4().hex[:8]}",
            "transport_url": "rabbit://guest:guest@127.0.0.1:5672/",
            "concurrency_backend": backend,
        },
        database={"connection": database},
        oslo_messaging_rabbit={"amqp_auto_delete": "true"},
        endpoint={"port": "-1"},
    )


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
@pytest.mark.parametrize("backend", ["threading", "eventlet"])
def test_the_main_job_with_service_and_command_apart(home: House, directory: Path, kind: str, backend: str) -> None:
    (directory / "blob").write_bytes(bytes(range(256)))
    with empty_database(kind, directory) as database:
        over_the_bus(home, database, backend)
        with service(home):
            instance = home.create()
            assert home.set_password(SECOND_PASSWORD).status == 0
            put = home.xenward("server", "file", "put", "web", str(directory / "blob"), "/etc/blob", "--mode", "0644")
            assert put.status == 0, put
            guest = home.guest(instance)
            assert proof.password_opens(guest, "root", SECOND_PASSWORD)
            assert not proof.password_opens(guest, "root", FIRST_PASSWORD)
            assert proof.file_is(guest, InjectedFile("/etc/blob", bytes(range(256)), 0o644))
            assert [row["outcome"] for row in home.actions()] == ["succeeded"] * 9
            ended(home.set_password("x", "nobody"), "refused", "instance_not_found")
            assert home.xenward("server", "delete", "web").status == 0
    log = (directory / "service.log").read_text()
    assert SECOND_PASSWORD not in log
    assert f"set_admin_password {instance}: succeeded" in log


@pytest.mark.parametrize(("backend", "kind"), [("threading", "postgresql"), ("eventlet", "mariadb")])
def test_a_stop_ends_what_was_begun_and_takes_nothing_new(
    home: House, directory: Path, backend: str, kind: str
) -> None:
    with empty_database(kind, directory) as database:
        over_the_bus(home, database, backend)
        with service(home) as process:
            home.create()
            control = home.simulator.control
            control.log_calls()
            slow = control.add_rule("VM.hard_reboot", "delay", seconds=120.0)
            command = home.start("server", "reboot", "web", "--hard", "-f", "json")
            control.await_calls("VM.hard_reboot", 1, SECONDS)
            process.send_signal(signal.SIGTERM)
            new = home.set_password(SECOND_PASSWORD, "nobody")
            while new.shown["outcome"] == "refused":
                # It has not come to the signal yet.
                new = home.set_password(SECOND_PASSWORD, "nobody")
            assert new.shown["outcome"] == "unreachable", new
            assert process.poll() is None
            control.remove_rule(slow)
            done = home.end(command)
            assert (done.status, done.shown["outcome"]) == (0, "succeeded"), done
            assert process.wait(SECONDS) == 0
        with closing(Repository(database)) as repository:
            (host,) = repository.list_hosts()
            assert host.holder == ""
            assert repository.unfinished_actions(host.name) == []
            assert [it.task_state for it in repository.list_instances()] == [None]


def test_without_a_service_an_order_is_not_delivered(home: House, directory: Path) -> None:
    with empty_database("postgresql", directory) as database:
        over_the_bus(home, database, "threading")
        ended(home.set_password(SECOND_PASSWORD), "unreachable", "service_unreachable")
        home.configure(default={"transport_url": "rabbit://guest:guest@127.0.0.1:1/"})
        ended(home.set_password(SECOND_PASSWORD), "unreachable", "bus_unreachable")
