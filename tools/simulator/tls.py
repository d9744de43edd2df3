"""A host's own certificates and what HTTPS is served with.

A host makes self-signed certificates when it is installed and keeps each with its key in one file; so does this one, in
its state directory. A client that pins the fingerprint finds the same one after a restart.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

FILE_NAME = "xapi-ssl.pem"
"""Below the state directory: the private key and the certificate. Readable by its owner only."""

INTERNAL_FILE_NAME = "xapi-pool-tls.pem"
"""The same for what hosts of a pool show each other."""

INTERNAL_SERVER_NAME = "xapi:pool"
"""Who asks for this server name is another host of the pool (ocaml/xapi/xapi_globs.ml)."""

Kind = Literal["host", "host_internal"]
"""What shows a certificate to whom: a host to its clients, or to the other hosts of its pool."""

_FILES: dict[Kind, str] = {"host": FILE_NAME, "host_internal": INTERNAL_FILE_NAME}

KINDS = tuple(_FILES)

KEY_SIZE = 2048
"""Bits of the RSA key: the least that xapi takes."""

VALIDITY = datetime.timedelta(days=3650)
"""How long a host's own certificate is valid."""


@dataclass(frozen=True)
class Certificate:
    """The certificate that a host shows.

    path: of the file that holds it and its key. pem: the certificate alone, as host.get_server_certificate gives it.
    """

    path: Path
    pem: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate in xapi's form: pairs of hexadecimal capitals with colons between them."""
        return fingerprint(self.pem)

    def context(self) -> ssl.SSLContext:
        """What HTTPS is served with: TLS 1.2 or later. OSError when the file cannot be read any more."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.path)
        return context


def fingerprint(pem: str, algorithm: str = "sha256") -> str:
    """The digest of a certificate, such as `0A:1B:…`. `algorithm` is sha256 or sha1. ValueError for no certificate."""
    # It names a certificate, as everywhere; that SHA-1 is weak is known to those who ask for it.
    digest = hashlib.new(algorithm, ssl.PEM_cert_to_DER_cert(pem), usedforsecurity=False)
    return ":".join(f"{octet:02X}" for octet in digest.digest())


def load_or_create(state: Path, host_name: str, kind: Kind = "host") -> Certificate:
    """The certificate in a state directory; made for `host_name` and 127.0.0.1 when there is none.

    ValueError when the file is there but is not a key with its certificate, OSError when it cannot be read or written.
    """
    path = state / _FILES[kind]
    if not path.exists():
        _write(path, _create(host_name))
    certificate = Certificate(path, _certificate_in(path))
    try:
        certificate.context()
    except ssl.SSLError:
        raise ValueError(f"{path} holds no private key with its certificate") from None
    return certificate


class HostCertificates:
    """The certificates of one host, and the HTTPS that shows them. Methods may be called by any thread.

    directory: where their files are, or are made for `host_name`. Errors as of load_or_create().
    """

    def __init__(self, directory: Path, host_name: str) -> None:
        self._directory = directory
        self._host_name = host_name
        self._shown: dict[Kind, Certificate] = {}
        self._contexts: dict[Kind, ssl.SSLContext] = {}
        for kind in _FILES:
            self._show(kind)

    def shown(self, kind: Kind = "host") -> Certificate:
        """What connections that are made now are shown."""
        return self._shown[kind]

    def context(self) -> ssl.SSLContext:
        """What HTTPS is served with: each connection is shown what is right when it is made."""
        context = self._shown["host"].context()
        context.sni_callback = self._choose
        return context

    def reset(self, kind: Kind = "host") -> Certificate:
        """Make a new one, self-signed, and show that from now on. OSError when it cannot be written."""
        return self.install(_create(self._host_name), kind)

    def install(self, pem: bytes, kind: Kind = "host") -> Certificate:
        """Show another one from now on: its private key, itself and its chain, which fit. OSError as of reset()."""
        _write(self._directory / _FILES[kind], pem)
        return self._show(kind)

    def _show(self, kind: Kind) -> Certificate:
        certificate = load_or_create(self._directory, self._host_name, kind)
        self._contexts[kind] = certificate.context()
        self._shown[kind] = certificate
        return certificate

    def _choose(self, connection: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext) -> None:
        # Called in every handshake, also when the client names no server.
        del context
        connection.context = self._contexts["host_internal" if server_name == INTERNAL_SERVER_NAME else "host"]


def _certificate_in(path: Path) -> str:
    try:
        loaded = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        raise ValueError(f"{path} holds no certificate") from None
    return loaded.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _create(host_name: str) -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_SIZE)
    # An x509 name holds at most 64 characters.
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host_name[:64] or "localhost")])
    start = datetime.datetime.now(datetime.timezone.utc)
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")), x509.DNSName("localhost")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A clock that is a little behind must not refuse it.
        .not_valid_before(start - datetime.timedelta(minutes=5))
        .not_valid_after(start + VALIDITY)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes) -> None:
    # mkstemp makes files that only their owner can read.
    number, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
