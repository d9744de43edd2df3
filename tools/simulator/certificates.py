"""Certificates: the checks that xapi makes of them, and their records in the database.

Sources: ocaml/gencert/lib.ml, ocaml/xapi/certificates.ml, xapi_host.ml and xapi_pool.ml.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from . import errors, tls
from .database import Database
from .values import format_date

KEY_SIZES = range(2048, 4096 + 1)
"""Bits of an RSA key that a host takes."""

_HASHES = ("sha256", "sha512")
_CURVES = {"secp224r1": "p224", "secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}
_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]*\.pem\Z")


def server_pem(untrusted_certificate: str, untrusted_key: str, untrusted_chain: str) -> bytes:
    """The file of a certificate that a host is to show, once all that xapi asks of it is true.

    ApiError SERVER_CERTIFICATE_… with what is wrong. None holds anything of the key.
    """
    key = _private_key(untrusted_key)
    try:
        certificate = x509.load_pem_x509_certificate(untrusted_certificate.encode())
        public_key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise errors.ApiError("SERVER_CERTIFICATE_INVALID") from None
    moment = datetime.datetime.now(datetime.timezone.utc)
    if moment < certificate.not_valid_before_utc:
        raise _wrong_date("SERVER_CERTIFICATE_NOT_VALID_YET", moment, certificate.not_valid_before_utc)
    if moment > certificate.not_valid_after_utc:
        raise _wrong_date("SERVER_CERTIFICATE_EXPIRED", moment, certificate.not_valid_after_utc)
    if public_key != key.public_key():
        raise errors.ApiError("SERVER_CERTIFICATE_KEY_MISMATCH")
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None or algorithm.name not in _HASHES:
        raise errors.ApiError("SERVER_CERTIFICATE_SIGNATURE_NOT_SUPPORTED")
    chain = _chain(untrusted_chain) if untrusted_chain else []
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (certificate, *chain))


def _private_key(untrusted_key: str) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(untrusted_key.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # TypeError is for one that needs a password.
        raise errors.ApiError("SERVER_CERTIFICATE_KEY_INVALID") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise errors.ApiError("SERVER_CERTIFICATE_KEY_ALGORITHM_NOT_SUPPORTED", _algorithm(key))
    if key.key_size not in KEY_SIZES:
        raise errors.ApiError("SERVER_CERTIFICATE_KEY_RSA_LENGTH_NOT_SUPPORTED", str(key.key_size))
    return key


def _algorithm(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _CURVES.get(key.curve.name, key.curve.name)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    return "ed448" if isinstance(key, ed448.Ed448PrivateKey) else "unknown"


def _chain(untrusted_chain: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(untrusted_chain.encode())
    except ValueError:
        raise errors.ApiError("SERVER_CERTIFICATE_CHAIN_INVALID") from None


def _wrong_date(code: str, moment: datetime.datetime, limit: datetime.datetime) -> errors.ApiError:
    return errors.ApiError(code, *(f"{date:%Y-%m-%dT%H:%M:%S}Z" for date in (moment, limit)))


def parse(untrusted_pem: str) -> x509.Certificate:
    """The first certificate in a text. ApiError INVALID_VALUE when there is none."""
    try:
        return x509.load_pem_x509_certificate(untrusted_pem.encode())
    except ValueError:
        raise errors.invalid_value("certificate", "<omitted>") from None


def check_name(untrusted_name: str) -> None:
    """ApiError CERTIFICATE_NAME_INVALID unless it is a plain file name that ends in `.pem`."""
    if not untrusted_name:
        raise errors.internal_error('Invalid_argument("index out of bounds")')
    if not _NAME.match(untrusted_name):
        raise errors.ApiError("CERTIFICATE_NAME_INVALID", untrusted_name)


# Records


def record(database: Database, certificate: x509.Certificate, **fields: Any) -> str:
    """Make the record of a certificate; gives its reference. fields: type, and host or name."""
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
    fingerprint = tls.fingerprint(pem)
    return database.create(
        "Certificate",
        not_before=format_date(certificate.not_valid_before_utc),
        not_after=format_date(certificate.not_valid_after_utc),
        fingerprint=fingerprint,
        fingerprint_sha256=fingerprint,
        fingerprint_sha1=tls.fingerprint(pem, "sha1"),
        **fields,
    )


def record_host(
    database: Database, host: str, certificates: tls.HostCertificates, kinds: Iterable[tls.Kind] = tls.KINDS
) -> None:
    """Let the records of a host's certificates of these kinds agree with what it shows."""
    for kind in kinds:
        _record_shown(database, host, certificates.shown(kind), kind)


def _record_shown(database: Database, host: str, shown: tls.Certificate, kind: tls.Kind) -> None:
    with database.exclusively():
        rows = database.snapshots("Certificate")
        mine = {ref: row for ref, row in rows.items() if row["host"] == host and row["type"] == kind}
        if [row["fingerprint_sha256"] for row in mine.values()] == [shown.fingerprint]:
            return
        record(database, x509.load_pem_x509_certificate(shown.pem.encode()), host=host, type=kind)
        for ref in mine:
            database.destroy("Certificate", ref)


def forget_named(database: Database, name: str) -> None:
    """Remove the record of a certificate of the pool. ApiError INVALID_VALUE when there is none of that name."""
    rows = database.snapshots("Certificate")
    found = [ref for ref, row in rows.items() if row["type"] == "ca" and row["name"] == name]
    if not found:
        raise errors.invalid_value("certificate:name", name)
    for ref in found:
        database.destroy("Certificate", ref)
