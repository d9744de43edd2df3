from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_protocol.outcomes import Outcome, Refused
from compute_driver.errors import XenServerCertificateMismatch, XenServerUnreachable
from compute_driver.xenapi.connection.session import Connection, XenServer
from compute_driver.xenapi.connection.tls import Trust, format_fingerprint, parse_fingerprint
from tools.simulator.process import SimulatorProcess

OTHER = "AB:" * 31 + "CD"


@pytest.fixture(scope="module")
def pool() -> Iterator[SimulatorProcess]:
    """A pool of a coordinator and a supporter, over TLS."""
    arguments = ["--no-agent", "--login-failure-delay", "0", "--tls", "--hosts", "2"]
    with SimulatorProcess(arguments) as simulator:
        simulator.control.log_calls()
        yield simulator


def client(pool: SimulatorProcess, host: int = 0, **changes: object) -> XenServer:
    settings = {"url": pool.hosts[host].url, "username": pool.username, "password": pool.password, **changes}
    return XenServer(Connection(**settings))  # type: ignore[arg-type]


def was_asked(pool: SimulatorProcess) -> bool:
    """Whether any call arrived since the last time this was asked."""
    calls = pool.control.read_calls()
    pool.control.clear_calls()
    return bool(calls)


@pytest.mark.parametrize("form", [str, str.lower, lambda text: text.replace(":", ""), lambda text: f" {text} "])
def test_a_pinned_certificate_is_enough(pool: SimulatorProcess, form: object) -> None:
    fingerprint = form(pool.fingerprint)  # type: ignore[operator]
    xenserver = client(pool, fingerprints=(OTHER, fingerprint))
    assert xenserver.call("pool.get_all")
    xenserver.close()


@pytest.mark.parametrize("method", ["VM.get_all", "VM.start"])
def test_another_certificate_is_refused_before_anything_is_sent(pool: SimulatorProcess, method: str) -> None:
    was_asked(pool)
    xenserver = client(pool, fingerprints=(OTHER,))
    with pytest.raises(XenServerCertificateMismatch) as caught:
        xenserver.call(method)
    assert (caught.value.outcome, caught.value.code) == (Outcome.REFUSED, "xenserver_certificate_mismatch")
    assert caught.value.seen == pool.fingerprint
    assert pool.fingerprint in str(caught.value)
    with pytest.raises(XenServerCertificateMismatch):
        xenserver.connect()
    assert not was_asked(pool)


def test_a_certificate_that_nobody_signed_is_refused_by_default(pool: SimulatorProcess) -> None:
    was_asked(pool)
    with pytest.raises(XenServerCertificateMismatch, match="self-signed"):
        client(pool).call("VM.get_all")
    assert not was_asked(pool)


def test_an_authority_of_the_configuration_is_believed_for_its_names(pool: SimulatorProcess, tmp_path: Path) -> None:
    address = pool.hosts[0].url.removeprefix("https://").split(":")
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(ssl.get_server_certificate((address[0], int(address[1]))))
    assert client(pool, ca_file=str(ca_file)).call("pool.get_all")
    assert client(pool, ca_file=str(ca_file), url=f"https://localhost:{address[1]}").call("pool.get_all")
    with pytest.raises(XenServerCertificateMismatch):
        # The same address, in a spelling that is not in the certificate.
        client(pool, ca_file=str(ca_file), url=f"https://127.1:{address[1]}").call("pool.get_all")


def test_a_pinned_supporter_vouches_for_the_coordinator(pool: SimulatorProcess) -> None:
    xenserver = client(pool, 1, fingerprints=(pool.hosts[1].fingerprint,))
    assert xenserver.call("pool.get_all")
    assert xenserver.members.coordinator.geturl() == pool.hosts[0].url
    # For new connections as well, for as long as this process knows the pool.
    with xenserver.session() as session:
        assert session.ref.startswith("OpaqueRef:")
    xenserver.connect().close()


def test_what_a_stranger_vouches_for_is_not_believed() -> None:
    trust = Trust(fingerprints=(OTHER,))
    trust.vouch(None, "xen-2:443", OTHER)
    with pytest.raises(XenServerCertificateMismatch):
        trust.check("xen-2:443", b"any certificate")


def test_a_host_is_vouched_for_by_itself_only(pool: SimulatorProcess) -> None:
    xenserver = client(pool, 1, fingerprints=(pool.hosts[1].fingerprint,))
    xenserver.call("pool.get_all")
    vouched_address = pool.hosts[0].url.removeprefix("https://")
    with pytest.raises(XenServerCertificateMismatch):
        xenserver.connect(f"localhost:{vouched_address.rpartition(':')[2]}")


def test_a_member_with_a_wrong_certificate_does_not_keep_us_from_the_others(pool: SimulatorProcess) -> None:
    urls = f"{pool.hosts[1].url},{pool.hosts[0].url}"
    assert client(pool, url=urls, fingerprints=(pool.hosts[0].fingerprint,)).call("pool.get_all")
    with pytest.raises(XenServerCertificateMismatch) as caught:
        client(pool, url=f"https://127.0.0.1:1,{pool.hosts[0].url}", fingerprints=(OTHER,)).call("pool.get_all")
    assert caught.value.seen == pool.fingerprint


def test_connections_to_other_members_are_checked_likewise(pool: SimulatorProcess) -> None:
    xenserver = client(pool, fingerprints=tuple(host.fingerprint for host in pool.hosts))
    connection = xenserver.connect(f"{pool.hosts[1].url}/import_raw_vdi?x=y")
    connection.request("GET", "/nothing-here")
    assert connection.getresponse().status == 404
    connection.close()
    with pytest.raises(XenServerUnreachable):
        # What speaks plain HTTP is not asked in plain HTTP only because somebody says so.
        xenserver.connect(pool.hosts[1].plain_url, timeout=0.3)


def test_pins_do_not_bring_back_the_old_versions_of_tls() -> None:
    for trust in (Trust(), Trust(fingerprints=(OTHER,))):
        assert trust._context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("text", ["", "AB", "AB:" * 31, "g" * 64, "ab" * 33, "a" * 64 + "\n:x"])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="64"):
        parse_fingerprint(text)
    with pytest.raises(Refused) as caught:
        Connection("https://xen-1", "root", "", fingerprints=(text,))
    assert caught.value.code == "xenserver_settings"


def test_fingerprints_are_written_as_xenserver_writes_them() -> None:
    assert format_fingerprint(parse_fingerprint(OTHER)) == OTHER


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_no_authorities_is_refused(tmp_path: Path, content: str | None) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_text(content)
    with pytest.raises(Refused) as caught:
        XenServer(Connection("https://xen-1", "root", "", ca_file=str(ca_file)))
    assert caught.value.code == "xenserver_settings"
