"""Whatever clients send: it is answered as it should be, the simulator lives on, and nothing of it is left behind."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import xmlrpc.client
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import XenAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tools.simulator import jsonrpc
from tools.simulator import xmlrpc as codec
from tools.simulator.process import SimulatorProcess
from tools.simulator.rpc import DecodeError

from .support import until

LIMIT = 300 * 1024
STATUSES = {200, 403, 404, 408, 431, 500, 501}

MEMORY_BOUND = 24 * 1024 * 1024
"""Bytes by which resident memory may have grown since the first tenth of the inputs.

The largest document that is read, 300 KiB of nothing but tags, becomes 75,000 elements of some 300 bytes each: one of
them makes a heap that large once, and the allocator keeps it. A thread, connection or document that is forgotten with
each input (10 KiB and more) grows past it in the longer test: 18,000 of them are 180 MiB.
"""

# What is sent


@dataclass(frozen=True)
class Input:
    """One connection of a client.

    pieces: what it sends, in so many parts. kind: `xml` or `json` for one well-framed call whose body is `body`.
    end: whether it closes its side in order, resets the connection, or goes on without ever ending its request.
    """

    pieces: tuple[bytes, ...]
    kind: str = "raw"
    body: bytes = b""
    end: str = "close"
    in_tls: bool = False


SESSION = "OpaqueRef:" + "0" * 36
"""Stands for the reference of a session, which is as long, and made anew by each simulator."""

XML_CALLS = [
    xmlrpc.client.dumps((SESSION, "OpaqueRef:x", "ä<&>"), "VM.set_name_label"),
    xmlrpc.client.dumps((SESSION, {"a": [1, True, 0.5, {"b": ""}]}), "VM.create"),
    xmlrpc.client.dumps((SESSION, "x", "p", "f", {"k": "v"}), "host.call_plugin"),
    xmlrpc.client.dumps((SESSION, 'field "name__label"="x"'), "VM.get_all_records_where"),
    xmlrpc.client.dumps((SESSION, "OpaqueRef:x", "1"), "VM.set_VCPUs_max"),
    xmlrpc.client.dumps(("x",), "system.isAlive:x"),
    xmlrpc.client.dumps((), "no.such.call"),
]
JSON_CALLS = [
    json.dumps({"jsonrpc": "2.0", "method": "VM.set_name_label", "params": [SESSION, "x", "\u00e4"], "id": 1}),
    json.dumps({"method": "VM.create", "params": [SESSION, {"a": [1, True, 0.5, {"b": None}]}], "id": "x"}),
    json.dumps({"method": "VM.get_all_where", "params": [SESSION, "true"], "id": -1}),
    json.dumps({"jsonrpc": "2.0", "method": "system.isAlive:x", "params": [1e300], "id": 1}),
]
TOKENS = [
    b"<", b">", b"</value>", b"<value>", b"<int>", b"</int>", b"<array><data>", b"<struct>", b"&lt;", b"&x;", b"]]>",
    b"<!DOCTYPE a [<!ENTITY e 'x'>]>", b"<![CDATA[", b"<?x?>", b"<!--", b'"', b"\\", b"{", b"}", b"[", b"]", b",",
    b":", b"null", b"NaN", b"1e999", b"9" * 50, b"\\ud800", b"\x00", b"\xff", b"\xc3", b"\r\n", b"VM.", b"OpaqueRef:",
]  # fmt: skip
HEADERS = [
    "Connection: close", "Connection: keep-alive", "Expect: 100-continue", "Content-Length: 5", "Content-Length: -1",
    "Content-Length: 99999999999999999999", "Transfer-Encoding: chunked", "Host: x", "no colon", ":",
    "X: " + "x" * 2000,
]  # fmt: skip

edits = st.lists(
    st.tuples(st.integers(0, 600), st.integers(0, 40), st.one_of(st.sampled_from(TOKENS), st.binary(max_size=8))),
    max_size=4,
)


def edited(call: str, changes: list[tuple[int, int, bytes]]) -> bytes:
    """A call in which some places have been overwritten."""
    document = call.encode()
    for place, length, replacement in changes:
        start = place % (len(document) + 1)
        document = document[:start] + replacement + document[start + length :]
    return document


large = st.sampled_from(
    [
        b"<a/>" * (LIMIT // 4),
        b"<value>" * (LIMIT // 7),
        b"<methodCall><methodName>" + b"&lt;" * 70_000 + b"</methodName><params/></methodCall>",
        b"[" * LIMIT,
        b'{"method":"f","id":1,"params":[' + b"1," * 100_000 + b"1]}",
        b'{"a":' * (LIMIT // 5),
        b"x" * (LIMIT + 1),
        b"x" * (4 * LIMIT),
    ]
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
json_members = st.fixed_dictionaries(
    {}, optional={"jsonrpc": json_values, "method": json_values, "params": json_values, "id": json_values}
)


def framed(kind: str, body: bytes, cut: int) -> Input:
    path = "/jsonrpc" if kind == "json" else "/"
    request = f"POST {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    return Input((request[: cut % len(request)], request[cut % len(request) :]), kind, body)


def request(method: str, path: str, version: str, headers: list[str], body: bytes, end: str) -> Input:
    """A request whose head and body need not fit each other."""
    return Input(("\r\n".join([f"{method} {path} {version}", *headers, "", ""]).encode() + body,), end=end)


cuts = st.integers(0, 1000)
ends = st.sampled_from(["close", "reset", "hold"])
documents = st.one_of(
    st.builds(framed, st.just("xml"), st.builds(edited, st.sampled_from(XML_CALLS), edits), cuts),
    st.builds(framed, st.just("json"), st.builds(edited, st.sampled_from(JSON_CALLS), edits), cuts),
    st.builds(framed, st.sampled_from(["xml", "json"]), st.binary(max_size=100), cuts),
    st.builds(framed, st.just("json"), json_members.map(lambda members: json.dumps(members).encode()), cuts),
)
requests = st.builds(
    request,
    st.sampled_from(["POST", "POST", "GET", "PUT", "HEAD", "OPTIONS", "CONNECT", "BREW", ""]),
    st.sampled_from(["/", "/RPC2", "/jsonrpc", "/%2e%2e/%00", "//x", "*", "http://[", "", "/?" + "x" * 1000]),
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/9.9", "HTTP/", "x"]),
    st.lists(st.sampled_from(HEADERS), max_size=4),
    st.binary(max_size=40),
    ends,
)
noise = st.builds(
    lambda data, end, in_tls: Input((data,), end=end, in_tls=in_tls), st.binary(max_size=100), ends, st.booleans()
)
huge = st.builds(framed, st.sampled_from(["xml", "json"]), large, cuts)
rarely = st.integers(0, 60)
inputs = rarely.flatmap(lambda number: huge if number == 30 else st.one_of(documents, documents, requests, noise))

# What comes back


def answers(data: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer; nothing else may have been sent."""
    found = []
    while data:
        match = re.match(rb"HTTP/1\.[01] (\d{3}) [A-Z][A-Za-z ]*\r\n(?:[A-Za-z-]+: [^\r\n]*\r\n)+\r\n", data)
        assert match is not None, data[:100]
        length = re.search(rb"content-length: (\d+)\r\n", match[0])
        assert length is not None
        end = match.end() + int(length[1])
        assert end <= len(data)
        found.append((int(match[1]), data[match.end() : end]))
        data = data[end:]
    return found


