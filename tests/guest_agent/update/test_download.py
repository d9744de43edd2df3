"""Fetching, from real servers with TLS on this machine."""

from __future__ import annotations

import itertools
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_protocol.outcomes import Failed, Refused, Unsuccessful
from guest_agent import process
from guest_agent.update.download import MAX_URL, check_url, download

from .servers import Authority, Content, serve

CONTENT = bytes(range(256)) * 1000
ENDLESS = 1000


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def trust(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the tests' authority, and ask no proxy for what is on this machine."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def content() -> Content:
    return {"/a": CONTENT}


@pytest.fixture
def server(authority: Authority, content: Content) -> Iterator[str]:
    with serve(content, authority.certificate("127.0.0.1")) as address:
        yield address


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def failure(kind: type[Unsuccessful], *arguments: object, **options: object) -> tuple[str, str]:
    with pytest.raises(kind) as caught:
        download(*arguments, **options)  # type: ignore[arg-type]
    return caught.value.code, caught.value.message


def test_content_comes_whole(server: str, scratch: str) -> None:
    assert download(f"{server}/a", scratch) == CONTENT


def test_another_address_with_https(server: str, content: Content, scratch: str) -> None:
    content["/b"] = "/a"
    content["/c"] = f"{server}/b"
    assert download(f"{server}/c", scratch) == CONTENT


def test_never_without_tls(server: str, content: Content, scratch: str) -> None:
    with serve({"/a": CONTENT}, None) as plain:
        content["/b"] = f"{plain}/a"
        assert failure(Refused, f"{server}/b", scratch)[0] == "insecure_redirect"
        # Not even when somebody forgot to ask check_url.
        assert failure(Failed, f"{plain}/a", scratch)[0] == "download_failed"
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/a", "data:,x"):
        content["/b"] = target
        assert failure(Unsuccessful, f"{server}/b", scratch)[0] in ("insecure_redirect", "download_failed")


def test_round_and_round(server: str, content: Content, scratch: str) -> None:
    content["/b"] = "/b"
    assert failure(Failed, f"{server}/b", scratch) == (
        "download_failed",
        "the artefact cannot be fetched: the server answers 302",
    )


def test_an_authority_that_nobody_trusts(server: str, scratch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    code, message = failure(Failed, f"{server}/a", scratch)
    assert code == "download_failed"
    assert "CERTIFICATE_VERIFY_FAILED" in message


def test_a_certificate_of_somebody_else(authority: Authority, scratch: str) -> None:
    with serve({"/a": CONTENT}, authority.certificate("127.0.0.2")) as address:
        code, message = failure(Failed, f"{address}/a", scratch)
    assert code == "download_failed"
    assert "CERTIFICATE_VERIFY_FAILED" in message


def test_too_much(server: str, content: Content, scratch: str) -> None:
    assert download(f"{server}/a", scratch, limit=len(CONTENT)) == CONTENT
    assert failure(Refused, f"{server}/a", scratch, limit=len(CONTENT) - 1)[0] == "artefact_too_large"
    # Without an announced length, and without an end.
    content["/b"] = [b"HTTP/1.0 200 OK\r\n\r\n", *[bytes(65536)] * ENDLESS]
    assert failure(Refused, f"{server}/b", scratch, limit=100_000)[0] == "artefact_too_large"


def test_too_little(authority: Authority, scratch: str) -> None:
    # A server that ends the connection in the middle.
    content: Content = {"/b": b""}
    with serve(content, authority.certificate("127.0.0.1")) as address:
        content["/b"] = _Cut(b"x" * 5)
        assert failure(Failed, f"{address}/b", scratch)[0] == "download_failed"


class _Cut(bytes):
    """Five bytes that pass for ten."""

    def __len__(self) -> int:
        return 10


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.0 200 OK\r\nContent-Length: 1000000\r\n\r\n", *[b"x"] * ENDLESS],
        [b"HTTP/1.0 200 OK\r\n", *itertools.repeat(b"X: y\r\n", 90)],
        [b"HTTP/1.0 200 OK\r\nX: ", *[b"x"] * ENDLESS],
        [],
    ],
    ids=["body", "headers", "one header", "silence"],
)
def test_a_slow_server(server: str, content: Content, scratch: str, pieces: list[bytes]) -> None:
    content["/b"] = pieces
    assert failure(Failed, f"{server}/b", scratch, seconds=1.0) == (
        "download_timeout",
        "the artefact did not come within 1 s",
    )


def test_a_server_that_never_greets(scratch: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/a"
        assert failure(Failed, url, scratch, seconds=1.0)[0] == "download_timeout"


def test_nobody_there(scratch: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    code, message = failure(Failed, f"https://127.0.0.1:{port}/a?token=geheim", scratch)
    assert code == "download_failed"
    assert "refused" in message
    assert "geheim" not in message


def test_no_such_file(server: str, scratch: str) -> None:
    assert failure(Failed, f"{server}/x?token=geheim", scratch) == (
        "download_failed",
        "the artefact cannot be fetched: the server answers 404",
    )


def test_the_address_is_no_argument(scratch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(arguments: list[str], **options: object) -> process.Completed:
        seen.append((arguments, options))
        return process.Completed(3, "")

    monkeypatch.setattr(process, "run", run)
    assert failure(Failed, "https://h/geheim", scratch)[0] == "download_failed"
    ((arguments, options),) = seen
    assert arguments[:2] == [sys.executable, "-I"]
    assert not any("geheim" in argument for argument in arguments)
    assert options["stdin"] == b"https://h/geheim\n"


def test_nowhere_to_write(server: str) -> None:
    assert failure(Failed, f"{server}/a", "/nonexistent/scratch")[0] == "download_failed"


@pytest.mark.parametrize("url", ["https://h/a", "https://h:1/a?b=c&d=%20#e", "https://[::1]:8443/a", "https://h"])
def test_addresses(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://h/a",
        "HTTPS://h/a",
        "ftp://h/a",
        "file:///etc/passwd",
        "https:///a",
        "https:h",
        "https://user:word@h/a",
        "https://h/a b",
        "https://h/\r\nHost: i",
        "https://h/a\n",
        "https://hö/a",
        "https://h/" + "a" * MAX_URL,
    ],
)
def test_bad_addresses(url: str) -> None:
    with pytest.raises(Refused) as caught:
        check_url(url)
    assert caught.value.code == "bad_url"
    assert "word" not in caught.value.message
