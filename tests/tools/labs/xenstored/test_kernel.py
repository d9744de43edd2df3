"""The guest's kernel keeps its clients apart on one ring, and cleans up after them. The test plays the daemon."""

from __future__ import annotations

import os
import select
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_protocol import wire
from agent_protocol.wire import Operation, Packet
from agent_protocol.xenstore import StoreClosed, StoreError, WatchEvent, connect
from tests.agent_protocol.store import DEADLINE, in_background
from tests.tools.labs.xenstored.test_ring import Daemon
from tools.labs.xenstored.hypervisor import Hypervisor
from tools.labs.xenstored.kernel import Kernel
from tools.labs.xenstored.loop import Loop


class Lab:
    def __init__(self, directory: Path) -> None:
        self._hypervisor = Hypervisor(directory / "lab")
        self._ring = Daemon(directory / "lab/ring.0")
        shared = self._hypervisor.dom0
        self.socket = directory / "guest"
        self._loop = Loop("test")
        self._kernel = self._loop.do(lambda: Kernel(shared, self.socket, self._loop.selector))
        self._events = os.open(directory / "lab/events", os.O_RDWR)
        self._wake = os.open(directory / "lab/wake.0", os.O_RDWR)
        self._received = b""

    def request(self) -> Packet:
        """The next request on the ring."""
        while True:
            self._received += self._ring.take(1024)
            if len(self._received) >= 16:
                header = wire.decode_header(self._received)
                end = 16 + header.length
                if len(self._received) >= end:
                    payload, self._received = self._received[16:end], self._received[end:]
                    return Packet(*header[:3], payload)
                os.write(self._wake, b"\0")
            assert select.select([self._events], [], [], DEADLINE)[0], "no request"
            assert struct.unpack("=I", os.read(self._events, 4)) == (1000,)

    def send(self, packet: Packet) -> None:
        data = wire.encode(packet)
        while data:
            data = data[self._ring.put(data) :]
            os.write(self._wake, b"\0")

    def answer(self, operation: int, payload: bytes = b"OK\0", answer: int | None = None) -> Packet:
        """Expect a request of this kind, and answer it."""
        request = self.request()
        assert request.operation == operation
        kind = request.operation if answer is None else answer
        self.send(Packet(kind, request.request_id, request.transaction_id, payload))
        return request

    def close(self) -> None:
        self._loop.do(self._kernel.close)
        self._loop.stop()
        self._ring.close()
        os.close(self._events)
        os.close(self._wake)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="xk-") as directory:
        lab = Lab(Path(directory))
        yield lab
        lab.close()


def test_answers_find_the_client_that_asked_in_any_order(lab: Lab) -> None:
    with connect(str(lab.socket)) as first, connect(str(lab.socket)) as second:
        # Both number their requests from 1.
        one, two = in_background(lambda: first.read("data/x")), in_background(lambda: second.read("data/x"))
        requests = [lab.request(), lab.request()]
        assert requests[0].request_id != requests[1].request_id
        three = in_background(lambda: second.read("data/y"))
        last = lab.request()
        lab.send(Packet(Operation.READ, last.request_id, 0, b"y"))
        assert three.result(DEADLINE) == b"y"
        for request in reversed(requests):
            lab.send(Packet(Operation.READ, request.request_id, 0, b"x"))
        assert one.result(DEADLINE) == two.result(DEADLINE) == b"x"


def test_packets_larger_than_the_ring_pass_in_both_directions(lab: Lab) -> None:
    with connect(str(lab.socket)) as client:
        value = bytes(range(256)) * 15
        writing = in_background(lambda: client.write("data/x", value))
        assert lab.answer(Operation.WRITE).payload == b"data/x\0" + value
        writing.result(DEADLINE)
        reading = in_background(lambda: client.read("data/x"))
        lab.answer(Operation.READ, value)
        assert reading.result(DEADLINE) == value