def expected_status(kind: str, body: bytes) -> int:
    """What a well-framed request must be answered with."""
    if len(body) > LIMIT:
        return 500
    try:
        if kind == "xml":
            codec.decode_call(body)
        else:
            jsonrpc.decode_request(body)
    except DecodeError:
        return 500
    return 200


def check_envelope(kind: str, body: bytes) -> None:
    if kind == "json":
        answer = json.loads(body)
        assert "id" in answer
        assert ("result" in answer) or set(answer["error"]) == {"code", "message", "data"}
        return
    try:
        (answer,), _ = xmlrpc.client.loads(body)
    except xmlrpc.client.ResponseError:
        pytest.fail("no XML-RPC")
    assert isinstance(answer, list) or answer["Status"] in ("Success", "Failure")


class Fuzzer:
    """Plays inputs against a simulator, and knows what the simulator used before."""

    def __init__(self, simulator: SimulatorProcess) -> None:
        self.simulator = simulator
        self.plain, self.tls = self._address(simulator.plain_url), self._address(simulator.url)
        self.held: list[socket.socket] = []
        self.files_at_start = self.files()
        self.session = XenAPI.Session(simulator.plain_url)
        self.session.login_with_password(simulator.username, simulator.password)
        self.session("close")()
        self.reference = self.session.handle.encode()
        assert len(self.reference) == len(SESSION)
        self.played = 0

    @staticmethod
    def _address(url: str) -> tuple[str, int]:
        host, _, port = url.rpartition("/")[2].partition(":")
        return host, int(port)

    def play(self, untrusted: Input) -> None:
        """Send one input and check what comes back."""
        self.played += 1
        client = socket.create_connection(self.tls if untrusted.in_tls else self.plain, 20)
        received = b""
        try:
            for piece in untrusted.pieces:
                client.sendall(piece.replace(SESSION.encode(), self.reference))
            if untrusted.end == "hold":
                self.hold(client)
                return
            if untrusted.end == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                return
            client.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: client.recv(65536), b""))
        except OSError:
            # What does not speak TLS is cut off, at any moment.
            assert untrusted.in_tls
        client.close()
        if untrusted.in_tls:
            assert b"HTTP" not in received
            return
        found = answers(received)
        assert {status for status, _ in found} <= STATUSES
        if untrusted.kind != "raw":
            ((status, body),) = found
            assert status == expected_status(untrusted.kind, untrusted.body)
            if status == 200:
                check_envelope(untrusted.kind, body)

    def hold(self, client: socket.socket) -> None:
        """Leave a client as it is; of those that wait, the oldest leaves."""
        self.held.append(client)
        if len(self.held) > 20:
            self.held.pop(0).close()

    def release(self) -> None:
        """Let all clients leave."""
        while self.held:
            self.held.pop().close()

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.simulator.pid}/task").iterdir()))

    def files(self) -> int:
        return len(list(Path(f"/proc/{self.simulator.pid}/fd").iterdir()))

    def memory(self) -> int:
        """Bytes of resident memory."""
        pages = int(Path(f"/proc/{self.simulator.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def fuzzer(arguments: list[str], tmp_path: Path) -> Iterator[Fuzzer]:
    with SimulatorProcess(["--tls", *arguments], log=tmp_path / "stderr") as simulator:
        yield Fuzzer(simulator)


def fuzz(fuzzer: Fuzzer, number: int) -> None:
    """Play so many inputs, always the same."""

    @settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(inputs)
    def play(untrusted: Input) -> None:
        fuzzer.play(untrusted)

    play()


def survive(fuzzer: Fuzzer, number: int, stderr: Path) -> None:
    simulator = fuzzer.simulator
    until(lambda: fuzzer.files() == fuzzer.files_at_start)
    threads = fuzzer.threads()
    fuzz(fuzzer, number // 10)
    memory = fuzzer.memory()
    fuzz(fuzzer, number)
    grown = fuzzer.memory() - memory
    fuzzer.release()
    until(lambda: fuzzer.files() == fuzzer.files_at_start and fuzzer.threads() <= threads)
    assert fuzzer.played >= number
    assert fuzzer.session.xenapi.pool.get_all()
    assert fuzzer.session.xenapi.VM.get_all_records()
    assert grown <= MEMORY_BOUND
    log = (simulator.state / "simulator.log").read_text()
    for outcome in ("SUCCESS", "HANDLE_INVALID", "SESSION_INVALID", "INTERNAL_ERROR", "MESSAGE_METHOD_UNKNOWN"):
        assert log.count(f" {outcome}\n") > number // 500
    for trace in ("Traceback", "failed with", " ERROR "):
        assert trace not in log
        assert trace not in stderr.read_text()


def test_some_inputs(fuzzer: Fuzzer, tmp_path: Path) -> None:
    survive(fuzzer, 1500, tmp_path / "stderr")


@pytest.mark.services
def test_many_inputs(fuzzer: Fuzzer, tmp_path: Path) -> None:
    survive(fuzzer, 5_000, tmp_path / "stderr")
