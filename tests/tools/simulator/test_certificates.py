"""Certificates of hosts, as clients replace them, and what the pool trusts; every check with xapi's own error."""

from __future__ import annotations

import datetime
import hashlib
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import XenAPI
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tools.simulator import tls
from tools.simulator.process import SimulatorProcess

from .support import failure
from .test_tls import address

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
PEM = serialization.Encoding.PEM


@pytest.fixture(scope="module")
def secure(arguments: list[str]) -> Iterator[SimulatorProcess]:
    with SimulatorProcess([*arguments, "--tls"]) as process:
        yield process


@pytest.fixture
def api(secure: SimulatorProcess) -> Iterator[Any]:
    session = XenAPI.Session(secure.url, ignore_ssl=True)
    session.login_with_password(secure.username, secure.password)
    yield session.xenapi
    session("close")()


@pytest.fixture
def host(api: Any) -> str:
    (host,) = api.host.get_all()
    return str(host)


def shown(simulator: SimulatorProcess, server_name: str = "") -> str:
    """The SHA-256 of the certificate that a new connection is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(address(simulator.url), 10) as client,
        context.wrap_socket(client, server_hostname=server_name or None) as wrapped,
    ):
        der = wrapped.getpeercert(binary_form=True)
    assert der is not None
    return ":".join(f"{octet:02X}" for octet in hashlib.sha256(der).digest())


def records(api: Any, kind: str) -> list[dict[str, Any]]:
    return [record for record in api.Certificate.get_all_records().values() if record["type"] == kind]


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private(key: Any) -> str:
    pem: bytes = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem.decode()


def issue(
    key: Any,
    begin: datetime.datetime = NOW - DAY,
    end: datetime.datetime = NOW + DAY,
    algorithm: hashes.HashAlgorithm | None = None,
) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "installed")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
    return builder.sign(key, algorithm or hashes.SHA256()).public_bytes(PEM).decode()


# What a host shows


def test_the_records_are_those_of_what_is_shown(api: Any, host: str, secure: SimulatorProcess) -> None:
    for kind, server_name in ("host", ""), ("host_internal", "xapi:pool"):
        (record,) = records(api, kind)
        assert record["fingerprint"] == record["fingerprint_sha256"] == shown(secure, server_name)
        assert record["host"] == host
        assert record["name"] == ""
    pem = api.host.get_server_certificate(host)
    parsed = x509.load_pem_x509_certificate(pem.encode())
    (record,) = records(api, "host")
    assert record["fingerprint_sha256"] == tls.fingerprint(pem)
    assert record["fingerprint_sha1"] == tls.fingerprint(pem, "sha1")
    assert record["not_after"].value == parsed.not_valid_after_utc.strftime("%Y%m%dT%H:%M:%SZ")
    assert record["not_before"].value == parsed.not_valid_before_utc.strftime("%Y%m%dT%H:%M:%SZ")
    assert sorted(api.host.get_certificates(host)) == sorted(api.Certificate.get_all())
    assert shown(secure, "localhost") == shown(secure)


def test_another_certificate(api: Any, host: str, secure: SimulatorProcess, key: rsa.RSAPrivateKey) -> None:
    (before,) = api.Certificate.get_all_records_where('field "type" = "host"')
    internal = shown(secure, "xapi:pool")
    authority = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    installed = issue(key)
    # Keys are taken in either form.
    traditional = key.private_bytes(PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    for private_key, chain in (private(key), ""), (traditional.decode(), issue(authority) + issue(authority)):
        api.host.install_server_certificate(host, installed, private_key, chain)
        assert shown(secure) == tls.fingerprint(installed)
        assert api.host.get_server_certificate(host) == installed
        assert shown(secure, "xapi:pool") == internal
        (after,) = api.Certificate.get_all_records_where('field "type" = "host"')
        assert after != before
        assert api.Certificate.get_fingerprint_sha256(after) == tls.fingerprint(installed)
        assert before not in api.host.get_certificates(host)
    file = secure.state / tls.FILE_NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().count("BEGIN CERTIFICATE") == 3


@pytest.mark.parametrize("emergency", [False, True])
def test_a_new_self_signed_one(api: Any, host: str, secure: SimulatorProcess, emergency: bool) -> None:
    before = shown(secure)
    if emergency:
        api.host.emergency_reset_server_certificate()
    else:
        api.host.reset_server_certificate(host)
    assert shown(secure) != before
    (record,) = records(api, "host")
    assert record["fingerprint_sha256"] == shown(secure)


def test_a_new_internal_one(api: Any, host: str, secure: SimulatorProcess) -> None:
    before = shown(secure), shown(secure, "xapi:pool")
    api.host.refresh_server_certificate(host)
    assert shown(secure) == before[0]
    assert shown(secure, "xapi:pool") != before[1]
    (record,) = records(api, "host_internal")
    assert record["fingerprint_sha256"] == shown(secure, "xapi:pool")


def encrypted(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    ).decode()


def other() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


BAD: list[tuple[Callable[[rsa.RSAPrivateKey], tuple[str, str, str]], list[str]]] = [
    (lambda key: (issue(key), "", ""), ["SERVER_CERTIFICATE_KEY_INVALID"]),
    (lambda key: (issue(key), encrypted(key), ""), ["SERVER_CERTIFICATE_KEY_INVALID"]),
    (
        lambda key: (issue(key), private(ec.generate_private_key(ec.SECP256R1())), ""),
        ["SERVER_CERTIFICATE_KEY_ALGORITHM_NOT_SUPPORTED", "p256"],
    ),
    (
        lambda key: (issue(key), private(ed25519.Ed25519PrivateKey.generate()), ""),
        ["SERVER_CERTIFICATE_KEY_ALGORITHM_NOT_SUPPORTED", "ed25519"],
    ),
    (
        lambda key: (issue(key), private(rsa.generate_private_key(public_exponent=65537, key_size=1024)), ""),
        ["SERVER_CERTIFICATE_KEY_RSA_LENGTH_NOT_SUPPORTED", "1024"],
    ),
    (lambda key: ("", private(key), ""), ["SERVER_CERTIFICATE_INVALID"]),
    (lambda key: (private(key), private(key), ""), ["SERVER_CERTIFICATE_INVALID"]),
    (lambda key: (issue(other()), private(key), ""), ["SERVER_CERTIFICATE_KEY_MISMATCH"]),
    (
        lambda key: (issue(ec.generate_private_key(ec.SECP256R1())), private(key), ""),
        ["SERVER_CERTIFICATE_KEY_MISMATCH"],
    ),
    (
        lambda key: (issue(key, algorithm=hashes.SHA384()), private(key), ""),
        ["SERVER_CERTIFICATE_SIGNATURE_NOT_SUPPORTED"],
    ),
    (lambda key: (issue(key), private(key), "x"), ["SERVER_CERTIFICATE_CHAIN_INVALID"]),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_is_refused(api: Any, host: str, secure: SimulatorProcess, key: rsa.RSAPrivateKey, number: int) -> None:
    make, expected = BAD[number]
    before = shown(secure), api.Certificate.get_all()
    assert failure(api.host.install_server_certificate, host, *make(key)) == expected
    assert (shown(secure), api.Certificate.get_all()) == before


@pytest.mark.parametrize(
    ("code", "begin", "end"),
    [
        ("SERVER_CERTIFICATE_EXPIRED", NOW - 2 * DAY, NOW - DAY),
        ("SERVER_CERTIFICATE_NOT_VALID_YET", NOW + DAY, NOW + 2 * DAY),
    ],
)
def test_dates(
    api: Any, host: str, key: rsa.RSAPrivateKey, code: str, begin: datetime.datetime, end: datetime.datetime
) -> None:
    details = failure(api.host.install_server_certificate, host, issue(key, begin, end), private(key), "")
    limit = end if code.endswith("EXPIRED") else begin
    assert details[0] == code
    assert details[2] == limit.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert abs(datetime.datetime.fromisoformat(details[1]) - NOW) < DAY


def test_hosts_that_are_unknown(api: Any, host: str) -> None:
    assert failure(api.host.install_server_certificate, "OpaqueRef:x", "", "", "")[0] == "HANDLE_INVALID"
    assert failure(api.host.get_server_certificate, "OpaqueRef:x")[0] == "HANDLE_INVALID"


def test_a_host_without_tls(session: XenAPI.Session, simulator: SimulatorProcess) -> None:
    (host,) = session.xenapi.host.get_all()
    assert session.xenapi.Certificate.get_all() == []
    assert failure(session.xenapi.host.get_server_certificate, host)[0] == "NOT_IMPLEMENTED"
    assert failure(session.xenapi.host.reset_server_certificate, host)[0] == "NOT_IMPLEMENTED"
    assert not (simulator.state / tls.FILE_NAME).exists()


# What the pool trusts


def test_a_trusted_certificate_s_life(session: XenAPI.Session, simulator: SimulatorProcess, key: Any) -> None:
    pool, certificate = session.xenapi.pool, issue(key)
    assert pool.certificate_list() == []
    pool.install_ca_certificate("ca-1.pem", certificate)
    assert pool.certificate_list() == ["ca-1.pem"]
    (record,) = session.xenapi.Certificate.get_all_records().values()
    assert (record["type"], record["name"], record["host"]) == ("ca", "ca-1.pem", "OpaqueRef:NULL")
    assert record["fingerprint_sha256"] == tls.fingerprint(certificate)
    assert (simulator.state / "certs/ca-1.pem").read_text() == certificate
    assert failure(pool.install_ca_certificate, "ca-1.pem", issue(key)) == ["CERTIFICATE_ALREADY_EXISTS", "ca-1.pem"]
    assert (simulator.state / "certs/ca-1.pem").read_text() == certificate
    pool.certificate_sync()
    pool.uninstall_ca_certificate("ca-1.pem", False)
    assert pool.certificate_list() == session.xenapi.Certificate.get_all() == []


def test_a_trusted_certificate_that_is_not_there(
    session: XenAPI.Session, simulator: SimulatorProcess, key: Any
) -> None:
    pool = session.xenapi.pool
    assert failure(pool.uninstall_ca_certificate, "no.pem", False) == ["CERTIFICATE_DOES_NOT_EXIST", "no.pem"]
    assert failure(pool.uninstall_ca_certificate, "no.pem", True) == ["INVALID_VALUE", "certificate:name", "no.pem"]
    pool.certificate_install("gone.pem", issue(key))
    (simulator.state / "certs/gone.pem").unlink()
    assert failure(pool.certificate_uninstall, "gone.pem") == ["CERTIFICATE_DOES_NOT_EXIST", "gone.pem"]
    pool.uninstall_ca_certificate("gone.pem", True)
    assert session.xenapi.Certificate.get_all() == []


@pytest.mark.parametrize("name", ["../x.pem", "x", ".x.pem", ".pem", "x.pem\n", "ä.pem", "a/b.pem", "a b.pem"])
def test_names_are_plain(session: XenAPI.Session, key: Any, name: str) -> None:
    pool = session.xenapi.pool
    for call, arguments in (pool.install_ca_certificate, (issue(key),)), (pool.uninstall_ca_certificate, (True,)):
        assert failure(call, name, *arguments) == ["CERTIFICATE_NAME_INVALID", name]
    assert pool.certificate_list() == []


def test_what_is_no_certificate(session: XenAPI.Session, key: rsa.RSAPrivateKey) -> None:
    pool = session.xenapi.pool
    for text in ("", "x", private(key)):
        assert failure(pool.install_ca_certificate, "x.pem", text) == ["INVALID_VALUE", "certificate", "<omitted>"]
    assert failure(pool.install_ca_certificate, "", issue(key))[0] == "INTERNAL_ERROR"
    assert pool.certificate_list() == []
