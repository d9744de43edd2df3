"""The bytes of disks, into XenServer and out of it: PUT /import_raw_vdi, GET /export_raw_vdi.

XenServer answers 200 before it has read a byte, and ends a body by closing the connection, so neither tells how a
transfer went: that is known from its task only. Memory in use is the same for any size. A raw disk travels with all of
its zeros, since XenServer takes and gives no holes in that format; VHD leaves them out.
Source: ocaml/xapi/{import_raw_vdi,export_raw_vdi}.ml.
"""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from agent_protocol.outcomes import Unreachable, Unsuccessful, Unsupported

from ...errors import TransferCancelled, TransferFailed
from ...images import DiskFormat, ImageReader
from ...images.formats import HEAD, check_vhd_end
from ..connection.session import XenServer
from ..connection.tasks import Task
from ..connection.transport import USER_AGENT
from .transfer_tasks import export_label, finish, give_up, import_label, raise_reason

PIECE = 1024 * 1024
"""Bytes that are read and sent at a time."""

STALL_TIMEOUT = 300.0
"""Seconds after which a transfer is given up when not a byte moved and its task did not get on."""

_LOOK_UP = 1.0
"""Seconds that a transfer waits for the network before it looks whether it is still wanted."""

_MAX_REDIRECTIONS = 3
_IMPORT, _EXPORT = "/import_raw_vdi", "/export_raw_vdi"
_NETWORK_ERRORS = (OSError, http.client.HTTPException)


def _ignore(done: int, total: int) -> None:
    del done, total


@dataclass(frozen=True)
class Watch:
    """Who follows a transfer: progress is told of bytes done and in all, cancelled is set by whoever wants an end."""

    progress: Callable[[int, int], None] = _ignore
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """TransferCancelled when it is no longer wanted."""
        if self.cancelled.is_set():
            raise TransferCancelled


class Transfers:
    """Moves disks between a pool and readers. Serves many threads.

    stall_timeout: seconds without any progress after which a transfer is given up.
    """

    def __init__(self, server: XenServer, *, stall_timeout: float = STALL_TIMEOUT) -> None:
        self._server = server
        self._stall_timeout = stall_timeout
        self._guard = threading.Lock()
        self.bytes_sent = 0
        self.bytes_received = 0

    def send(
        self, reader: ImageReader, size: int, vdi: str, disk_format: DiskFormat, watch: Watch | None = None
    ) -> None:
        """Fill a VDI (a ref) with exactly `size` bytes that the reader has.

        Returns when XenServer's task says that all of it was written. Raises what the reader raises, XenServerFailure,
        TransferFailed, TransferCancelled, Unsupported for a format that the host or the repository does not take. In
        any of these cases the VDI's content is not to be trusted, but nothing writes to it any more. LeaseLost in the
        middle leaves what was begun to whoever has the host now.
        """
        with (
            self._transfer(import_label(vdi), watch or Watch()) as transfer,
            transfer.request("PUT", _IMPORT, vdi, disk_format, size) as (sock, _),
        ):
            self._send_body(sock, reader, size, transfer)
            # Closed only after that: to a host, an end of the connection is the end of the client.
            transfer.finish()

    def _send_body(self, sock: socket.socket, reader: ImageReader, size: int, transfer: _Transfer) -> None:
        done = 0
        while done < size:
            piece = reader.read(min(PIECE, size - done))
            if not piece:
                raise TransferFailed(f"the image ended after {done} of {size} bytes")
            self._server.check_fence()
            try:
                self._send(sock, piece, transfer.watch)
            except OSError as error:
                # It hung up, and its task knows why.
                transfer.raise_reason()
                raise TransferFailed(f"the connection broke after {done} of {size} bytes") from error
            done += len(piece)
            transfer.watch.progress(done, size)
        if reader.read(1):
            raise TransferFailed(f"the image has more than its {size} bytes")

    def _send(self, sock: socket.socket, piece: bytes, watch: Watch) -> None:
        left = memoryview(piece)
        deadline = time.monotonic() + self._stall_timeout
        while left:
            watch.check()
            try:
                sent = sock.send(left)
            except socket.timeout:
                if time.monotonic() >= deadline:
                    raise TransferFailed("XenServer takes no more bytes") from None
                continue
            left = left[sent:]
            deadline = time.monotonic() + self._stall_timeout
            with self._guard:
                self.bytes_sent += sent

    @contextmanager
    def receive(
        self, vdi: str, disk_format: DiskFormat, size: int, watch: Watch | None = None
    ) -> Iterator[Iterator[bytes]]:
        """The content of a VDI (a ref) of `size` bytes, in pieces, as raw or VHD.

        The pieces end only when XenServer's task says that these were all, and they are complete as their format has
        it; otherwise asking for the next one raises as send() does. Whoever leaves early ends the transfer.
        """
        with (
            self._transfer(export_label(vdi), watch or Watch()) as transfer,
            transfer.request("GET", _EXPORT, vdi, disk_format) as (_, response),
        ):
            yield self._pieces(response, disk_format, size, transfer)

    def _pieces(
        self, response: http.client.HTTPResponse, disk_format: DiskFormat, size: int, transfer: _Transfer
    ) -> Iterator[bytes]:
        done, head, end = 0, b"", b""
        while True:
            try:
                piece = response.read1(PIECE)
            except _NETWORK_ERRORS as error:
                transfer.raise_reason()
                raise TransferFailed(f"the connection broke after {done} bytes") from error
            if not piece:
                break
            done += len(piece)
            head = head + piece[: HEAD - len(head)]
            end = (end + piece[-HEAD:])[-HEAD:]
            with self._guard:
                self.bytes_received += len(piece)
            transfer.watch.progress(done, size)
            yield piece
        transfer.finish()
        self._check_whole(disk_format, size, done, head, end)

    @staticmethod
    def _check_whole(disk_format: DiskFormat, size: int, done: int, head: bytes, end: bytes) -> None:
        if disk_format is DiskFormat.RAW and done != size:
            raise TransferFailed(f"{done} of {size} bytes came")
        if disk_format is DiskFormat.VHD:
            try:
                check_vhd_end(head, end, done)
            except Unsuccessful as error:
                raise TransferFailed(error.message) from None

    @contextmanager
    def _transfer(self, label: str, watch: Watch) -> Iterator[_Transfer]:
        with self._server.task(label) as task:
            transfer = _Transfer(self._server, task, watch, self._stall_timeout)
            try:
                yield transfer
            finally:
                transfer.end()


