"""tls.py, and HTTPS as a client meets it: pinned, at least TLS 1.2, the same certificate after a restart."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import XenAPI
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from tools.simulator import tls
from tools.simulator.http import HttpServer, Limits, Protocol
from tools.simulator.process import SimulatorError, SimulatorProcess

from .support import until


@pytest.fixture(scope="module")
def secure(arguments: list[str]) -> Iterator[SimulatorProcess]:
    with SimulatorProcess([*arguments, "--tls"]) as process:
        yield process


def address(url: str) -> tuple[str, int]:
    host, _, port = url.rpartition("/")[2].partition(":")
    return host, int(port)


def trusting(certificate: tls.Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=certificate.pem)


# The certificate


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tls.Certificate:
    return tls.load_or_create(tmp_path_factory.mktemp("state"), "host-1")


def test_the_certificate_is_kept(certificate: tls.Certificate) -> None:
    again = tls.load_or_create(certificate.path.parent, "another name")
    assert again == certificate
    assert stat.S_IMODE(certificate.path.stat().st_mode) == 0o600
    assert [path.name for path in certificate.path.parent.iterdir()] == ["xapi-ssl.pem"]


def test_what_is_in_it(certificate: tls.Certificate) -> None:
    parsed = x509.load_pem_x509_certificate(certificate.pem.encode())
    assert parsed.subject == parsed.issuer
    assert parsed.subject.rfc4514_string() == "CN=host-1"
    key = parsed.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 2048
    assert "PRIVATE KEY" not in certificate.pem
    assert "PRIVATE KEY" in certificate.path.read_text()


def test_fingerprints(certificate: tls.Certificate) -> None:
    der = ssl.PEM_cert_to_DER_cert(certificate.pem)
    assert certificate.fingerprint == ":".join(f"{octet:02X}" for octet in hashlib.sha256(der).digest())
    assert tls.fingerprint(certificate.pem, "sha1") == ":".join(f"{octet:02X}" for octet in hashlib.sha1(der).digest())


@pytest.mark.parametrize("host_name", ["", "x" * 300, "ä"])
def test_any_host_name_will_do(tmp_path: Path, host_name: str) -> None:
    assert tls.load_or_create(tmp_path, host_name).pem


def test_files_that_are_no_certificate(certificate: tls.Certificate, tmp_path: Path) -> None:
    for content in (b"", b"\xff", certificate.pem.encode()):
        (tmp_path / tls.FILE_NAME).write_bytes(content)
        with pytest.raises(ValueError, match=r"xapi-ssl\.pem holds no"):
            tls.load_or_create(tmp_path, "x")


# The simulator


def test_the_official_client(secure: SimulatorProcess) -> None:
    assert secure.url.startswith("https://127.0.0.1:")
    session = XenAPI.Session(secure.url, ignore_ssl=True)
    session.login_with_password(secure.username, secure.password)
    assert session.xenapi.pool.get_all()
    # The plain port serves the same, as a host's port 80 does.
    assert secure.plain_url.startswith("http://127.0.0.1:")
    plain = XenAPI.Session(secure.plain_url)
    plain._session = session.handle
    assert plain.xenapi.pool.get_all() == session.xenapi.pool.get_all()
    plain("close")()
    session("close")()


def test_a_client_that_trusts_the_certificate_alone(secure: SimulatorProcess) -> None:
    context = trusting(tls.load_or_create(secure.state, ""))
    for name in address(secure.url)[0], "localhost":
        connection = http.client.HTTPSConnection(name, address(secure.url)[1], context=context, timeout=10)
        connection.request("GET", "/nothing")
        assert connection.getresponse().status == 404
        connection.close()
    with pytest.raises(ssl.SSLCertVerificationError):
        http.client.HTTPSConnection(*address(secure.url), timeout=10).connect()


def test_the_fingerprint_that_is_told_is_the_one_that_is_shown(secure: SimulatorProcess) -> None:
    shown = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(address(secure.url)))
    assert secure.fingerprint == ":".join(f"{octet:02X}" for octet in hashlib.sha256(shown).digest())


def test_the_fingerprint_outlives_a_restart(arguments: list[str], tmp_path: Path) -> None:
    fingerprints = []
    for _ in range(2):
        with SimulatorProcess(["--tls", "--state", str(tmp_path), *arguments]) as simulator:
            fingerprints.append(simulator.fingerprint)
    assert fingerprints[0] == fingerprints[1] == tls.load_or_create(tmp_path, "").fingerprint


def test_without_tls_there_is_none(simulator: SimulatorProcess) -> None:
    assert simulator.fingerprint == ""
    assert simulator.url == simulator.plain_url
    assert not (simulator.state / tls.FILE_NAME).exists()


def test_a_damaged_certificate_is_said(own_plugin: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / tls.FILE_NAME).write_text("x")
    with pytest.raises(SimulatorError):
        SimulatorProcess(["--plugins", str(own_plugin), "--tls", "--state", str(tmp_path)]).start()
    assert "xapi-ssl.pem holds no certificate" in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused(secure: SimulatorProcess) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with socket.create_connection(address(secure.url), 10) as client, pytest.raises(ssl.SSLError):
        context.wrap_socket(client)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(address(secure.url), 10) as client, context.wrap_socket(client) as wrapped:
        assert wrapped.version() == "TLSv1.2"


def test_plain_http_at_the_port_of_tls(secure: SimulatorProcess) -> None:
    with socket.create_connection(address(secure.url), 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        try:
            answer = b"".join(iter(lambda: client.recv(1000), b""))
        except ConnectionError:
            answer = b""
    assert b"HTTP" not in answer


# A server of a test's own, whose limits can be reached in no time


@pytest.fixture
def server(certificate: tls.Certificate) -> Iterator[HttpServer]:
    protocols = {"/": Protocol("text/plain", lambda body: body)}
    server = HttpServer(0, protocols, tls=certificate.context(), limits=Limits(head_wait=0.2))
    server.start()
    yield server
    server.stop()


def test_a_handshake_that_never_ends_holds_no_thread(server: HttpServer) -> None:
    for sent in (b"", b"\x16\x03\x01", b"x" * 100):
        with socket.create_connection(address(server.url), 10) as client:
            client.sendall(sent)
            until(lambda: not server._connections)
            while client.recv(100):
                pass


def test_tls_is_ended_in_order(server: HttpServer, certificate: tls.Certificate) -> None:
    context = trusting(certificate)
    for request, status in (
        (b"POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx", b"200"),
        (b"POST / HTTP/1.0\r\nContent-Length: 400000\r\n\r\n" + b"x" * 400_000, b"500"),
        (b"", b"408"),
    ):
        with socket.create_connection(address(server.url), 10) as raw:
            # A connection that ends without a farewell would raise.
            client = context.wrap_socket(raw, server_hostname="127.0.0.1", suppress_ragged_eofs=False)
            client.sendall(request)
            answer = b"".join(iter(lambda: client.recv(65536), b""))  # noqa: B023
            client.close()
        assert answer.split()[1] == status


def test_stop_cuts_connections(certificate: tls.Certificate) -> None:
    protocols = {"/": Protocol("text/plain", lambda body: body)}
    server = HttpServer(0, protocols, tls=certificate.context())
    server.start()
    with socket.create_connection(address(server.url), 10) as raw:
        client = trusting(certificate).wrap_socket(raw, server_hostname="localhost")
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")
        assert b"200 OK" in client.recv(1000)
        server.stop()
        until(lambda: not server._connections)
        client.close()


@pytest.mark.services
def test_curl(secure: SimulatorProcess) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "curl is missing"
    command = [curl, "--silent", "--show-error", "--cacert", str(secure.state / tls.FILE_NAME), "--http1.1"]
    call = "<methodCall><methodName>system.isAlive:x</methodName><params><param><value>hello</value></param></params>"
    command += ["--data-binary", call + "</methodCall>", f"{secure.url}/RPC2"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=30)
    assert b"<name>Value</name><value>hello</value>" in ended.stdout
