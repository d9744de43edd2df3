"""The daemon's life: sockets, threads, hostile clients, the tap."""

from __future__ import annotations

import select
import socket
import stat
import struct
import threading
from pathlib import Path
from typing import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tools.simulator.xenstore import client as c
from tests.tools.simulator.xenstore.client import Client
from tools.simulator.xenstore import connection, daemon
from tools.simulator.xenstore.server import TapRecord, XenStoreServer

Guest = Callable[[int], Client]


def test_sockets_are_private_and_go_away(directory: Path) -> None:
    server = XenStoreServer(directory / "made" / "here")
    server.start()
    paths = [server.socket, server.introduce(3)]
    assert paths == [directory / "made" / "here" / "socket", directory / "made" / "here" / "domain-3"]
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    client = Client(server.socket)
    server.stop()
    server.stop()
    assert client.closed_by_server()
    client.close()
    assert not any(path.exists() for path in paths)
    assert "xenstored" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(RuntimeError):
        server.introduce(4)


def test_it_can_be_started_again_and_is_empty(directory: Path) -> None:
    server = XenStoreServer(directory)
    server.stop()
    for _ in range(2):
        server.start()
        with pytest.raises(RuntimeError):
            server.start()
        client = Client(server.socket)
        assert client.list("/") == ["tool"]
        client.write("/a", b"")
        client.close()
        server.stop()


def test_a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "socket"))
    server = XenStoreServer(directory)
    server.start()
    with pytest.raises(OSError):
        XenStoreServer(directory).start()
    client = Client(server.socket)
    assert client.list("/") == ["tool"]
    client.close()
    server.stop()


def test_a_directory_too_deep_for_sockets_is_refused_at_once(directory: Path) -> None:
    room = 107 - len("/domain-32751")
    deep = Path(str(directory) + "/" + "d" * (room - len(str(directory)) - 1))
    server = XenStoreServer(deep)
    server.start()
    server.introduce(32751)
    server.stop()
    with pytest.raises(ValueError, match="107"):
        XenStoreServer(Path(str(deep) + "d"))


@pytest.mark.parametrize("domid", [-1, 0, 0x7FF0])
def test_only_guests_are_introduced(server: XenStoreServer, domid: int) -> None:
    with pytest.raises(ValueError):
        server.introduce(domid)
    with pytest.raises(LookupError):
        server.release(domid)


def test_a_released_guest_is_cut_off_and_what_it_owned_is_gone(
    dom0: Client, server: XenStoreServer, guest: Guest
) -> None:
    client = guest(3)
    client.write("data/x", b"left")
    client.watch("data", "t")
    dom0.write("/local/domain/3/data/theirs", b"")
    dom0.set_perms("/local/domain/3/data/theirs", "n0")
    dom0.watch("/local/domain/3", "t")
    dom0.all_events()
    path = server.introduce(3)
    server.release(3)
    assert client.closed_by_server()
    assert not path.exists()
    assert dom0.all_events() == [(b"/local/domain/3/data", b"t")]
    assert dom0.list("/local/domain/3") == ["name"]
    with pytest.raises(LookupError):
        server.release(3)
    again = Client(server.introduce(3))
    dom0.write("/local/domain/3/data/x", b"nobody hears")
    for number in range(100):
        again.watch("data", f"{number}")
    again.close()


def test_many_threads_introduce_and_release(server: XenStoreServer, dom0: Client) -> None:
    failures: list[BaseException] = []

    def churn(domid: int) -> None:
        try:
            for _ in range(20):
                client = Client(server.introduce(domid))
                assert client.call(c.GET_DOMAIN_PATH, b"1\0")
                server.release(domid)
                assert client.closed_by_server()
                client.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=churn, args=(domid,)) for domid in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert dom0.list("/") == ["tool"]