class _Transfer:
    """One of them: its task, and the requests that it takes until a host answers with more than a direction."""

    def __init__(self, server: XenServer, task: Task, watch: Watch, stall_timeout: float) -> None:
        self.watch = watch
        self._server = server
        self._task = task
        self._stall_timeout = stall_timeout
        self._is_touched = False
        self._is_over = False

    def finish(self) -> None:
        """Wait until XenServer says that all went well."""
        finish(self._task, self._stall_timeout, self.watch.cancelled)
        self._is_over = True

    def raise_reason(self) -> None:
        """Raise why XenServer broke it off, if it tells."""
        raise_reason(self._server, self._task, self.watch.cancelled)

    def end(self) -> None:
        """Have XenServer let go of the disk, if it does not do so by itself."""
        if not self._is_over:
            give_up(self._server, self._task, touched=self._is_touched)

    @contextmanager
    def request(
        self, method: str, path: str, vdi: str, disk_format: DiskFormat, length: int | None = None
    ) -> Iterator[tuple[socket.socket, http.client.HTTPResponse]]:
        """A request whose answer began well, from the host that XenServer sent us to. No byte of a body went yet."""
        target = f"{path}?{urlencode({'vdi': vdi, 'format': str(disk_format), 'task_id': self._task.ref})}"
        address: str | None = None
        with self._server.session() as session:
            for _ in range(_MAX_REDIRECTIONS + 1):
                with closing(self._server.connect(address)) as connection:
                    response = self._ask(connection, method, target, session.ref, length)
                    if response.status == 200:
                        self._is_touched = True
                        yield connection.sock, response
                        return
                    if response.status not in (301, 302, 307, 308):
                        self.raise_reason()
                        raise _refusal(response.status)
                    address = response.getheader("Location", "")
                    if urlsplit(address).path != path:
                        raise TransferFailed("XenServer sends us to a place that is none of its own")
        raise TransferFailed("XenServer sends us from host to host")

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, target: str, session: str, length: int | None
    ) -> http.client.HTTPResponse:
        connection.sock.settimeout(_LOOK_UP)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            connection.putheader("User-Agent", USER_AGENT)
            # As a cookie, since URLs get into logs.
            connection.putheader("Cookie", f"session_id={session}")
            connection.putheader("Connection", "close")
            if length is not None:
                connection.putheader("Content-Length", str(length))
                # What has a body changes something.
                self._server.check_fence()
            connection.endheaders()
            # http.client would give up the socket with the head of an answer that ends with the connection.
            response = http.client.HTTPResponse(connection.sock, method=method)
            response.fp.close()
            response.fp = io.BufferedReader(_Incoming(connection.sock, self.watch, self._stall_timeout))
            response.begin()
        except _NETWORK_ERRORS as error:
            self.raise_reason()
            raise TransferFailed("XenServer did not answer the request") from error
        return response


def _refusal(status: int) -> Unsuccessful:
    if status == 404:
        return Unsupported("disk_format_unsupported", "XenServer does not take or give disks in this format.")
    if status in (401, 403):
        return Unreachable("xenserver_session_refused", "XenServer did not accept the session for a transfer.")
    return TransferFailed(f"XenServer answered with HTTP status {status}")


class _Incoming(io.RawIOBase):
    """What comes from a socket, for as long as it is wanted and something comes."""

    def __init__(self, sock: socket.socket, watch: Watch, stall_timeout: float) -> None:
        super().__init__()
        self._sock = sock
        self._watch = watch
        self._stall_timeout = stall_timeout

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        deadline = time.monotonic() + self._stall_timeout
        while True:
            self._watch.check()
            try:
                return self._sock.recv_into(buffer)
            except socket.timeout:
                if time.monotonic() >= deadline:
                    raise TransferFailed("XenServer sends no more bytes") from None
