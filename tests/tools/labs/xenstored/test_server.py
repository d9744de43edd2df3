"""The real daemons start, serve, restart and end as the simulated one does, and leave nothing."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.xenstore import Client, StoreClosed, StoreError, connect
from tests.agent_protocol.store import DEADLINE, in_background, lay_out
from tools.labs.xenstored.server import XenstoredServer
from tools.simulator.__main__ import build_parser

CHECKOUT = Path(__file__).resolve().parents[4]

VM = "c0ffee00-0000-4000-8000-000000000001"


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="xs-") as path:
        yield Path(path)


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.services) for name in ("c", "ocaml")])
def server(directory: Path, request: pytest.FixtureRequest) -> Iterator[XenstoredServer]:
    server = XenstoredServer(directory / "xenstore", request.param)
    server.start()
    yield server
    server.stop()


def test_what_cannot_be_served_is_said_before_anything_is_started(directory: Path) -> None:
    with pytest.raises(ValueError, match="too long by"):
        XenstoredServer(directory / ("x" * 100))
    with pytest.raises(ValueError, match="cannot be recorded"):
        XenstoredServer(directory, tap=lambda _record: None)
    server = XenstoredServer(directory)
    for call in (lambda: server.introduce(1), lambda: server.release(1)):
        with pytest.raises(RuntimeError, match="does not run"):
            call()
    for domid in (0, -1, 0x7FF0):
        with pytest.raises(ValueError, match="no guest's domid"):
            server.introduce(domid)
    server.stop()


def test_a_store_that_starts_again_is_empty(server: XenstoredServer) -> None:
    with pytest.raises(RuntimeError, match="runs already"):
        server.start()
    for _ in range(2):
        with connect(str(server.socket)) as dom0:
            assert dom0.directory("/tool") == ["xenstored"]
            assert "a" not in dom0.directory("/")
            dom0.write("/a", b"")
            path = server.introduce(7)
            with connect(str(path)) as guest:
                pid = server.pid
                server.stop()
                server.stop()
                for client in (dom0, guest):
                    with pytest.raises(StoreClosed):
                        client.read("/a")
        assert not Path(f"/proc/{pid}").exists()
        # The logs stay, for who wants to know what happened.
        assert all(left.suffix == ".log" for left in server.socket.parent.iterdir())
        server.start()


def test_introducing_twice_is_once_and_the_toolstacks_order_works(server: XenstoredServer) -> None:
    with connect(str(server.socket)) as dom0:
        dom0.watch("@introduceDomain", "in")
        assert dom0.next_event(DEADLINE) is not None
        # The nodes first, as xenopsd does: the domain exists, but nobody has introduced it yet.
        lay_out(dom0, 5, VM)
        path = server.introduce(5)
        assert server.introduce(5) == path
        assert dom0.next_event(DEADLINE) is not None
        with connect(str(path)) as guest:
            guest.write("data/x", b"mine")
            assert dom0.get_permissions("/local/domain/5/data/x") == ["n5"]
        assert dom0.next_event(0) is None
        with pytest.raises(LookupError):
            server.release(6)


def test_many_guests_come_and_go_at_once(server: XenstoredServer) -> None:
    def live(dom0: Client, domid: int) -> None:
        for round_ in range(5):
            with connect(str(server.introduce(domid))) as guest:
                home = lay_out(dom0, domid, VM)
                guest.write("data/x", b"%d" % round_)
                assert dom0.read(f"{home}/data/x") == b"%d" % round_
                dom0.remove(home)
                server.release(domid)

    with connect(str(server.socket), DEADLINE) as dom0:
        for future in [in_background(lambda domid=domid: live(dom0, domid)) for domid in range(1, 7)]:
            future.result(DEADLINE)


def test_the_end_of_a_domain_is_noticed_behind_other_events(server: XenstoredServer) -> None:
    server.introduce(3)
    server.introduce(4)
    assert server._running is not None
    for _ in range(1000):
        server._running._hypervisor.fire(1004)
    server.release(3)
    with connect(str(server.socket)) as dom0:
        dom0.watch("@releaseDomain", "out")
        assert dom0.next_event(DEADLINE) is not None
        server.release(4)
        assert dom0.next_event(DEADLINE) is not None


def test_many_clients_on_one_ring_get_their_own_answers(server: XenstoredServer) -> None:
    with connect(str(server.socket)) as dom0:
        path = server.introduce(3)
        lay_out(dom0, 3, VM)
    begun = threading.Barrier(6)

    def talk(number: int) -> int:
        with connect(str(path)) as guest:
            begun.wait(DEADLINE)
            for size in range(0, 2000, 20):
                value = bytes([number]) * size
                guest.write(f"data/{number}", value)
                assert guest.read(f"data/{number}") == value
        return number

    futures = [in_background(lambda number=number: talk(number)) for number in range(6)]
    assert [future.result(DEADLINE) for future in futures] == list(range(6))


def test_the_daemon_ends_with_whoever_started_it(server: XenstoredServer, directory: Path) -> None:
    script = (
        "import sys, signal; from pathlib import Path\n"
        "from tools.labs.xenstored.server import XenstoredServer\n"
        "server = XenstoredServer(Path(sys.argv[1]), sys.argv[2]); server.start()\n"
        "print(server.pid, flush=True); signal.pause()\n"
    )
    command = [sys.executable, "-c", script, str(directory / "other"), server._implementation]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    assert process.stdout is not None
    daemon = os.pidfd_open(int(process.stdout.readline()))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert select.select([daemon], [], [], DEADLINE)[0]
    os.close(daemon)


@pytest.mark.services
@pytest.mark.parametrize("implementation", ["c", "ocaml"])
def test_a_daemon_that_does_not_start_is_quoted(directory: Path, implementation: Any) -> None:
    # Where its socket should be there is something that it cannot remove.
    (directory / "socket").mkdir()
    server = XenstoredServer(directory, implementation)
    with pytest.raises(OSError, match=r"the XenStore daemon ended: \S"):
        server.start()
    assert not (directory / "lab").exists()
    (directory / "socket").rmdir()
    server.start()
    server.stop()


def test_guests_keep_their_quota_when_others_use_up_theirs(server: XenstoredServer) -> None:
    with connect(str(server.socket)) as dom0:
        for domid in (3, 4):
            server.introduce(domid)
            lay_out(dom0, domid, VM)
        with connect(str(server.introduce(3))) as greedy, connect(str(server.introduce(4))) as modest:
            with pytest.raises(StoreError, match=r"ENOSPC|EQUOTA"):
                for number in range(1001):
                    greedy.mkdir(f"data/{number // 30}/{number % 30}")
            modest.write("data/x", b"")


def test_the_simulators_default_is_its_own_daemon() -> None:
    assert build_parser().parse_args([]).xenstore == "simulated"
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--xenstore", "another"])


def test_packets_of_a_real_daemon_are_not_recorded(directory: Path) -> None:
    arguments = ["--xenstore", "xenstored", "--record-xenstore", str(directory / "packets")]
    done = subprocess.run(
        [sys.executable, "-m", "tools.simulator", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "xenward-simulator: the packets of a real XenStore daemon cannot be recorded\n"
