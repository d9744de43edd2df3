"""Files and servers that images are read from, and all that is not one of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.outcomes import Refused, Unsuccessful
from compute_driver.errors import ImageNotFound, ImageUnavailable
from compute_driver.images import ImageSource
from compute_driver.images import sources as image_sources
from compute_driver.images.sources import FileSource, HttpsSource
from tools.simulator.process import SimulatorProcess

DATA = bytes(range(256)) * 4096


def content(source: ImageSource) -> bytes:
    with source.open() as reader:
        return b"".join(iter(lambda: reader.read(100_000), b""))


# Files


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    for below in (None, tmp_path):
        source = FileSource(tmp_path / "x", below)
        assert content(source) == DATA
        with source.open() as reader:
            assert reader.size == len(DATA)


def test_a_link_within_the_directory_is_followed_and_one_out_of_it_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").write_bytes(DATA)
    (tmp_path / "secret").write_bytes(DATA)
    (tmp_path / "in" / "good").symlink_to("x")
    (tmp_path / "in" / "bad").symlink_to("../secret")
    (tmp_path / "in" / "up").symlink_to("..")
    (tmp_path / "same").symlink_to("in")
    assert content(FileSource(tmp_path / "in" / "good", tmp_path / "in")) == DATA
    assert content(FileSource(tmp_path / "in" / "good", tmp_path / "same")) == DATA
    for name in ("bad", "up/secret", "../secret"):
        with pytest.raises(Refused) as caught:
            content(FileSource(tmp_path / "in" / name, tmp_path / "in"))
        assert caught.value.code == "image_source_refused"


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(Refused, match="no regular file"):
            content(FileSource(path))
    with pytest.raises(Refused):
        FileSource(Path("x"))
    with pytest.raises(Refused):
        FileSource(Path("/x\0"))
    with pytest.raises(ImageNotFound):
        content(FileSource(tmp_path / "none"))


# Servers

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers each request with the next of `answers`; the last one stays."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                self.close_connection = True
                answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/x?token=hunter2"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def source(self, **members: Any) -> HttpsSource:
        return HttpsSource(self.url, **{"loopback_http": True, "timeout": 5.0, **members})

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    it = Server()
    yield it
    it.close()


def answer(status: int = 200, body: bytes = DATA, send: int | None = None, **headers: str) -> Answer:
    """send: so many bytes of the body are sent; all of them otherwise."""

    def handle(http: BaseHTTPRequestHandler) -> None:
        http.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            http.send_header(name.replace("_", "-"), value)
        http.end_headers()
        http.wfile.write(body[:send])

    return handle


def unmeasured(http: BaseHTTPRequestHandler) -> None:
    http.send_response(200)
    http.end_headers()
    http.wfile.write(DATA)


def test_a_file_of_a_server_is_read(server: Server) -> None:
    server.answers = [answer()]
    with server.source().open() as reader:
        assert reader.size == len(DATA)
    assert content(server.source()) == DATA
    path, headers = server.requests[0]
    assert path == "/x?token=hunter2"
    assert headers["accept-encoding"] == "identity"


def test_without_a_length_the_size_is_not_known(server: Server) -> None:
    server.answers = [unmeasured]
    with server.source().open() as reader:
        assert reader.size is None
        assert b"".join(iter(lambda: reader.read(100_000), b"")) == DATA


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x",
        "http://10.0.0.1/x",
        "http://127.0.0.1.example.com/x",
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "https://user:hunter2@x/y",
        "https:///y",
        "https://x:y/z",
        "https://x/a b",
        "https://x/a\r\nHost: y",
        "https://[::1",
        "",
    ],
)
def test_other_urls_are_refused_without_being_shown(url: str) -> None:
    with pytest.raises(Refused) as caught:
        HttpsSource(url, loopback_http=True)
    assert caught.value.code == "image_source_refused"
    assert "hunter2" not in str(caught.value)


def test_plain_http_needs_a_word_even_here() -> None:
    with pytest.raises(Refused):
        HttpsSource("http://127.0.0.1/x")
    for host in ("127.0.0.1", "[::1]", "localhost"):
        HttpsSource(f"http://{host}/x", loopback_http=True)


def test_a_certificate_that_is_not_trusted_ends_it() -> None:
    with SimulatorProcess(["--no-agent", "--tls"]) as simulator:
        with pytest.raises(ImageUnavailable, match="certificate is not trusted") as caught:
            content(HttpsSource(f"{simulator.url}/x?token=hunter2"))
        assert "hunter2" not in str(caught.value)


def test_the_token_in_a_url_is_shown_nowhere(server: Server) -> None:
    server.answers = [answer(500)]
    with pytest.raises(ImageUnavailable, match="HTTP status 500") as caught:
        content(server.source())
    assert "hunter2" not in f"{caught.value!r}{caught.value}{server.source()!r}"
    server.answers = [answer(404)]
    with pytest.raises(ImageNotFound) as missing:
        content(server.source())
    assert "hunter2" not in f"{missing.value!r}{missing.value}"


def test_a_redirection_is_followed_and_not_to_less_protected_places(server: Server) -> None:
    server.answers = [answer(302, b"", Location="/there"), answer()]
    assert content(server.source()) == DATA
    assert server.requests[1][0] == "/there"
    for target in ("http://example.com/x", "file:///etc/passwd", "ftp://127.0.0.1/", "https://a:b@x/"):
        server.answers = [answer(302, b"", Location=target)]
        with pytest.raises(Refused) as caught:
            content(server.source())
        assert caught.value.code == "image_source_refused"
    server.requests.clear()
    server.answers = [answer(301, b"", Location="/again")]
    with pytest.raises(ImageUnavailable, match="too many redirections"):
        content(server.source())
    assert len(server.requests) == image_sources.MAX_REDIRECTS + 1


def test_more_than_the_allowed_size_is_refused_with_and_without_a_length(server: Server) -> None:
    server.answers = [answer()]
    with pytest.raises(Refused) as caught:
        content(server.source(max_size=len(DATA) - 1))
    assert caught.value.code == "image_too_large"
    server.answers = [unmeasured]
    with pytest.raises(Refused) as caught:
        content(server.source(max_size=len(DATA) - 1))
    assert caught.value.code == "image_too_large"
    assert content(server.source(max_size=len(DATA))) == DATA


def test_an_encoded_answer_is_refused(server: Server) -> None:
    server.answers = [answer(Content_Encoding="gzip")]
    with pytest.raises(ImageUnavailable, match="encodes"):
        content(server.source())


def test_a_download_that_breaks_off_goes_on_where_it_was(server: Server) -> None:
    first, size = 300_000, len(DATA)
    rest = {"Content_Range": f"bytes {first}-{size - 1}/{size}"}
    server.answers = [answer(send=first, ETag='"v1"'), answer(206, DATA[first:], **rest)]
    assert content(server.source()) == DATA
    assert server.requests[1][1]["range"] == f"bytes={first}-"
    assert server.requests[1][1]["if-range"] == '"v1"'


@pytest.mark.parametrize(
    "second",
    [
        answer(200),
        answer(206, DATA[300_000:]),
        answer(206, DATA[300_000:], Content_Range="bytes 300001-1048575/1048576"),
        answer(206, DATA[300_000:], Content_Range="bytes 300000-1048575/1048577"),
        answer(416, b""),
    ],
)
def test_what_does_not_continue_it_ends_it(server: Server, second: Answer) -> None:
    server.answers = [answer(send=300_000, ETag='"v1"'), second]
    with pytest.raises(ImageUnavailable, match="does not continue"):
        content(server.source())


@pytest.mark.parametrize("tag", ["", 'W/"v1"'])
def test_without_a_strong_tag_a_download_that_breaks_off_ends(server: Server, tag: str) -> None:
    server.answers = [answer(send=300_000, ETag=tag)]
    with pytest.raises(Unsuccessful) as caught:
        content(server.source())
    assert isinstance(caught.value, ImageUnavailable)
    assert len(server.requests) == 1


def test_it_does_not_go_on_for_ever(server: Server) -> None:
    size = len(DATA)
    server.answers = [
        answer(send=100, ETag='"v1"'),
        answer(206, DATA[100:], send=0, Content_Range=f"bytes 100-{size - 1}/{size}"),
    ]
    with pytest.raises(ImageUnavailable):
        content(server.source())
    assert len(server.requests) == image_sources.MAX_RESUMPTIONS + 1


def test_a_silent_server_is_not_waited_for(server: Server) -> None:
    release = threading.Event()

    def silent(http: BaseHTTPRequestHandler) -> None:
        release.wait(20)

    server.answers = [silent]
    try:
        with pytest.raises(ImageUnavailable, match="no answer in time"):
            content(server.source(timeout=0.2))
    finally:
        release.set()
