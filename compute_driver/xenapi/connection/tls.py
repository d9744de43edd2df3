"""Which servers are believed to be XenServer: by certificate authorities, or by their certificates' fingerprints.

It is decided for each connection before anything is sent over it, and there is no way to leave it out.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import re
import ssl
import threading
from collections.abc import Iterable
from urllib.parse import SplitResult

from ...errors import XenServerCertificateMismatch

_FINGERPRINT = re.compile(r"[0-9a-f]{64}\Z")


def parse_fingerprint(text: str) -> str:
    """SHA-256 of a certificate as 64 small hexadecimal digits. ValueError when it is none; colons do not matter."""
    digits = text.strip().replace(":", "").lower()
    if not _FINGERPRINT.match(digits):
        raise ValueError("a SHA-256 fingerprint has 64 hexadecimal digits")
    return digits


def format_fingerprint(digits: str) -> str:
    """The same as people compare it: pairs of capitals with colons between them."""
    capitals = digits.upper()
    return ":".join(capitals[at : at + 2] for at in range(0, len(capitals), 2))


def is_loopback(host: str) -> bool:
    """Whether what is sent to this host name or address stays on this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Trust:
    """The rule for all connections of a pool; used by many threads.

    ca_file: PEM file of the authorities that may have signed; the system's own when None. fingerprints: of the only
    certificates that are accepted when there are any: chain and name do not matter then. OSError (also ssl.SSLError)
    when the file cannot be read or holds no certificate, ValueError for no fingerprint.
    """

    def __init__(self, ca_file: str | None = None, fingerprints: Iterable[str] = ()) -> None:
        self._pinned = frozenset(parse_fingerprint(text) for text in fingerprints)
        self._vouched: dict[str, str] = {}
        self._guard = threading.Lock()
        if self._pinned:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._context.check_hostname = False
            # Checked by _Connection instead, against the list.
            self._context.verify_mode = ssl.CERT_NONE
        else:
            self._context = ssl.create_default_context(cafile=ca_file)
        # XenServer's oldest supported releases speak this.
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2

    @property
    def is_pinned(self) -> bool:
        """Whether certificates are known by their fingerprints."""
        return bool(self._pinned)

    def connection(self, url: SplitResult, timeout: float) -> http.client.HTTPConnection:
        """A connection that is not made yet. Its connect() raises XenServerCertificateMismatch, or OSError."""
        host = str(url.hostname)
        if url.scheme == "http":
            return http.client.HTTPConnection(host, url.port, timeout=timeout)
        return _Connection(self, self._context, host, url.port, timeout)

    def check(self, address: str, certificate: bytes) -> None:
        """XenServerCertificateMismatch unless the certificate (in DER) may be shown by `host:port`."""
        seen = hashlib.sha256(certificate).hexdigest()
        if seen not in self._pinned and self._vouched.get(address) != seen:
            raise XenServerCertificateMismatch(address, format_fingerprint(seen))

    def vouch(self, sock: object, address: str, untrusted_thumbprint: str) -> None:
        """The server at the other end of `sock` told the thumbprint of the coordinator at `address` (`host:port`).

        It is believed for the life of this process when that server is pinned itself; otherwise nothing happens.
        """
        if not isinstance(sock, ssl.SSLSocket) or not self._pinned:
            return
        certificate = sock.getpeercert(binary_form=True) or b""
        if hashlib.sha256(certificate).hexdigest() not in self._pinned:
            return
        try:
            thumbprint = parse_fingerprint(untrusted_thumbprint)
        except ValueError:
            return
        with self._guard:
            self._vouched[address] = thumbprint


class _Connection(http.client.HTTPSConnection):
    """HTTPS to a server that is believed to be XenServer by the time that it is connected."""

    def __init__(self, trust: Trust, context: ssl.SSLContext, host: str, port: int | None, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self._trust = trust

    def connect(self) -> None:
        address = f"{self.host}:{self.port}"
        try:
            super().connect()
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise XenServerCertificateMismatch(address, reason=error.verify_message) from None
        if self._trust.is_pinned:
            assert isinstance(self.sock, ssl.SSLSocket)
            try:
                self._trust.check(address, self.sock.getpeercert(binary_form=True) or b"")
            except XenServerCertificateMismatch:
                self.close()
                raise
