"""Fetching an artefact from where the host says it is. What comes is believed only after its checksum."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

from agent_protocol.outcomes import Failed, Refused, Unknown

from .. import process
from ..system.paths import failures
from . import fetch
from .artefact import MAX_SIZE

SECONDS = 20.0
"""How long a download may take in all, from name resolution to the last byte: a host waits 30 s for most answers."""

MAX_URL = 2000

_URL = re.compile(r"https://[A-Za-z0-9\[][!-?A-~]*", re.ASCII)
"""https and a host; no user name, whose @ would end up in the host, no blanks and nothing beyond ASCII."""

_MARGIN = 10.0
"""Seconds more until a fetching process is ended from outside: its own timer starts when Python has."""


def check_url(untrusted_url: str) -> str:
    """The address itself. Refused (`bad_url`) unless it begins with https:// and is plain."""
    if len(untrusted_url) > MAX_URL or not _URL.fullmatch(untrusted_url):
        raise Refused("bad_url", f"an artefact's address is https, at most {MAX_URL} ASCII characters, and has no user")
    return untrusted_url


def download(url: str, scratch: str, *, limit: int = MAX_SIZE, seconds: float = SECONDS) -> bytes:
    """The content at an address that check_url let pass.

    scratch: a file to write it to meanwhile; it is removed. Refused with `insecure_redirect` when the server leads away
    from https, `artefact_too_large` beyond `limit` bytes. Failed with `download_timeout` after `seconds`, else
    `download_failed`: nobody answers, the certificate is not one that this system trusts, or there is no such file.
    """
    file = Path(scratch)
    with failures(scratch):
        try:
            _fetch(url, scratch, limit, seconds)
            return file.read_bytes()
        finally:
            file.unlink(missing_ok=True)


def _fetch(url: str, scratch: str, limit: int, seconds: float) -> None:
    try:
        ended = process.run(
            [sys.executable, "-I", "-B", fetch.__file__, scratch, str(limit), str(seconds)],
            stdin=url.encode("ascii") + b"\n",
            timeout=seconds + _MARGIN,
            secrets=[url],
            allowed_exit_codes=range(-signal.NSIG, 256),
        )
    except Unknown:
        raise _timeout(seconds) from None
    if ended.exit_code == 0:
        return
    if ended.exit_code == -signal.SIGALRM:
        raise _timeout(seconds)
    code, _, message = ended.output.splitlines()[-1].partition(" ") if ended.output else ("", "", "")
    if code in ("insecure_redirect", "artefact_too_large"):
        raise Refused(code, message)
    if code == "download_failed":
        raise Failed(code, f"the artefact cannot be fetched: {message}")
    raise Failed("download_failed", f"the fetching process ended with {ended.exit_code}")


def _timeout(seconds: float) -> Failed:
    return Failed("download_timeout", f"the artefact did not come within {seconds:g} s")
