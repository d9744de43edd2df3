"""The private servers keep what was committed, whatever ends them, and leave nothing behind."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import amqp
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tools.labs.cache import LabError
from tools.labs.services import RabbitMQ, private_mariadb, private_postgresql, private_rabbitmq, server
from tools.labs.services.server import Server

pytestmark = pytest.mark.services

CHECKOUT = Path(__file__).resolve().parents[4]

Private = Callable[[Path], AbstractContextManager[Any]]

DATABASES = pytest.mark.parametrize("private", [private_postgresql, private_mariadb])
ALL = pytest.mark.parametrize("private", [private_postgresql, private_mariadb, private_rabbitmq])

_OWNER = """\
import sys, time
from pathlib import Path
from tools.labs import services
with getattr(services, sys.argv[1])(Path(sys.argv[2])) as server:
    print(*server.pids(), flush=True)
    time.sleep(600)
"""


class Rows:
    """The numbers that a database holds."""

    def __init__(self, it: Any) -> None:
        self._engine = create_engine(it.url, poolclass=NullPool)

    def make(self) -> None:
        with self._engine.begin() as connection:
            connection.execute(text("CREATE TABLE rows_kept (number INTEGER)"))

    def add(self, number: int) -> None:
        with self._engine.begin() as connection:
            connection.execute(text("INSERT INTO rows_kept VALUES (:number)"), {"number": number})

    def all(self) -> list[int]:
        with self._engine.begin() as connection:
            return sorted(connection.execute(text("SELECT number FROM rows_kept")).scalars())


@contextmanager
def channel(it: RabbitMQ) -> Iterator[amqp.Channel]:
    """A channel with publisher confirms and a durable queue `kept`."""
    with it.connect() as connection:
        opened = amqp.Channel(connection)
        opened.open()
        opened.confirm_select()
        opened.queue_declare("kept", durable=True, auto_delete=False)
        yield opened


def put(it: RabbitMQ, body: str) -> None:
    with channel(it) as opened:
        opened.basic_publish_confirm(amqp.Message(body, delivery_mode=2), routing_key="kept")


def take(it: RabbitMQ) -> list[str]:
    with channel(it) as opened:
        return [message.body for message in iter(lambda: opened.basic_get("kept", no_ack=True), None)]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def commands(marker: str) -> list[str]:
    """The command lines of this machine's processes that have this text in command line or environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if marker.encode() in b"".join(told):
            found.append(told[0].decode())
    return found


@DATABASES
def test_a_database_keeps_what_was_committed(private: Private, tmp_path: Path) -> None:
    with private(tmp_path) as it:
        rows = Rows(it)
        rows.make()
        rows.add(1)
        it.restart()
        assert rows.all() == [1]
        rows.add(2)
        killed = it.pids()
        assert killed
        it.kill()
        assert alive(killed) == [] and it.pids() == []
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", it.port), 5):
            pass
        it.start()
        assert rows.all() == [1, 2]
        last = it.pids()
    assert alive(last) == []
    assert commands(str(tmp_path)) == []


@DATABASES
def test_a_server_is_frozen_until_it_goes_on(private: Private, tmp_path: Path) -> None:
    with private(tmp_path) as it:
        it.pause()
        # One that has just ended stays a zombie: who would take it away is stopped, too.
        await_that(lambda: {state(pid) for pid in it.pids()} - {"", "Z"} == {"T"}, "they are stopped")
        it.resume()
        await_that(lambda: "T" not in {state(pid) for pid in it.pids()}, "they go on")
        Rows(it).make()
        it.pause()
        it.stop()
        assert it.pids() == []


def state(pid: int) -> str:
    """A process's state, such as T for stopped; empty when it is gone, as PostgreSQL's workers come and go."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def await_that(holds: Callable[[], bool], what: object) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_a_broker_keeps_what_was_confirmed(tmp_path: Path) -> None:
    with private_rabbitmq(tmp_path) as it:
        put(it, "one")
        killed = it.pids()
        assert len(killed) > 2
        it.kill()
        assert alive(killed) == []
        it.start()
        put(it, "two")
        it.restart()
        assert take(it) == ["one", "two"]
        with pytest.raises(amqp.exceptions.AccessRefused):
            amqp.Connection(f"127.0.0.1:{it.port}", "xenward", "wrong", virtual_host=it.virtual_host).connect()
        last = it.pids()
    assert alive(last) == []
    assert commands(str(tmp_path)) == []


@ALL
def test_nothing_is_left_when_the_owner_is_killed(private: Private, tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, private.__name__, str(tmp_path)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    with owner:
        try:
            pids = [int(pid) for pid in owner.stdout.readline().split()]
            # Not all of them: some of a database's processes end as soon as it is ready.
            assert alive(pids)
        finally:
            owner.kill()
    await_that(lambda: alive(pids) == [] and commands(str(tmp_path)) == [], pids)


def test_two_at_a_time_do_not_clash(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for private in (private_postgresql, private_mariadb):
            pair = []
            for name in "ab":
                (tmp_path / private.__name__ / name).mkdir(parents=True)
                pair.append(stack.enter_context(private(tmp_path / private.__name__ / name)))
            tables = [Rows(it) for it in pair]
            for number, rows in enumerate(tables):
                rows.make()
                rows.add(number)
            pair[0].kill()
            assert tables[1].all() == [1]
        brokers = []
        for name in "ab":
            (tmp_path / name).mkdir()
            brokers.append(stack.enter_context(private_rabbitmq(tmp_path / name)))
        for broker, body in zip(brokers, "ab"):
            put(broker, body)
        assert [take(broker) for broker in brokers] == [["a"], ["b"]]


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match="install Debian's package mariadb-server"):
        server.program("mariadb-server", "usr/sbin/no-such-daemon")

    class Nobodys(Server):
        user = "xenward-nobody"
        package = "nobodys-package"

    monkeypatch.setattr(Nobodys, "__abstractmethods__", frozenset())
    with pytest.raises(LabError, match="install Debian's package nobodys-package"):
        Nobodys(tmp_path)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with private_postgresql(tmp_path) as it:
        it.stop()
        free = it.port
        # Another one: its own may not be had for a minute, because of connections that there were.
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            it.port = taken.getsockname()[1]
            with pytest.raises(LabError, match=r"(?s)postgresql ended.*could not bind"):
                it.start()
        it.port = free
        it.start()
        Rows(it).make()
