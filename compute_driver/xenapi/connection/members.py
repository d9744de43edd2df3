"""The hosts of a pool as far as a client knows them: which one coordinates, and whom to ask when it does not answer."""

from __future__ import annotations

import re
import threading
from urllib.parse import SplitResult, urlsplit

from agent_protocol.outcomes import Refused, Unsuccessful

from ...errors import XenServerCertificateMismatch, XenServerFailure
from .tls import is_loopback

MAX_HOPS = 4
"""How often one call is sent on by hosts that do not coordinate. In a pool at rest it is once."""

_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:(?P<port>[0-9]{1,5}))?\Z", re.ASCII)
_BARE_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}\Z", re.ASCII)


def parse_url(text: str, *, allow_plain_http: bool) -> SplitResult:
    """A host's URL, without credentials and path. Refused when it is none that may be used."""
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise Refused("xenserver_settings", "XenServer's URL is http:// or https:// and a host")
    if parts.scheme == "http" and not (allow_plain_http or is_loopback(host)):
        raise Refused(
            "xenserver_plain_http", f"XenServer at {host} is not asked over plain HTTP, which would show its password"
        )
    return _url(parts.scheme, host, port)


def _url(scheme: str, host: str, port: int | None) -> SplitResult:
    name = f"[{host}]" if ":" in host else host
    return SplitResult(scheme, f"{name}:{port}" if port is not None else name, "", "", "")


def address_of(url: SplitResult) -> str:
    """Host and port for people."""
    return url.netloc


def key_of(url: SplitResult) -> str:
    """Host and port as a TLS connection knows them."""
    port = url.port if url.port is not None else (443 if url.scheme == "https" else 80)
    return f"{url.hostname}:{port}"


class Members:
    """What is known of the pool; shared by all sessions, and used by many threads.

    urls: of hosts of the pool, at least one. Refused when one of them is not to be used.
    """

    def __init__(self, urls: list[str], *, allow_plain_http: bool = False) -> None:
        self._allow_plain_http = allow_plain_http
        self.configured = tuple(parse_url(url, allow_plain_http=allow_plain_http) for url in urls)
        if not self.configured:
            raise Refused("xenserver_settings", "no URL of XenServer is configured")
        self._guard = threading.Lock()
        self._coordinator = self.configured[0]

    @property
    def coordinator(self) -> SplitResult:
        """The host that is believed to coordinate the pool."""
        return self._coordinator

    def coordinates(self, url: SplitResult) -> None:
        """A host let us log in, so it coordinates."""
        with self._guard:
            self._coordinator = url

    def other(self, untrusted_address: str) -> SplitResult:
        """The URL of a host that XenServer named, in the coordinator's scheme; ValueError when it named none.

        untrusted_address: `host` or `host:port`, or a URL, whose scheme counts only where it is the better one.
        Refused when its password would have to go there over plain HTTP.
        """
        scheme = self._coordinator.scheme
        address = untrusted_address
        if "://" in address:
            parts = urlsplit(address)
            scheme, address = ("https" if "https" in (scheme, parts.scheme) else "http"), parts.netloc
        match = _ADDRESS.match(address)
        if match is None and not _BARE_IPV6.match(address):
            raise ValueError("not a host's address")
        netloc = address if match else f"[{address}]"
        if match and match["port"] and int(match["port"]) > 65535:
            raise ValueError("not a port")
        return parse_url(f"{scheme}://{netloc}", allow_plain_http=self._allow_plain_http)


class Route:
    """The hosts that one call asks, one after the other, each once: none of them has done anything for it yet."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._asked: set[SplitResult] = set()
        self._led_to: SplitResult | None = None
        self._hops = 0
        self._errors: list[Unsuccessful] = []

    def next(self) -> SplitResult:
        """The host to ask now. When there is none left: the error that tells most of why."""
        candidates = [self._led_to, self._members.coordinator, *self._members.configured]
        for url in candidates:
            if url is not None and url not in self._asked:
                self._asked.add(url)
                return url
        raise self._worst()

    def again(self, url: SplitResult) -> None:
        """A session at that host is at hand, or a new one is needed there."""
        self._asked.add(url)

    def failed(self, error: Unsuccessful) -> None:
        """The host that was asked cannot be reached or cannot serve now."""
        self._errors.append(error)

    def turned_away(self, failure: XenServerFailure) -> None:
        """The host that was asked looked at nothing; with HOST_IS_SLAVE it named the coordinator, which is next.

        Raises the failure when this goes on for too long.
        """
        self._errors.append(failure)
        if failure.details[0] != "HOST_IS_SLAVE":
            return
        self._hops += 1
        if self._hops > MAX_HOPS:
            raise failure
        try:
            self._led_to = self._members.other(failure.details[1])
        except (ValueError, IndexError):
            self._led_to = None

    def _worst(self) -> Unsuccessful:
        def weight(error: Unsuccessful) -> int:
            if isinstance(error, XenServerCertificateMismatch):
                return 2
            return 0 if isinstance(error, XenServerFailure) and error.details[0] == "HOST_IS_SLAVE" else 1

        return max(self._errors, key=weight)
