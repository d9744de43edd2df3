from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oslo_config import cfg

from agent_protocol.outcomes import Refused
from compute_driver.observing import endpoint, http_request, options
from compute_driver.observing.endpoint import MAX_CONNECTIONS, Endpoint, from_configuration
from compute_driver.observing.metrics import Metrics
from compute_driver.observing.readiness import Check, Readiness

CHECKOUT = Path(__file__).resolve().parents[3]


@contextmanager
def serving(
    checks: dict[str, Check] | None = None, *, address: str = "127.0.0.1", seconds: float = 30.0, **other: Any
) -> Iterator[tuple[str, int]]:
    """An endpoint and where it is. seconds: so many that no test waits for them, unless it says otherwise."""
    exposition = other.get("exposition") or Metrics(actions=[], decisions=[]).exposition
    readiness = Readiness(checks or {}, limit=other.get("limit", 20), fresh=0)
    server = Endpoint(address, 0, exposition, readiness, seconds=seconds)
    server.start()
    try:
        yield server.address
    finally:
        server.stop()


def ask(where: tuple[str, int], path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*where, timeout=20)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def send(where: tuple[str, int], request: bytes) -> bytes:
    """All that comes back for these bytes until the other side hangs up."""
    with socket.create_connection(where, timeout=20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def status_of(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n", answer)
    assert found is not None, answer
    return int(found[1])


@pytest.fixture(scope="module")
def where() -> Iterator[tuple[str, int]]:
    with serving({"lease": lambda: "", "bus": lambda: "not connected"}) as address:
        yield address


class TestAnswers:
    def test_it_lives(self, where: tuple[str, int]) -> None:
        status, headers, body = ask(where, "/healthz")
        assert (status, body, headers["content-type"]) == (200, b"ok\n", "text/plain")

    def test_the_metrics_are_prometheus(self, where: tuple[str, int]) -> None:
        status, headers, body = ask(where, "/metrics?x=1")
        assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b"\nxenward_hypervisor_up 0.0\n" in body

    def test_it_is_not_ready_while_one_check_fails(self, where: tuple[str, int]) -> None:
        status, headers, body = ask(where, "/readyz")
        assert (status, headers["content-type"]) == (503, "application/json")
        assert json.loads(body) == {
            "ready": False,
            "checks": {"lease": {"ok": True, "why": ""}, "bus": {"ok": False, "why": "not connected"}},
        }

    def test_it_is_ready_when_all_hold(self) -> None:
        with serving({"lease": lambda: "", "bus": lambda: ""}) as where:
            status, _, body = ask(where, "/readyz")
        assert (status, json.loads(body)["ready"]) == (200, True)

    def test_head_has_no_body(self, where: tuple[str, int]) -> None:
        for path, wanted in (("/healthz", 200), ("/readyz", 503), ("/metrics", 200), ("/", 404)):
            status, headers, body = ask(where, path, "HEAD")
            assert (status, body) == (wanted, b"")
            assert int(headers["content-length"]) == len(ask(where, path)[2]) or path == "/metrics"

    @pytest.mark.parametrize("path", ["/", "/healthz/", "/healthzz", "/../metrics", "//healthz", "/%2e/metrics"])
    def test_nothing_else_is_there(self, where: tuple[str, int], path: str) -> None:
        status, _, body = ask(where, path)
        assert (status, body) == (404, b"")

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
    def test_nothing_can_be_changed(self, where: tuple[str, int], method: str) -> None:
        status, headers, body = ask(where, "/healthz", method)
        assert (status, headers["allow"], body) == (405, "GET, HEAD", b"")

    def test_no_version_is_told(self, where: tuple[str, int]) -> None:
        _, headers, _ = ask(where, "/healthz")
        assert set(headers) == {
            "date",
            "content-type",
            "content-length",
            "cache-control",
            "x-content-type-options",
            "connection",
        }

    def test_an_error_shows_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        def fail() -> bytes:
            raise RuntimeError("hunter22")

        with serving(exposition=fail) as where:
            status, _, body = ask(where, "/metrics")
            assert (status, body) == (500, b"")
            assert ask(where, "/healthz")[0] == 200
        assert "/metrics cannot be told: RuntimeError" in caplog.text

    def test_a_reason_is_redacted(self) -> None:
        with serving({"bus": lambda: "amqp://u:hunter22@broker refused\r\nus"}) as where:
            body = ask(where, "/readyz")[2]
        assert json.loads(body)["checks"]["bus"]["why"] == r"amqp://u:***@broker refused\r\nus"


class TestBadRequests:
    @pytest.mark.parametrize(
        ("request_bytes", "status"),
        [
            (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
            (b"GET /healthz HTTP/1.1\n\n", 200),
            (b"GET /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 200),
            (b"GET /healthz HTTP/1.1\r\n\r\n" + b"x" * 30000, 200),
            (b"GET /healthz\r\n", 400),
            (b"GET /healthz HTTP/2.0\r\n", 400),
            (b"GET healthz HTTP/1.1\r\n", 400),
            (b"GET http://x/healthz HTTP/1.1\r\n", 400),
            (b"GET  /healthz HTTP/1.1\r\n", 400),
            (b"get /healthz HTTP/1.1\r\n", 400),
            (b"GET /\xff HTTP/1.1\r\n", 400),
            (b"GET /\x00 HTTP/1.1\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\n", 400),
            (b"\r\n\r\n", 400),
            (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n", 414),
            (b"GET /" + b"x" * http_request.MAX_LINE, 414),
            (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000, 431),
            (b"GET / HTTP/1.1\r\nx: " + b"y" * 20000, 431),
        ],
    )
    def test_each_gets_its_status(self, where: tuple[str, int], request_bytes: bytes, status: int) -> None:
        assert status_of(send(where, request_bytes)) == status

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
    @given(junk=st.binary(max_size=200))
    def test_whatever_comes_is_answered(self, where: tuple[str, int], junk: bytes) -> None:
        answer = send(where, junk + b"\r\n\r\n")
        assert status_of(answer) in (200, 400, 404, 405, 414)
        assert b"Traceback" not in answer

    def test_who_hangs_up_gets_nothing(self, where: tuple[str, int]) -> None:
        with socket.create_connection(where, timeout=20) as connection:
            connection.sendall(b"GET /hea")
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b""
        assert ask(where, "/healthz")[0] == 200


class TestSlowClients:
    def test_a_request_has_a_limit_of_time_for_all_of_it(self) -> None:
        with serving(seconds=0.3) as where, socket.create_connection(where, timeout=20) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\n")
            # It sends on, a byte now and then, so that no single wait is long.
            stop = threading.Event()

            def dribble() -> None:
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

            thread = threading.Thread(target=dribble)
            thread.start()
            try:
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
            finally:
                stop.set()
                thread.join(10)
        assert status_of(answer) == 408

    def test_who_says_nothing_is_told_to_go(self) -> None:
        with serving(seconds=0.3) as where, socket.create_connection(where, timeout=8) as connection:
            assert status_of(b"".join(iter(lambda: connection.recv(4096), b""))) == 408

    @pytest.mark.parametrize("count", [MAX_CONNECTIONS, 5 * MAX_CONNECTIONS])
    def test_they_do_not_keep_others_out(self, count: int) -> None:
        with serving() as where, ExitStack() as slow:
            for _ in range(count):
                connection = slow.enter_context(socket.create_connection(where, timeout=20))
                connection.sendall(b"GET /healthz HTTP/1.1\r\nx: ")
            # Their own limit of time is longer than the patience of those who ask: they have to make room.
            assert [ask(where, "/healthz")[0] for _ in range(3)] == [200] * 3

    def test_those_who_do_not_take_their_answer_do_not_either(self) -> None:
        big = b"x" * 20_000_000
        with serving(exposition=lambda: big) as where, ExitStack() as slow:
            for _ in range(2 * MAX_CONNECTIONS):
                connection = slow.enter_context(socket.create_connection(where, timeout=20))
                connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert ask(where, "/healthz")[0] == 200

    def test_the_number_of_threads_is_bounded(self) -> None:
        before = threading.active_count()
        with serving() as where, ExitStack() as slow:
            for _ in range(5 * MAX_CONNECTIONS):
                slow.enter_context(socket.create_connection(where, timeout=20))
                assert threading.active_count() <= before + MAX_CONNECTIONS + 1
            assert ask(where, "/healthz")[0] == 200

    def test_a_check_that_hangs_does_not_hold_the_sign_of_life(self) -> None:
        go = threading.Event()

        def hangs() -> str:
            go.wait(60)
            return ""

        with serving({"database": hangs}, limit=0.5) as where:
            answers: list[int] = []
            thread = threading.Thread(target=lambda: answers.append(ask(where, "/readyz")[0]))
            thread.start()
            assert ask(where, "/healthz")[0] == 200
            thread.join(30)
            go.set()
        assert answers == [503]


class TestWhere:
    def test_ipv6(self) -> None:
        with serving(address="::1") as where:
            assert where[0] == "::1"
            assert ask(where, "/healthz")[0] == 200

    @pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
    def test_an_address_that_cannot_be_had_is_said(self, address: str) -> None:
        with serving(address=address) as (host, port):
            second = Endpoint(host, port, lambda: b"", Readiness({}))
            with pytest.raises(Refused, match=rf"cannot listen at .*:{port}: Address already in use") as caught:
                second.start()
            second.stop()
        assert caught.value.code == "endpoint_address"

    def test_it_can_be_stopped_and_its_connections_with_it(self) -> None:
        server = Endpoint("127.0.0.1", 0, lambda: b"", Readiness({}))
        server.stop()
        server = Endpoint("127.0.0.1", 0, lambda: b"", Readiness({}), seconds=20)
        server.start()
        where = server.address
        with socket.create_connection(where, timeout=20) as connection:
            connection.sendall(b"GET /h")
            assert ask(where, "/healthz")[0] == 200
            server.stop()
            assert connection.recv(100) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where, timeout=20)
        server.stop()

    def test_the_configuration_says_where(self) -> None:
        conf = cfg.ConfigOpts()
        for group, members in options.OPTIONS.items():
            conf.register_opts(members, group=group)
        conf([])
        assert (conf.endpoint.address, conf.endpoint.port) == ("127.0.0.1", 9787)
        conf.set_override("port", 0, group="endpoint")
        conf.set_override("address", "::1", group="endpoint")
        server = from_configuration(conf, lambda: b"", Readiness({}))
        assert server is not None
        server.start()
        assert server.address[0] == "::1"
        server.stop()
        conf.set_override("port", -1, group="endpoint")
        assert from_configuration(conf, lambda: b"", Readiness({})) is None

    @pytest.mark.parametrize("text", ["address = compute-1", "port = 65536", "port = -2", "port = x"])
    def test_other_values_are_refused(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "x.conf"
        path.write_text(f"[endpoint]\n{text}\n")
        conf = cfg.ConfigOpts()
        conf.register_opts(options.OPTIONS["endpoint"], group="endpoint")
        with pytest.raises((cfg.Error, ValueError)):
            conf([], default_config_files=[str(path)])
            assert conf.endpoint.address and conf.endpoint.port


def test_it_works_in_green_threads() -> None:
    program = f"""
from compute_driver import concurrency
concurrency.set_up("eventlet")
import http.client, json, socket, threading
import eventlet
from compute_driver.observing.endpoint import Endpoint
from compute_driver.observing.metrics import Metrics
from compute_driver.observing.readiness import Readiness
go = threading.Event()
def hangs():
    go.wait(60)
    return ""
readiness = Readiness({{"slow": hangs}}, limit=0.2)
server = Endpoint("127.0.0.1", 0, Metrics(actions=[], decisions=[]).exposition, readiness, seconds=20)
server.start()
def ask(path):
    connection = http.client.HTTPConnection(*server.address, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()
slow = [socket.create_connection(server.address) for _ in range({3 * MAX_CONNECTIONS})]
pool = eventlet.GreenPool(3)
assert [status for status, _ in pool.imap(ask, ["/healthz", "/metrics", "/readyz"])] == [200, 200, 503]
go.set()
server.stop()
try:
    socket.create_connection(server.address if server._listener else ("127.0.0.1", 1), timeout=5)
except OSError:
    print("stopped")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout, done.returncode) == ("stopped\n", 0), done.stderr


def test_a_descriptor_that_cannot_be_had_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(endpoint.time, "sleep", pauses.append)
    server = Endpoint("127.0.0.1", 0, lambda: b"", Readiness({}))
    true_accept, failures = socket.socket.accept, [OSError(24, "Too many open files")]

    def accept(listener: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return true_accept(listener)

    monkeypatch.setattr(socket.socket, "accept", accept)
    server.start()
    try:
        assert ask(server.address, "/healthz")[0] == 200
    finally:
        server.stop()
    assert pauses == [1.0]
    assert "no connection can be taken: Too many open files" in caplog.text
