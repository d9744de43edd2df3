"""Consoles: who sees what, and that it is RFB."""

from __future__ import annotations

import socket
import struct

import pytest
import XenAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.simulator.handlers.rfb import HEIGHT, WIDTH, RfbServer
from tools.simulator.process import SimulatorProcess

from .support import Vm, until
from .transfers import Transfers

NAME = b"QEMU (test)"


class Screen:
    """A client that sees a console."""

    def __init__(self, transfers: Transfers, query: str, together: bytes = b"") -> None:
        host, _, port = transfers.address.partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.stream = self.socket.makefile("rb")
        self.socket.sendall(f"CONNECT /console?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + together)
        self.status = int(self.stream.readline().split()[1])
        while self.stream.readline() not in (b"\r\n", b""):
            pass

    def close(self) -> None:
        self.stream.close()
        self.socket.close()

    def exchange(self, data: bytes, size: int) -> bytes:
        self.socket.sendall(data)
        return self.stream.read(size)


@pytest.fixture
def running(vm: Vm) -> Vm:
    vm.start(False, False)
    return vm


@pytest.fixture
def transfers(simulator: SimulatorProcess, session: XenAPI.Session) -> Transfers:
    return Transfers(simulator, session)


def query(transfers: Transfers, **parameters: str) -> str:
    return transfers.path("", **parameters)[1:]


def test_a_screen_that_answers_to_keys(transfers: Transfers, running: Vm) -> None:
    screen = Screen(transfers, query(transfers, ref=running.ref))
    assert screen.status == 200
    assert screen.stream.read(12) == b"RFB 003.008\n"
    assert screen.exchange(b"RFB 003.008\n", 2) == b"\x01\x01"
    assert screen.exchange(b"\x01", 4) == bytes(4)
    head = screen.exchange(b"\x01", 24 + len(NAME))
    assert struct.unpack(">HH", head[:4]) == (WIDTH, HEIGHT)
    assert head[24:] == NAME
    whole = struct.pack(">BBHHHH", 3, 0, 0, 0, WIDTH, HEIGHT)
    first = screen.exchange(whole, 16 + 4 * WIDTH * HEIGHT)
    assert first[:16] == struct.pack(">BxHHHHHi", 0, 1, 0, 0, WIDTH, HEIGHT, 0)
    # What has not changed is not sent, until it changes.
    again = struct.pack(">BBHHHH", 3, 1, 10, 20, 30, 40)
    second = screen.exchange(again + struct.pack(">BBHI", 4, 1, 0, 0x61), 16 + 4 * 30 * 40)
    assert second[:12] == struct.pack(">BxHHHHH", 0, 1, 10, 20, 30, 40)
    row = 16 + 4 * (20 * WIDTH + 10)
    assert second[16 : 16 + 4 * 30] != first[row : row + 4 * 30]
    running.hard_shutdown()
    assert screen.stream.read(1) == b""
    screen.close()


@pytest.mark.parametrize("name", ["vm uuid", "console uuid", "console ref"])
def test_by_any_name(transfers: Transfers, running: Vm, name: str) -> None:
    (console,) = running.get_consoles()
    uuid = transfers.api.console.get_uuid(console)
    assert transfers.api.console.get_location(console).endswith(f"/console?uuid={uuid}")
    names = {"vm uuid": {"uuid": running.uuid}, "console uuid": {"uuid": uuid}, "console ref": {"ref": console}}
    screen = Screen(transfers, query(transfers, **names[name]), b"RFB 003.003\n")
    assert screen.stream.read(16) == b"RFB 003.008\n\0\0\0\1"
    screen.close()


def test_refused(transfers: Transfers, vm: Vm) -> None:
    for status, text in (
        (404, query(transfers, ref=vm.ref)),
        (404, query(transfers, uuid="x")),
        (401, f"ref={vm.ref}"),
    ):
        screen = Screen(transfers, text)
        assert screen.status == status
        screen.close()


def test_one_client_only(transfers: Transfers, running: Vm) -> None:
    (pool,) = transfers.api.pool.get_all()
    first = Screen(transfers, query(transfers, ref=running.ref))
    assert first.stream.read(3) == b"RFB"
    transfers.api.pool.set_limit_console_sessions(pool, True)
    second = Screen(transfers, query(transfers, ref=running.ref))
    assert second.status == 503
    second.close()
    first.close()

    def is_free() -> bool:
        third = Screen(transfers, query(transfers, ref=running.ref))
        third.close()
        return third.status == 200

    assert until(is_free)
    transfers.api.pool.set_limit_console_sessions(pool, False)


HANDSHAKE = b"RFB 003.008\n\x01\x01"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 50))
def test_noise_is_answered_or_hung_up_on(noise: bytes, piece: int) -> None:
    whole, pieces = RfbServer("n"), RfbServer("n")
    data = HANDSHAKE + noise
    expected = whole.receive(data)
    answers: list[bytes] = []
    for position in range(0, len(data), piece):
        answer = pieces.receive(data[position : position + piece])
        if answer is None:
            assert expected is None
            return
        answers.append(answer)
    assert expected == b"".join(answers)


@pytest.mark.parametrize(
    ("bits", "maxima", "shifts", "pixel"),
    [
        (8, (7, 7, 3), (0, 3, 6), b"\x08"),
        (16, (31, 63, 31), (11, 5, 0), b"\xe0\x01"),
        (32, (255,) * 3, (0, 8, 16), b"\0\x40\0\0"),
    ],
)
def test_pixel_formats(bits: int, maxima: tuple[int, ...], shifts: tuple[int, ...], pixel: bytes) -> None:
    server = RfbServer("n")
    server.receive(HANDSHAKE)
    wanted = struct.pack(">B3xBBBBHHHBBB3x", 0, bits, bits, 0, 1, *maxima, *shifts)
    answer = server.receive(wanted + struct.pack(">BBHHHH", 3, 0, 0, 0, 2, 1))
    assert answer is not None
    assert answer[16:] == 2 * pixel


def test_older_versions() -> None:
    assert RfbServer("n").receive(b"RFB 003.003\n") == b"\0\0\0\1"
    server = RfbServer("n")
    assert server.receive(b"RFB 003.007\n") == b"\1\1"
    answer = server.receive(b"\x01\x00")
    assert answer is not None
    assert answer[:4] == struct.pack(">HH", WIDTH, HEIGHT)
    assert RfbServer("n").receive(b"RFB 004.000\n") is None
