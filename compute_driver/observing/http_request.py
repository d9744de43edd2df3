"""The first line of an HTTP request, read from somebody who may be slow, wrong or hostile, and the answer to it.

Nothing else of a request matters to the endpoint: each connection carries one, and its headers are read past.
"""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

MAX_LINE = 1024
"""Bytes of the first line. The paths that are served have ten."""

MAX_HEAD = 8192
"""Bytes of the first line and all headers, as other servers have it."""

_PIECE = 4096
_END = re.compile(rb"\r?\n\r?\n")
_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.[01]\r?\Z")


@dataclass(frozen=True)
class Request:
    """A request of HTTP/1.0 or 1.1. path: without what follows a `?`."""

    method: str
    path: str


class BadRequest(Exception):
    """Raise when no request came that can be answered with anything but this status."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status)
        self.status = status


def read_request(connection: socket.socket, deadline: float) -> Request | None:
    """The request that comes, None when the other side hangs up before it is complete.

    deadline: of the monotonic clock, for all of it. BadRequest when it is too slow, too large or malformed.
    """
    untrusted_head = b""
    while not _END.search(untrusted_head):
        if len(untrusted_head) > MAX_HEAD:
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        line, found, _ = untrusted_head.partition(b"\n")
        if len(line) > MAX_LINE:
            raise BadRequest(HTTPStatus.REQUEST_URI_TOO_LONG)
        if found:
            # What is wrong in the first line is not waited for the rest of.
            _parse(line)
        left = deadline - time.monotonic()
        if left <= 0:
            raise BadRequest(HTTPStatus.REQUEST_TIMEOUT)
        connection.settimeout(left)
        try:
            piece = connection.recv(_PIECE)
        except socket.timeout:
            raise BadRequest(HTTPStatus.REQUEST_TIMEOUT) from None
        if not piece:
            return None
        untrusted_head += piece
    return _parse(untrusted_head.partition(b"\n")[0])


def _parse(untrusted_line: bytes) -> Request:
    if len(untrusted_line) > MAX_LINE:
        raise BadRequest(HTTPStatus.REQUEST_URI_TOO_LONG)
    found = _LINE.match(untrusted_line)
    if found is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    return Request(found[1].decode("ascii"), found[2].partition(b"?")[0].decode("ascii"))


def response(status: HTTPStatus, content_type: str, body: bytes, *, with_body: bool = True) -> bytes:
    """The whole answer, after which the connection ends. with_body: False for HEAD."""
    headers = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append("Allow: GET, HEAD")
    return "\r\n".join([*headers, "", ""]).encode("ascii") + (body if with_body else b"")