def test_requests_arrive_in_pieces_and_in_bunches(dom0: Client) -> None:
    packet = struct.pack("<IIII", c.READ, 9, 0, 6) + b"/tool\0"
    for byte in packet:
        dom0.socket.sendall(bytes([byte]))
    assert dom0.receive() == (c.READ, 9, 0, b"")
    dom0.socket.sendall(packet * 3000)
    assert [dom0.receive() for _ in range(3000)] == [(c.READ, 9, 0, b"")] * 3000


def test_a_header_that_announces_too_much_ends_the_connection(dom0: Client, server: XenStoreServer, connect) -> None:
    for length in (4097, 0xFFFFFFFF):
        hostile = connect(server.socket)
        hostile.socket.sendall(struct.pack("<IIII", c.READ, 1, 0, length))
        assert hostile.closed_by_server()
    assert dom0.list("/") == ["tool"]


def test_who_does_not_read_is_disconnected_and_nobody_waits(dom0: Client, guest: Guest) -> None:
    lazy, busy = guest(3), guest(4)
    for number in range(100):
        lazy.watch("data", f"{number}" + "t" * 1000)
    # Each change is 100 kB of events, of which the kernel takes some before the backlog grows.
    for _ in range(connection.MAX_BACKLOG // 100_000 + 10):
        dom0.write("/local/domain/3/data/x", b"")
        busy.write("data/y", b"")
    assert lazy.closed_by_server()
    # Its watches went with it.
    assert busy.read("data/y") == b""


def test_nothing_is_done_for_a_client_that_is_cut_off(dom0: Client, server: XenStoreServer, connect) -> None:
    dom0.write("/b", b"v" * 2048)
    greedy = connect(server.socket)
    read = struct.pack("<IIII", c.READ, 1, 0, 3) + b"/b\0"
    late = struct.pack("<IIII", c.WRITE, 2, 0, 6) + b"/late\0"
    # One piece of 16 KiB, whose answers are larger than the kernel's buffer and the backlog together.
    greedy.socket.sendall(read * 850 + late)
    # It must not read before: what it takes is room for more.
    hangup = select.poll()
    hangup.register(greedy.socket, 0)
    assert hangup.poll(10_000)
    assert greedy.closed_by_server()
    assert dom0.list("/") == ["tool", "b"]


def test_events_wait_for_a_slow_reader(dom0: Client, guest: Guest) -> None:
    slow = guest(3)
    slow.watch("data", "t" * 2000)
    slow.event()
    for _ in range(400):
        dom0.write("/local/domain/3/data/x", b"")
    for _ in range(400):
        assert slow.event() == (b"data/x", b"t" * 2000)


def test_a_guest_cannot_hoard_connections(dom0: Client, server: XenStoreServer, connect) -> None:
    path = server.introduce(3)
    clients = [connect(path) for _ in range(daemon.MAX_CONNECTIONS)]
    for client in clients:
        client.call(c.GET_DOMAIN_PATH, b"3\0")
    assert connect(path).closed_by_server()
    assert dom0.list("/") == ["tool"]
    clients[0].socket.shutdown(socket.SHUT_WR)
    assert clients[0].closed_by_server()
    assert connect(path).call(c.GET_DOMAIN_PATH, b"3\0")


def test_without_descriptors_it_rests_until_one_is_free(
    dom0: Client, server: XenStoreServer, connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = connect(server.introduce(3))
    other.call(c.GET_DOMAIN_PATH, b"3\0")
    refusals = []

    def exhausted(_self: socket.socket) -> None:
        refusals.append(1)
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "accept", exhausted)
        waiting = connect(server.socket)
        waiting.send(c.DIRECTORY, b"/\0")
        for _ in range(50):
            dom0.list("/")
        # A second attempt would mean that the loop spins.
        assert len(refusals) == 1
    other.socket.shutdown(socket.SHUT_WR)
    assert other.closed_by_server()
    assert waiting.receive() == (c.DIRECTORY, 0, 0, b"tool\0")


SHAPED = st.builds(
    lambda operation, request, transaction, payload: (
        struct.pack("<IIII", operation, request, transaction, len(payload)) + payload
    ),
    st.one_of(st.integers(0, 23), st.integers(0, 0xFFFFFFFF)),
    st.integers(0, 0xFFFFFFFF),
    st.sampled_from([0, 1, 2, 0xFFFFFFFF]),
    st.one_of(
        st.binary(max_size=100),
        st.lists(st.sampled_from([b"data", b"data/x", b"/", b"", b"T", b"n3", b"r4", b"0", b"-1", b"@x"])).map(
            lambda parts: b"".join(part + b"\0" for part in parts)
        ),
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.one_of(SHAPED, st.binary(max_size=64)), max_size=20))
def test_no_bytes_of_a_guest_disturb_another_client(
    server: XenStoreServer, dom0: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sent: list
) -> None:
    path = server.introduce(3)
    dom0.write("/local/domain/3/data", b"")
    dom0.set_perms("/local/domain/3/data", "n3")
    dom0.write("/private", b"untouched")
    hostile = Client(path)
    try:
        hostile.socket.sendall(b"".join(sent))
        hostile.socket.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # cut off in the middle
    assert hostile.closed_by_server()
    hostile.close()
    assert dom0.read("/private") == b"untouched"
    assert dom0.list("/local/domain/3") == ["data"] or dom0.list("/local/domain/3") == []
    assert not caplog.records


def test_the_tap_sees_every_packet_in_both_directions(directory: Path) -> None:
    records: list[TapRecord] = []
    server = XenStoreServer(directory, tap=records.append)
    server.start()
    client = Client(server.introduce(3))
    dom0 = Client(server.socket)
    dom0.write("/shared", b"value")
    dom0.set_perms("/shared", "r0")
    client.watch("/shared", "t")
    client.event()
    assert client.read("/shared") == b"value"
    with pytest.raises(c.Refused):
        client.write("/shared", b"no")
    client.close()
    dom0.close()
    server.stop()
    assert records == [
        TapRecord(0, "request", c.WRITE, b"/shared\0value"),
        TapRecord(0, "reply", c.WRITE, b"OK\0"),
        TapRecord(0, "request", c.SET_PERMS, b"/shared\0r0\0"),
        TapRecord(0, "reply", c.SET_PERMS, b"OK\0"),
        TapRecord(3, "request", c.WATCH, b"/shared\0t\0"),
        TapRecord(3, "reply", c.WATCH, b"OK\0"),
        TapRecord(3, "event", c.WATCH_EVENT, b"/shared\0t\0"),
        TapRecord(3, "request", c.READ, b"/shared\0"),
        TapRecord(3, "reply", c.READ, b"value"),
        TapRecord(3, "request", c.WRITE, b"/shared\0no"),
        TapRecord(3, "reply", c.ERROR, b"EACCES\0"),
    ]
    assert "value" not in repr(records)


def test_a_tap_may_fail_and_may_call_the_server(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    def tap(record: TapRecord) -> None:
        if record.direction == "request":
            server.introduce(8)
            raise ValueError(record.payload)

    server = XenStoreServer(directory, tap)
    server.start()
    client = Client(server.socket)
    client.write("/a", b"hidden-value")
    assert client.call(c.IS_DOMAIN_INTRODUCED, b"8\0") == b"T\0"
    client.close()
    server.stop()
    assert "ValueError" in caplog.text
    assert "hidden-value" not in caplog.text


def test_an_error_of_ours_ends_one_connection_only(
    dom0: Client, guest: Guest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = guest(3)

    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("hidden-value")

    monkeypatch.setattr("tools.simulator.xenstore.tree.Tree.write", fail)
    client.send(c.WRITE, b"data/x\0hidden-value")
    assert client.closed_by_server()
    assert dom0.read("/local/domain/3/name") == b"guest"
    assert "ZeroDivisionError" in caplog.text
    assert "hidden-value" not in caplog.text
