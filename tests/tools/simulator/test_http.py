"""The HTTP front: statuses, limits, persistent connections."""

from __future__ import annotations

import http.client
import re
import select
import socket
import threading
import xmlrpc.client
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, Callable

import pytest

from tools.simulator.http import Handler, HttpServer, Limits, Protocol
from tools.simulator.process import SimulatorProcess
from tools.simulator.rpc import DecodeError

from .support import until

LIMIT = 300 * 1024
HEADERS = [
    "content-length",
    "connection",
    "cache-control",
    "content-type",
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Headers",
]
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
        assert [name for name, _ in answer.getheaders()] == HEADERS
        assert answer.headers["connection"] == "keep-alive"
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


@pytest.mark.parametrize("length", [None, "", "-1", "x", "9" * 30, "\xb2", "1 0", "10 x"])
def test_length_must_be_told(connection: http.client.HTTPConnection, length: str | None) -> None:
    connection.putrequest("POST", "/")
    if length is not None:
        connection.putheader("Content-Length", length)
    connection.endheaders()
    assert connection.getresponse().status == 500


def test_chunks_are_refused(connection: http.client.HTTPConnection) -> None:
    connection.request("POST", "/", iter([CALL]), encode_chunked=True)
    assert connection.getresponse().status == 500


def test_the_last_length_counts(connection: http.client.HTTPConnection) -> None:
    connection.putrequest("POST", "/")
    for length in ("1", hex(len(CALL))):
        connection.putheader("Content-Length", length)
    connection.endheaders(CALL)
    assert connection.getresponse().status == 200


@pytest.mark.parametrize("body", [b"", b"no xml", b"\xff", b"<!DOCTYPE a><methodCall/>", CALL[:-5]])
def test_malformed_body(connection: http.client.HTTPConnection, body: bytes) -> None:
    assert post(connection, "/", body).status == 500


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/no/such/file", 404),
        ("PUT", "/no_such_handler", 403),
        ("CONNECT", "/no_such_handler", 403),
        ("POST", "/RPC2/x", 200),
        ("POST", "/json", 200),
        ("POST", "/anything?x=/jsonrpc", 200),
        ("POST", "/%6asonrpc", 500),
        ("POST", "http://simulated-1/RPC2", 200),
        ("HEAD", "/", 501),
        ("DELETE", "/", 501),
        ("PATCH", "/", 501),
        ("post", "/", 501),
    ],
)
def test_paths_and_methods(connection: http.client.HTTPConnection, method: str, path: str, status: int) -> None:
    connection.request(method, path, CALL)
    assert connection.getresponse().status == status


