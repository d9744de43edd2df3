"""The client against a daemon that is slow, silent, dying or mad: every wait ends, and ends honestly."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_protocol import wire
from agent_protocol.wire import Operation, Packet
from agent_protocol.xenstore import (
    MAX_EVENTS,
    Client,
    StoreClosed,
    StoreError,
    StoreTimeout,
    WatchEvent,
    XenStoreError,
    connect,
)
from tests.agent_protocol.store import DEADLINE, StandIn, in_background


def event_packet(path: str, token: str) -> bytes:
    return wire.encode(Packet(Operation.WATCH_EVENT, 0, 0, wire.strings(path, token)))


class TestSilence:
    def test_no_answer_is_a_timeout(self) -> None:
        daemon = StandIn(timeout=0.05)
        start = time.monotonic()
        with pytest.raises(StoreTimeout, match=r"READ /x: no answer in 0\.05 s"):
            daemon.client.read("/x")
        assert 0.05 <= time.monotonic() - start < DEADLINE
        daemon.close()

    def test_a_late_answer_is_not_taken_for_the_next_one(self) -> None:
        daemon = StandIn(timeout=0.05)
        with pytest.raises(StoreTimeout):
            daemon.client.read("/first")
        late = daemon.request()
        # Both lie in the socket before the next question is asked, or come just before its answer.
        daemon.answer(late, b"late")
        daemon.client._timeout = DEADLINE
        second = in_background(lambda: daemon.client.read("/second"))
        request = daemon.request()
        daemon.answer(late, b"very late")
        daemon.answer(request, b"right")
        assert second.result(DEADLINE) == b"right"
        daemon.close()

    def test_a_daemon_that_does_not_read_closes_the_connection(self) -> None:
        daemon = StandIn(timeout=0.05)
        with pytest.raises(StoreClosed, match="does not read"):
            while True:
                with contextlib.suppress(StoreTimeout):
                    daemon.client.write("/x", bytes(4000))
        daemon.close()

    def test_a_socket_that_nobody_accepts_at(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.fspath(tmp_path / "s"))
            with pytest.raises(StoreClosed, match="ECONNREFUSED"):
                connect(str(tmp_path / "s"), 0.05)
            listener.listen(0)
            with connect(str(tmp_path / "s"), 0.05) as queued:
                with pytest.raises(StoreTimeout):
                    queued.read("/")
                with pytest.raises(StoreClosed, match="cannot connect"):
                    connect(str(tmp_path / "s"), 0.05)


class TestDeath:
    def test_while_a_thread_waits_for_its_answer(self, stand_in: StandIn) -> None:
        reading = in_background(lambda: stand_in.client.read("/x"))
        stand_in.request()
        stand_in.die()
        with pytest.raises(StoreClosed, match=r"daemon closed|ECONNRESET"):
            reading.result(DEADLINE)

    def test_while_several_threads_wait(self, stand_in: StandIn) -> None:
        waiting: list[Future[object]] = [in_background(lambda: stand_in.client.next_event(None)) for _ in range(2)]
        waiting += [in_background(lambda: stand_in.client.read("/x")) for _ in range(2)]
        stand_in.request()
        stand_in.request()
        stand_in.die()
        for each in waiting:
            with pytest.raises(StoreClosed):
                each.result(DEADLINE)

    def test_events_that_came_before_are_still_delivered(self, stand_in: StandIn) -> None:
        stand_in.send(event_packet("data/x", "token"))
        stand_in.die()
        assert stand_in.client.next_event(DEADLINE) == WatchEvent("data/x", "token")
        with pytest.raises(StoreClosed):
            stand_in.client.next_event(DEADLINE)

    def test_in_the_middle_of_a_packet(self, stand_in: StandIn) -> None:
        reading = in_background(lambda: stand_in.client.read("/x"))
        request = stand_in.request()
        stand_in.send(wire.encode(Packet(Operation.READ, request.request_id, 0, b"value"))[:-1])
        stand_in.die()
        with pytest.raises(StoreClosed):
            reading.result(DEADLINE)

    @pytest.mark.parametrize("timeout", [None, DEADLINE])
    def test_another_thread_closes(self, stand_in: StandIn, timeout: float | None) -> None:
        reading = in_background(lambda: stand_in.client.read("/x"))
        stand_in.request()
        waiting = in_background(lambda: stand_in.client.next_event(timeout))
        start = time.monotonic()
        in_background(stand_in.client.close).result(DEADLINE)
        for each in (waiting, reading):
            with pytest.raises(StoreClosed, match="closed by this process"):
                each.result(DEADLINE)
        assert time.monotonic() - start < DEADLINE / 2


class TestMadness:
    def test_an_answer_in_single_bytes(self, stand_in: StandIn) -> None:
        reading = in_background(lambda: stand_in.client.read("/x"))
        request = stand_in.request()
        data = event_packet("data/x", "token") + wire.encode(Packet(Operation.READ, request.request_id, 0, b"value"))
        for byte in data:
            stand_in.send(bytes([byte]))
        assert reading.result(DEADLINE) == b"value"
        assert stand_in.client.next_event(0) == WatchEvent("data/x", "token")

    def test_a_wrong_packet_type_closes_the_connection_for_everybody(self, stand_in: StandIn) -> None:
        # The one who waits for an event reads for both, and must not go on waiting for ever.
        waiting = in_background(lambda: stand_in.client.next_event(None))
        reading = in_background(lambda: stand_in.client.read("/x"))
        stand_in.answer(stand_in.request(), b"value", Operation.WRITE)
        for each in (reading, waiting):
            with pytest.raises(StoreClosed, match="READ was answered with packet type 11"):
                each.result(DEADLINE)

    def test_a_header_that_announces_too_much(self, stand_in: StandIn) -> None:
        reading = in_background(lambda: stand_in.client.read("/x"))
        request = stand_in.request()
        stand_in.send(struct.pack("<IIII", Operation.READ, request.request_id, 0, wire.MAX_REPLY + 1))
        with pytest.raises(StoreClosed, match=str(wire.MAX_REPLY + 1)):
            reading.result(DEADLINE)

    def test_answers_to_nobody_and_events_that_are_none(self, stand_in: StandIn) -> None:
        for payload in (b"", b"path", b"path\0"):
            stand_in.send(wire.encode(Packet(Operation.WATCH_EVENT, 0, 0, payload)))
        stand_in.send(wire.encode(Packet(Operation.READ, 0xFFFFFFFF, 0, b"nobody's")))
        stand_in.send(event_packet("data/x", "token"))
        assert stand_in.client.next_event(DEADLINE) == WatchEvent("data/x", "token")
        assert stand_in.client.next_event(0) is None

    @pytest.mark.parametrize("payload", [b"", b"\0", b"x\0", b"-1\0", b"99999999999\0", "٣\0".encode(), b"0\0"])
    def test_a_transaction_without_a_number(self, stand_in: StandIn, payload: bytes) -> None:
        starting = in_background(stand_in.client.transaction)
        stand_in.answer(stand_in.request(), payload)
        with pytest.raises(StoreError, match="EIO"):
            starting.result(DEADLINE)

    @pytest.mark.parametrize("stuck", [True, False])
    def test_a_list_in_parts_that_never_ends(self, stuck: bool) -> None:
        daemon = StandIn(timeout=0.1)

        def play() -> None:
            daemon.answer(daemon.request(), b"E2BIG\0", Operation.ERROR)
            for generation in itertools.count(1):
                # Either the list grows for ever, or it is another one each time.
                daemon.answer(daemon.request(), b"%d\0name\0" % (1 if stuck else generation))

        in_background(play)
        listing = in_background(lambda: daemon.client.directory("/x"))
        with pytest.raises(StoreTimeout):
            listing.result(DEADLINE)
        daemon.client.close()

    def test_a_list_that_changes_between_its_parts_is_read_again(self, stand_in: StandIn) -> None:
        listing = in_background(lambda: stand_in.client.directory("/x"))
        stand_in.answer(stand_in.request(), b"E2BIG\0", Operation.ERROR)
        for offset, part in ((b"0", b"1\0a\0b\0"), (b"4", b"2\0d\0\0"), (b"0", b"2\0b\0c\0"), (b"4", b"2\0\0")):
            request = stand_in.request()
            assert request.operation == Operation.DIRECTORY_PART
            assert request.payload == b"/x\0" + offset + b"\0"
            stand_in.answer(request, part)
        assert listing.result(DEADLINE) == ["b", "c"]

    def test_an_empty_part_is_an_error(self, stand_in: StandIn) -> None:
        listing = in_background(lambda: stand_in.client.directory("/x"))
        stand_in.answer(stand_in.request(), b"E2BIG\0", Operation.ERROR)
        stand_in.answer(stand_in.request(), b"1\0")
        with pytest.raises(StoreError, match="EIO"):
            listing.result(DEADLINE)


OPERATIONS: list[Callable[[Client], object]] = [
    lambda client: client.read("/x"),
    lambda client: client.write("/x", b"y"),
    lambda client: client.directory("/x"),
    lambda client: client.get_permissions("/x"),
    lambda client: client.transaction().commit(),
    lambda client: client.watch("/x", "token"),
    lambda client: client.next_event(0.01),
]
PACKETS = st.builds(
    lambda operation, request_id, payload: wire.encode(Packet(operation, request_id, 0, payload)),
    st.one_of(st.sampled_from(sorted(Operation)), st.integers(0, 0xFFFFFFFF)),
    st.integers(0, 4),
    st.one_of(st.binary(max_size=40), st.sampled_from([b"E2BIG\0", b"ENOENT\0", b"1\0", b"1\0a\0", b"1\0a\0\0"])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(PACKETS, st.binary(max_size=40)), max_size=6), st.booleans(), st.sampled_from(OPERATIONS))
@example([wire.encode(Packet(Operation.TRANSACTION_START, 1, 0, b"\xff"))], False, OPERATIONS[4])
def test_whatever_the_daemon_sends_the_client_ends_with_its_own_errors(
    stream: list[bytes], dies: bool, operation: Callable[[Client], object]
) -> None:
    daemon = StandIn(timeout=0.01)
    try:
        daemon.send(b"".join(stream))
        if dies:
            daemon.die()
        with contextlib.suppress(XenStoreError):
            operation(daemon.client)
    finally:
        daemon.close()


class TestFlood:
    def test_ever_new_paths_do_not_fill_the_memory_and_no_token_is_forgotten(self) -> None:
        daemon = StandIn(timeout=DEADLINE)

        def flood() -> None:
            for number in range(3 * MAX_EVENTS):
                daemon.send(event_packet(f"/flood/{number}", "flood"))
            daemon.send(event_packet("/quiet", "quiet"))

        flooding = in_background(flood)
        # A question goes behind the flood, so its answer means that all of it was read.
        asking = in_background(lambda: daemon.client.read("/x"))
        flooding.result(DEADLINE)
        daemon.answer(daemon.request(), b"")
        asking.result(DEADLINE)
        seen = []
        while (event := daemon.client.next_event(0.0)) is not None:
            seen.append(event)
        assert len(seen) <= MAX_EVENTS + 1
        assert {event.token for event in seen} == {"flood", "quiet"}
        daemon.close()


@pytest.mark.parametrize("number", [errno.E2BIG, errno.EINVAL])
def test_a_kernel_that_refuses_a_watch(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As /dev/xen/xenbus does it: the write fails, nothing was sent, and the connection goes on."""
    write = os.write

    def refuse(descriptor: int, data: bytes) -> int:
        if data[:4] == struct.pack("<I", Operation.WATCH):
            raise OSError(number, os.strerror(number))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(StoreError) as caught:
        stand_in.client.watch("data", "token")
    assert caught.value.code == errno.errorcode[number]
    reading = in_background(lambda: stand_in.client.read("name"))
    stand_in.answer(stand_in.request(), b"web")
    assert reading.result(DEADLINE) == b"web"


def test_a_write_that_fails_for_another_operation_ends_the_connection(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, data: bytes) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data) if len(data) == 1 else refuse(fd, data))
    with pytest.raises(StoreClosed):
        stand_in.client.write("data/x", b"y")
