"""Where images may be read from: local files, and HTTPS servers.

Nothing else: no other scheme, no plain HTTP beyond this machine, no file outside the directory that is configured.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import re
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

from agent_protocol.outcomes import Refused

from ..errors import ImageNotFound, ImageUnavailable
from . import ImageReader

MAX_SIZE = 1024**4
"""Bytes that an image from a server may have, where nothing else is configured."""

MAX_REDIRECTS = 5
MAX_RESUMPTIONS = 3
"""How often a download that broke off goes on where it was."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})\Z")
_NETWORK_ERRORS = (OSError, http.client.HTTPException)


# Files


@dataclass(frozen=True)
class FileSource:
    """A file of this machine.

    path: absolute. below: the directory, with all symbolic links followed, that the file must be in; None for any.
    """

    path: Path
    below: Path | None = None
    digest_required: bool = False

    def __post_init__(self) -> None:
        if not self.path.is_absolute() or "\0" in str(self.path):
            raise Refused("image_source_refused", "the path of an image must be absolute")

    @contextmanager
    def open(self) -> Iterator[ImageReader]:
        """Read it. Refused when it is no regular file or lies elsewhere, ImageUnavailable when it cannot be read."""
        try:
            # A path descriptor opens neither devices nor pipes, and what it stands for cannot be exchanged any more.
            handle = os.open(self.path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ImageNotFound(self.path.name) from None
        except OSError as error:
            raise ImageUnavailable(self.path.name, _words(error)) from None
        try:
            entry = Path(f"/proc/self/fd/{handle}")
            self._check(handle, entry.readlink())
            descriptor = os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ImageUnavailable(self.path.name, _words(error)) from None
        finally:
            os.close(handle)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            yield _FileReader(file, self.path.name)

    def _check(self, handle: int, real: Path) -> None:
        if self.below is not None and not real.is_relative_to(self.below.resolve()):
            raise Refused("image_source_refused", f"{self.path.name} is not in the directory of images")
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Refused("image_source_refused", f"{self.path.name} is no regular file")


class _FileReader:
    def __init__(self, file: FileIO, name: str) -> None:
        self._file = file
        self._name = name
        self.size: int | None = os.fstat(file.fileno()).st_size

    def read(self, size: int, /) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise ImageUnavailable(self._name, _words(error)) from None


# HTTPS


@dataclass(frozen=True)
class HttpsSource:
    """A file on an HTTPS server, whose certificate is verified. The URL may hold a token, so it is shown nowhere.

    ca_file: certificate authorities in PEM; the system's otherwise. max_size: bytes that are taken at most. timeout:
    seconds for the connection, and for each piece. digest_required: whether the image must have a SHA-256; False only
    when somebody said so about this very source. loopback_http: also take http:// from this machine's own addresses.
    """

    url: str
    ca_file: Path | None = None
    max_size: int = MAX_SIZE
    timeout: float = 60.0
    digest_required: bool = True
    loopback_http: bool = False

    def __post_init__(self) -> None:
        self._parse(self.url)

    def __repr__(self) -> str:
        return f"HttpsSource({self.name!r})"

    @property
    def name(self) -> str:
        """Server and path for people, without anything that may be a secret."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}{parts.path}"

    @contextmanager
    def open(self) -> Iterator[ImageReader]:
        """Read it. ImageUnavailable, ImageNotFound, or Refused for a redirection or a size that is not allowed."""
        download = _Download(self)
        try:
            download.begin()
            yield download
        finally:
            download.close()

    def _parse(self, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise Refused("image_source_refused", "the URL of the image is malformed") from None
        if not host or not url.isascii() or not url.isprintable() or " " in url:
            raise Refused("image_source_refused", "the URL of the image is malformed")
        if parts.username is not None or parts.password is not None:
            raise Refused("image_source_refused", "the URL of an image must not hold a user or a password")
        if parts.scheme != "https" and not (parts.scheme == "http" and self.loopback_http and _is_loopback(host)):
            raise Refused("image_source_refused", "images are read over https only")
        return parts

    def _connect(self, parts: SplitResult) -> http.client.HTTPConnection:
        host = str(parts.hostname)
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, parts.port, timeout=self.timeout)
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise ImageUnavailable(self.name, f"the file of certificate authorities: {_words(error)}") from None
        return http.client.HTTPSConnection(host, parts.port, timeout=self.timeout, context=context)


class _Download:
    """A response that is read, and asked for again from where it broke off."""

    def __init__(self, source: HttpsSource) -> None:
        self._source = source
        self._connection: http.client.HTTPConnection | None = None
        self._response: http.client.HTTPResponse | None = None
        self._position = 0
        self._resumptions = 0
        self._tag: str | None = None
        self.size: int | None = None

    def begin(self) -> None:
        """Ask for the file, and follow where the server sends us."""
        response = self._ask({})
        if response.status != 200:
            raise self._error(f"HTTP status {response.status}")
        if response.getheader("Content-Encoding", "identity") != "identity":
            raise self._error("the server encodes the content")
        self.size = response.length
        self._check_size(self.size or 0)
        tag = response.getheader("ETag", "")
        # Only a strong tag promises that not a single byte differs.
        self._tag = tag if tag.startswith('"') and self.size is not None else None

    def read(self, size: int, /) -> bytes:
        while True:
            try:
                data = self._read(size)
            except _NETWORK_ERRORS as error:
                self._resume(error)
                continue
            self._position += len(data)
            self._check_size(self._position)
            return data

    def _read(self, size: int) -> bytes:
        assert self._response is not None
        data = self._response.read(size)
        if not data and size > 0 and self.size is not None and self._position < self.size:
            raise http.client.IncompleteRead(b"", self.size - self._position)
        return data

    def _resume(self, error: Exception) -> None:
        self._resumptions += 1
        if self._tag is None or self._resumptions > MAX_RESUMPTIONS:
            raise self._error(_words(error)) from None
        response = self._ask({"Range": f"bytes={self._position}-", "If-Range": self._tag})
        untrusted_range = _CONTENT_RANGE.match(response.getheader("Content-Range", ""))
        wanted = (self._position, (self.size or 0) - 1, self.size)
        if response.status != 206 or not untrusted_range or tuple(map(int, untrusted_range.groups())) != wanted:
            raise self._error("it broke off, and the server does not continue it")

    def _ask(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        url = self._source.url
        for _ in range(MAX_REDIRECTS + 1):
            self.close()
            parts = self._source._parse(url)
            self._connection = self._source._connect(parts)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            try:
                self._connection.request("GET", target, headers={"Accept-Encoding": "identity", **headers})
                self._response = self._connection.getresponse()
            except _NETWORK_ERRORS as error:
                raise self._error(_words(error)) from None
            if self._response.status not in (301, 302, 303, 307, 308):
                break
            url = urljoin(url, self._response.getheader("Location", ""))
        else:
            raise self._error("too many redirections")
        if self._response.status in (404, 410):
            raise ImageNotFound(self._source.name)
        return self._response

    def _check_size(self, size: int) -> None:
        if size > self._source.max_size:
            raise Refused("image_too_large", f"{self._source.name} has more than {self._source.max_size} bytes")

    def _error(self, reason: str) -> ImageUnavailable:
        return ImageUnavailable(self._source.name, reason)

    def close(self) -> None:
        """Let go of the connection."""
        for each in (self._response, self._connection):
            if each is not None:
                with suppress(*_NETWORK_ERRORS):
                    each.close()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or type(error).__name__)
