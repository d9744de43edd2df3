"""The ring loses, doubles and reorders nothing, wherever its indices stand."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tools.labs.xenstored.ring import Ring

REQ, RSP = 0, 1024
REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD = range(2048, 2064, 4)

CHUNKS = st.lists(st.integers(0, 1500))
STARTS = st.sampled_from([0, 1, 1000, 1024, 0xFFFFFFFF - 500, 0xFFFFFFFF])


class Daemon:
    """The other side, byte by byte, as io/xs_wire.h defines it."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("r+b", buffering=0)

    def close(self) -> None:
        self._file.close()

    def get(self, offset: int) -> int:
        self._file.seek(offset)
        return struct.unpack("=I", self._file.read(4))[0]

    def set(self, offset: int, value: int) -> None:
        self._file.seek(offset)
        self._file.write(struct.pack("=I", value % (1 << 32)))

    def take(self, limit: int) -> bytes:
        consumed = self.get(REQ_CONS)
        data = b""
        while len(data) < limit and (consumed + len(data)) % (1 << 32) != self.get(REQ_PROD):
            self._file.seek(REQ + (consumed + len(data)) % 1024)
            data += self._file.read(1)
        self.set(REQ_CONS, consumed + len(data))
        return data

    def put(self, data: bytes) -> int:
        produced, count = self.get(RSP_PROD), 0
        while count < len(data) and (produced + count - self.get(RSP_CONS)) % (1 << 32) < 1024:
            self._file.seek(RSP + (produced + count) % 1024)
            self._file.write(data[count : count + 1])
            count += 1
        self.set(RSP_PROD, produced + count)
        return count


def a_ring(directory: str, start: int) -> tuple[Ring, Daemon]:
    file = Path(directory) / "ring"
    ring = Ring(file)
    daemon = Daemon(file)
    for offset in (REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD):
        daemon.set(offset, start)
    return ring, daemon


@given(STARTS, CHUNKS)
def test_requests_arrive_as_they_were_put(start: int, chunks: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        ring, daemon = a_ring(directory, start)
        sent = received = b""
        for number, size in enumerate(chunks):
            data = bytes((number + place) % 251 for place in range(size))
            count = ring.put(data)
            assert count == min(size, 1024 - (len(sent) - len(received)))
            sent += data[:count]
            received += daemon.take(size // 2)
        received += daemon.take(1024)
        assert received == sent
        ring.close()
        daemon.close()


@given(STARTS, CHUNKS)
def test_responses_are_taken_as_they_were_put(start: int, chunks: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        ring, daemon = a_ring(directory, start)
        sent = received = b""
        for number, size in enumerate(chunks):
            data = bytes((number + place) % 251 for place in range(size))
            sent += data[: daemon.put(data)]
            if number % 2:
                received += ring.take()
        received += ring.take()
        assert received == sent
        assert ring.take() == b""
        ring.close()
        daemon.close()