def test_client_that_hangs_up_in_the_middle(
    simulator: SimulatorProcess, connection: http.client.HTTPConnection
) -> None:
    port = int(simulator.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabc")
    assert post(connection, "/", CALL).status == 200


def page(status: int) -> bytes:
    return b"<html><body><h1>HTTP %d " % status


def test_what_a_page_looks_like(connection: http.client.HTTPConnection) -> None:
    connection.request("POST", "/", b"no xml")
    answer = connection.getresponse()
    assert (answer.version, answer.status, answer.reason) == (11, 500, "Internal Error")
    names = ["content-length", "content-type", "connection", "cache-control"]
    assert [name for name, _ in answer.getheaders()] == names
    assert answer.headers["connection"] == "close"
    assert answer.read().startswith(page(500))


def test_options(connection: http.client.HTTPConnection) -> None:
    for path in ("/", "/jsonrpc", "/anything"):
        connection.request("OPTIONS", path, headers={"Access-Control-Request-Headers": "x-a"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-headers"] == "x-a, X-Requested-With"
        assert answer.headers["access-control-allow-methods"] == "PUT"


# A server of a test's own, in this process: its limits can be reached in no time


def echo(body: bytes) -> bytes:
    if body == b"unreadable":
        raise DecodeError
    if body == b"broken":
        raise KeyError("sec" + "ret")
    return body


PROTOCOLS = {"/": Protocol("text/plain", echo), "/reverse": Protocol("text/plain", lambda body: body[::-1])}
Serve = Callable[..., HttpServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[HttpServer] = []

    def start(cls: type[HttpServer] = HttpServer, handlers: Any = None, protocols: Any = None, **limits: Any) -> Any:
        servers.append(cls(0, protocols or PROTOCOLS, handlers, limits=Limits(**limits)))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def connect(server: HttpServer) -> socket.socket:
    return socket.create_connection(server.server_address[:2], 10)


def exchange(server: HttpServer, request: bytes) -> bytes:
    """All that the server says to all that a client says."""
    with connect(server) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def post_line(body: bytes, *headers: str, version: str = "1.1", path: str = "/") -> bytes:
    lines = [f"POST {path} HTTP/{version}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def statuses(answer: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.[01] \d+", answer)


def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    answer = exchange(serve(), post_line(b"one") + post_line(b"two") + post_line(b"owt", path="/reverse"))
    assert statuses(answer) == [b"HTTP/1.1 200"] * 3
    assert [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK\r\n")[1:]] == [
        b"one",
        b"two",
        b"two",
    ]


@pytest.mark.parametrize(
    ("version", "headers", "expected"),
    [
        ("1.1", [], [b"HTTP/1.1 200"] * 2),
        ("1.1", ["Connection: close"], [b"HTTP/1.1 200"]),
        ("1.1", ["CONNECTION:  Close "], [b"HTTP/1.1 200"]),
        ("1.0", [], [b"HTTP/1.0 200"]),
        ("1.0", ["Connection: keep-alive"], [b"HTTP/1.0 200"] * 2),
        ("2.0", [], [b"HTTP/1.1 200"] * 2),
    ],
)
def test_persistence(serve: Serve, version: str, headers: list[str], expected: list[bytes]) -> None:
    answer = exchange(serve(), 2 * post_line(b"x", *headers, version=version))
    assert statuses(answer) == expected
    assert answer.count(b"connection: keep-alive") == (len(expected) if len(expected) > 1 else 0)


def test_nobody_is_told_to_continue(serve: Serve) -> None:
    assert statuses(exchange(serve(), post_line(b"x", "Expect: 100-continue"))) == [b"HTTP/1.1 200"]


@pytest.mark.parametrize(
    "head",
    [
        b"x\r\n\r\n",
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / x\r\n\r\n",
        b"GET / HTTP/1.1 x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
    ],
)
def test_heads_that_cannot_be_read(serve: Serve, head: bytes) -> None:
    assert statuses(exchange(serve(), head)) == [b"HTTP/1.1 500"]


def test_lines_that_are_no_headers_are_ignored(serve: Serve) -> None:
    answer = exchange(serve(), post_line(b"x", "no colon", ": no name", "\xff: \x00", " folded: no"))
    assert statuses(answer) == [b"HTTP/1.1 200"]


def test_a_client_that_leaves_gets_nothing(serve: Serve) -> None:
    server = serve()
    for request in (b"", b"POST / HT", post_line(b"x")[:-1]):
        assert exchange(server, request) == b""
    assert statuses(exchange(server, post_line(b"x") + b"POST")) == [b"HTTP/1.1 200"]


def test_head_size(serve: Serve) -> None:
    server = serve()
    empty = len(post_line(b"", "X: "))
    fits = post_line(b"", "X: " + "x" * (1024 - empty))
    assert len(fits) == 1024
    assert statuses(exchange(server, fits + fits)) == [b"HTTP/1.1 200"] * 2
    answer = exchange(server, fits + post_line(b"", "X: " + "x" * (1025 - empty)))
    assert statuses(answer) == [b"HTTP/1.1 200", b"HTTP/1.1 431"]
    assert statuses(exchange(server, b"x" * 100_000)) == [b"HTTP/1.1 431"]


def dribble(client: socket.socket) -> bytes:
    """Send a byte now and then until the server has had enough."""
    while not select.select([client], [], [], 0.02)[0]:
        client.sendall(b"x")
    return read_all(client)


def test_slow_heads(serve: Serve) -> None:
    server = serve(head_wait=0.1, idle_time=60.0)
    with connect(server) as client:
        assert statuses(read_all(client)) == [b"HTTP/1.1 408"]
    with connect(server) as client:
        client.sendall(b"POST / ")
        assert statuses(read_all(client)) == [b"HTTP/1.1 408"]
    with connect(serve(head_wait=60.0, head_time=0.3)) as client:
        assert statuses(dribble(client)) == [b"HTTP/1.1 408"]


def test_slow_heads_of_later_requests(serve: Serve) -> None:
    with connect(serve(head_wait=60.0, head_time=0.3)) as client:
        client.sendall(post_line(b"x"))
        assert b"200 OK" in client.recv(65536)
        client.sendall(b"POST")
        assert statuses(dribble(client)) == [b"HTTP/1.1 408"]


def test_slow_bodies(serve: Serve) -> None:
    server = serve(body_time=0.3)
    for sent in (b"", b"x"):
        with connect(server) as client:
            client.sendall(post_line(b"y" * 1000)[:-1000] + sent)
            assert statuses(dribble(client) if sent else read_all(client)) == [b"HTTP/1.1 408"]


def test_silence_between_requests_ends_the_connection(serve: Serve) -> None:
    with connect(serve(idle_time=0.2)) as client:
        client.sendall(post_line(b"x"))
        answer = read_all(client)
    assert statuses(answer) == [b"HTTP/1.1 200"]


def test_a_client_that_takes_no_answer_holds_no_thread(serve: Serve) -> None:
    server = serve(protocols={"/": Protocol("text/plain", lambda body: body * 50_000_000)}, idle_time=0.2)
    with connect(server) as client:
        client.sendall(post_line(b"x"))
        assert client.recv(1)
        until(lambda: not server._connections)


class Counting(HttpServer):
    """Counts how often it had no room for a connection that waits."""

    refusals = 0

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except BlockingIOError:
            self.refusals += 1
            raise


def test_connections_beyond_the_limit_wait(serve: Serve) -> None:
    entered, gate = threading.Semaphore(0), threading.Event()

    def hold(body: bytes) -> bytes:
        entered.release()
        assert gate.wait(10)
        return body

    server: Any = serve(Counting, protocols={"/": Protocol("text/plain", hold)}, connections=2)
    clients = [connect(server) for _ in range(6)]
    for client in clients:
        client.sendall(post_line(b"x", "Connection: close"))
    assert entered.acquire(timeout=10)
    assert entered.acquire(timeout=10)
    until(lambda: server.refusals >= 3)
    assert not entered.acquire(blocking=False)
    gate.set()
    for client in clients:
        assert statuses(read_all(client)) == [b"HTTP/1.1 200"]
        client.close()


# Handlers


def say(words: str) -> Handler:
    def handle(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", "0")))
        answer = f"{words} {request.command} {request.path}".encode() + body
        request.send_response(200)
        request.send_header("content-length", str(len(answer)))
        request.end_headers()
        request.wfile.write(answer)

    return handle


def take_over(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.flush()
    request.connection.sendall(b"[" + request.rfile.read(3) + b"]")
    request.close_connection = True


def fail(request: BaseHTTPRequestHandler) -> None:
    raise KeyError("sec" + "ret")


HANDLERS = {
    ("GET", "/import"): say("import"),
    ("PUT", "/import"): say("import"),
    ("PUT", "/import_raw_vdi"): say("raw"),
    ("POST", "/cli"): say("cli"),
    ("CONNECT", "/console"): take_over,
    ("GET", "/fail"): fail,
    ("GET", "/denied"): lambda request: request.send_error(401, explain="<p>Who?</p>"),
}


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        ("GET /import?a=b", b"import GET /import?a=b"),
        ("PUT /import", b"import PUT /import"),
        ("PUT /importx/y", b"import PUT /importx/y"),
        ("PUT /import_raw_vdi?vdi=x", b"raw PUT /import_raw_vdi?vdi=x"),
        ("POST /cli", b"cli POST /cli"),
    ],
)
def test_handlers_get_what_has_the_longest_path(serve: Serve, request_line: str, expected: bytes) -> None:
    request = f"{request_line} HTTP/1.1\r\nContent-Length: 2\r\n\r\n!!".encode()
    answer = exchange(serve(handlers=HANDLERS), 2 * request)
    assert statuses(answer) == [b"HTTP/1.1 200"] * 2
    assert answer.count(expected + b"!!") == 2
    assert b"Server:" not in answer
    assert b"Date:" not in answer


def test_handlers_may_take_the_connection_over(serve: Serve) -> None:
    answer = exchange(serve(handlers=HANDLERS), b"CONNECT /console?ref=x HTTP/1.0\r\n\r\nRFB")
    assert answer == b"HTTP/1.0 200 OK\r\n\r\n[RFB]"


def test_handlers_may_answer_with_a_page(serve: Serve) -> None:
    answer = exchange(serve(handlers=HANDLERS), b"GET /denied HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 Unauthorised\r\n")
    assert answer.endswith(page(401) + b"unauthorised</h1><p>Who?</p></body></html>")


def test_errors_of_ours_are_pages_and_logged_without_values(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(handlers=HANDLERS)
    assert statuses(exchange(server, b"GET /fail HTTP/1.1\r\n\r\n")) == [b"HTTP/1.1 500"]
    assert statuses(exchange(server, post_line(b"broken"))) == [b"HTTP/1.1 500"]
    assert statuses(exchange(server, post_line(b"unreadable"))) == [b"HTTP/1.1 500"]
    assert caplog.text.count("failed with KeyError\n") == 2
    assert "GET '/fail' failed" in caplog.text
    assert "secret" not in caplog.text


def test_a_port_that_a_forked_process_still_holds_is_waited_for() -> None:
    server = HttpServer(0, {})
    server.start()
    held = server.socket.dup()
    closed = threading.Event()

    def let_go() -> None:
        server_has_closed = server.socket.fileno
        until(lambda: server_has_closed() == -1)
        held.close()
        closed.set()

    holder = threading.Thread(target=let_go)
    holder.start()
    server.close_port()
    holder.join()
    assert closed.is_set()
    server.open_port()
    socket.create_connection(server.server_address, timeout=10).close()
    server.stop()
    with HttpServer(0, {}) as other, pytest.raises(OSError, match="Address already in use"):
        HttpServer(other.server_address[1], {})
