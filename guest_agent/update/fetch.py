"""A program of its own that fetches one file through https: `fetch.py FILE LIMIT SECONDS`, with the address on stdin.

Apart from the agent, because nothing inside a process can put an end to all of it: to name resolution, to a server that
sends a byte now and then, to one that is slow in each of its headers. The kernel's timer can, and it ends this process
also when the agent is gone. The address may hold a token, so it is neither an argument nor printed.

Exit status 0 when FILE holds the content; else 1, and one line: a code, and what people can read about it.
"""

from __future__ import annotations

import signal
import sys
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from http.client import HTTPException
from typing import IO, Any, NoReturn

_CHUNK = 65536


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows a server elsewhere, as long as that is https too."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl).scheme != "https":
            _end("insecure_redirect", "the server leads to an address that is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def main(path: str, limit: int, seconds: float) -> None:
    """Fetch at most `limit` bytes. After `seconds` the process dies by SIGALRM."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        # An opener that knows https and nothing else. Certificates are checked; proxies are those of the environment,
        # which for a service is its administrator's.
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler,
            urllib.request.HTTPSHandler,
            urllib.request.HTTPDefaultErrorHandler,
            urllib.request.HTTPErrorProcessor,
            urllib.request.UnknownHandler,
            _OnlyHttps,
        ):
            opener.add_handler(handler())
        with opener.open(sys.stdin.readline().strip(), timeout=seconds) as response, open(path, "wb") as file:  # noqa: PTH123
            _copy(response, file, limit)
    except urllib.error.HTTPError as error:
        _end("download_failed", f"the server answers {error.code}")
    except urllib.error.URLError as error:
        _end("download_failed", str(error.reason))
    except (OSError, HTTPException, ValueError) as error:
        _end("download_failed", type(error).__name__)


def _copy(response: Any, file: IO[bytes], limit: int) -> None:
    announced = response.headers.get("Content-Length")
    written = 0
    while True:
        content = response.read(_CHUNK)
        if not content:
            break
        written += len(content)
        if written > limit:
            _end("artefact_too_large", f"what the server sends has more than {limit} bytes")
        file.write(content)
    if announced is not None and announced != str(written):
        _end("download_failed", "the server ended before it had sent everything")


def _end(code: str, message: str) -> NoReturn:
    print(code, " ".join(message.split())[:300])
    sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