def test_equal_watches_of_two_clients_are_two_and_each_hears_its_own(lab: Lab) -> None:
    with connect(str(lab.socket)) as first, connect(str(lab.socket)) as second:
        tokens = []
        for client in (first, second):
            watching = in_background(lambda client=client: client.watch("data", "token"))
            path, token, _ = lab.answer(Operation.WATCH).payload.split(b"\0")
            assert path == b"data"
            watching.result(DEADLINE)
            tokens.append(token)
        assert tokens[0] != tokens[1]
        lab.send(Packet(Operation.WATCH_EVENT, 0, 0, wire.strings("data/x", tokens[1])))
        assert second.next_event(DEADLINE) == WatchEvent("data/x", "token")
        unwatching = in_background(lambda: second.unwatch("data", "token"))
        assert lab.answer(Operation.UNWATCH).payload == wire.strings("data", tokens[1])
        unwatching.result(DEADLINE)
        # An event that was on its way is nobody's now, and the other's comes.
        lab.send(Packet(Operation.WATCH_EVENT, 0, 0, wire.strings("data/y", tokens[1])))
        lab.send(Packet(Operation.WATCH_EVENT, 0, 0, wire.strings("data/z", tokens[0])))
        assert first.next_event(DEADLINE) == WatchEvent("data/z", "token")
        assert second.next_event(0) is None
        with pytest.raises(StoreError, match="ENOENT"):
            second.unwatch("data", "token")


def test_a_watch_that_the_daemon_refuses_is_forgotten(lab: Lab) -> None:
    with connect(str(lab.socket)) as client:
        watching = in_background(lambda: client.watch("data", "token"))
        lab.answer(Operation.WATCH, b"E2BIG\0", Operation.ERROR)
        with pytest.raises(StoreError, match="E2BIG"):
            watching.result(DEADLINE)
        with pytest.raises(StoreError, match="ENOENT"):
            client.unwatch("data", "token")


def test_a_client_that_closes_leaves_no_watch_and_no_transaction(lab: Lab) -> None:
    client = connect(str(lab.socket))
    watching = in_background(lambda: client.watch("data", "token"))
    watch = lab.answer(Operation.WATCH).payload
    watching.result(DEADLINE)
    for number, end in ((b"7\0", True), (b"8\0", False)):
        starting = in_background(client.transaction)
        lab.answer(Operation.TRANSACTION_START, number)
        transaction = starting.result(DEADLINE)
        if end:
            ending = in_background(transaction.commit)
            lab.answer(Operation.TRANSACTION_END)
            ending.result(DEADLINE)
    client.close()
    ended = lab.answer(Operation.TRANSACTION_END)
    assert (ended.transaction_id, ended.payload) == (8, b"F\0")
    assert lab.answer(Operation.UNWATCH).payload == watch


def test_a_transaction_that_starts_while_its_client_closes_is_ended(lab: Lab) -> None:
    client = connect(str(lab.socket))
    in_background(client.transaction)
    start = lab.request()
    client.close()
    # What another client asks comes behind the closing.
    with connect(str(lab.socket)) as other:
        asking = in_background(lambda: other.read("data"))
        lab.answer(Operation.READ)
        asking.result(DEADLINE)
        lab.send(Packet(Operation.TRANSACTION_START, start.request_id, 0, b"9\0"))
        ended = lab.answer(Operation.TRANSACTION_END)
        assert (ended.transaction_id, ended.payload) == (9, b"F\0")


def test_a_client_cannot_use_anothers_transaction(lab: Lab) -> None:
    with connect(str(lab.socket)) as first, connect(str(lab.socket)) as second:
        starting = in_background(first.transaction)
        lab.answer(Operation.TRANSACTION_START, b"7\0")
        transaction = starting.result(DEADLINE)
        transaction._client = second
        with pytest.raises(StoreError, match="ENOENT"):
            transaction.read("data")


def test_a_guest_that_is_gone_cuts_its_clients_off(lab: Lab) -> None:
    with connect(str(lab.socket)) as client:
        reading = in_background(lambda: client.read("data"))
        lab.request()
        lab._loop.do(lab._kernel.close)
        with pytest.raises(StoreClosed):
            reading.result(DEADLINE)
        assert not lab.socket.exists()
    lab._kernel.close = lambda: None  # type: ignore[method-assign]
