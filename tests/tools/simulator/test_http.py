"""The HTTP front: statuses, limits, persistent connections."""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from collections.abc import Iterator

import pytest

from tools.simulator.process import SimulatorProcess

LIMIT = 300 * 1024
CALL = xmlrpc.client.dumps(("x",), "pool.get_all").encode()


@pytest.fixture
def connection(simulator: SimulatorProcess) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", int(simulator.url.rpartition(":")[2]), timeout=10)
    yield connection
    connection.close()


def post(connection: http.client.HTTPConnection, path: str, body: bytes) -> http.client.HTTPResponse:
    connection.request("POST", path, body, {"Content-Type": "text/xml"})
    return connection.getresponse()


def test_one_connection_for_many_calls(connection: http.client.HTTPConnection) -> None:
    connection.connect()
    local = connection.sock.getsockname()
    for path in ("/", "/RPC2", "/RPC2?x=y") * 3:
        answer = post(connection, path, CALL)
        body = answer.read()
        assert answer.status == 200
        assert answer.version == 11
        assert b"SESSION_INVALID" in body
        assert b"\n" not in body
        assert answer.headers["content-type"] == "text/xml"
        assert answer.headers["cache-control"] == "no-cache, no-store"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert connection.sock.getsockname() == local


def padded(length: int) -> bytes:
    return CALL + b" " * (length - len(CALL))


def test_body_limit(connection: http.client.HTTPConnection) -> None:
    answer = post(connection, "/", padded(LIMIT))
    assert (answer.status, b"SESSION_INVALID" in answer.read()) == (200, True)
    connection.close()
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(LIMIT + 1))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 500
    assert b"<html" in answer.read().lower()
    assert answer.headers["connection"] == "close"


def test_a_refused_client_that_goes_on_sending_sees_the_answer(connection: http.client.HTTPConnection) -> None:
    answer = post(connection, "/", padded(10 * LIMIT))
    assert answer.status == 500


@pytest.mark.parametrize("length", [None, "", "-1", "x", "9" * 30, "\xb2"])
def test_length_must_be_told(connection: http.client.HTTPConnection, length: str | None) -> None:
    connection.putrequest("POST", "/")
    if length is not None:
        connection.putheader("Content-Length", length)
    connection.endheaders()
    assert connection.getresponse().status == 500


def test_chunks_are_refused(connection: http.client.HTTPConnection) -> None:
    connection.request("POST", "/", iter([CALL]), encode_chunked=True)
    assert connection.getresponse().status == 500


@pytest.mark.parametrize("body", [b"", b"no xml", b"\xff", b"<!DOCTYPE a><methodCall/>", CALL[:-5]])
def test_malformed_body(connection: http.client.HTTPConnection, body: bytes) -> None:
    assert post(connection, "/", body).status == 500


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/console", 404),
        ("PUT", "/import_raw_vdi", 404),
        ("POST", "/jsonrpc", 404),
        ("POST", "/RPC2/", 404),
        ("DELETE", "/", 501),
        ("PATCH", "/", 501),
    ],
)
def test_paths_and_methods(connection: http.client.HTTPConnection, method: str, path: str, status: int) -> None:
    connection.request(method, path, CALL)
    assert connection.getresponse().status == status


def test_header_too_large(connection: http.client.HTTPConnection) -> None:
    connection.request("POST", "/", CALL, {"X-Long": "x" * 70_000})
    assert connection.getresponse().status == 431


def test_client_that_hangs_up_in_the_middle(
    simulator: SimulatorProcess, connection: http.client.HTTPConnection
) -> None:
    port = int(simulator.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabc")
    assert post(connection, "/", CALL).status == 200
