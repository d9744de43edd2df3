"""Certificates: what hosts show, and what the pool trusts. Sources: ocaml/xapi/xapi_host.ml, xapi_pool.ml."""

from __future__ import annotations

from pathlib import Path

from .. import certificates, errors
from ..state import Context
from ..tls import HostCertificates, Kind
from .table import call

DIRECTORY = "certs"
"""Below the state directory: the certificates that the pool trusts, a file each (/etc/stunnel/certs)."""


def _of(context: Context, host: str) -> HostCertificates:
    found = context.state.live_host(host).certificates
    if found is None:
        raise errors.not_implemented("certificates of hosts without TLS")
    return found


def _record(context: Context, host: str, kind: Kind = "host") -> None:
    certificates.record_host(context.database, host, _of(context, host), [kind])


@call("host.get_server_certificate")
def get_server_certificate(context: Context, host: str) -> str:
    """What the host shows its clients, in PEM."""
    return _of(context, host).shown().pem


@call("host.install_server_certificate")
def install_server_certificate(
    context: Context, host: str, certificate: str, private_key: str, certificate_chain: str
) -> None:
    """Let the host show another certificate, which somebody trusts."""
    installed = _of(context, host)
    if context.database.get("pool", context.state.pool, "ha_enabled"):
        raise errors.ApiError("HA_IS_ENABLED")
    installed.install(certificates.server_pem(certificate, private_key, certificate_chain))
    _record(context, host)


@call("host.reset_server_certificate")
def reset_server_certificate(context: Context, host: str) -> None:
    """Let the host show a new self-signed certificate."""
    _of(context, host).reset()
    _record(context, host)


@call("host.emergency_reset_server_certificate")
def emergency_reset_server_certificate(context: Context) -> None:
    """The same for the host that is called."""
    reset_server_certificate(context, context.host.ref)


@call("host.refresh_server_certificate")
def refresh_server_certificate(context: Context, host: str) -> None:
    """Let the host show a new certificate to the other hosts of its pool. Its clients see no change."""
    _of(context, host).reset("host_internal")
    _record(context, host, "host_internal")


# What the pool trusts


def _directory(context: Context) -> Path:
    return context.state.settings.state / DIRECTORY


@call("pool.certificate_list")
def certificate_list(context: Context) -> list[str]:
    """The names of the certificates that were installed."""
    directory = _directory(context)
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


@call("pool.install_ca_certificate", "pool.certificate_install")
def install_ca_certificate(context: Context, name: str, cert: str) -> None:
    """Trust a certificate from now on, under a name that is new."""
    parsed = certificates.parse(cert)
    certificates.check_name(name)
    directory = _directory(context)
    directory.mkdir(exist_ok=True)
    try:
        with (directory / name).open("x", encoding="utf-8") as file:
            file.write(cert)
    except FileExistsError:
        raise errors.ApiError("CERTIFICATE_ALREADY_EXISTS", name) from None
    except OSError as error:
        raise errors.ApiError("CERTIFICATE_LIBRARY_CORRUPT") from error
    certificates.record(context.database, parsed, type="ca", name=name)


@call("pool.uninstall_ca_certificate")
def uninstall_ca_certificate(context: Context, name: str, force: bool) -> None:
    """Trust a certificate no more. force: that its file is gone already is no error."""
    certificates.check_name(name)
    try:
        (_directory(context) / name).unlink()
    except FileNotFoundError:
        if not force:
            raise errors.ApiError("CERTIFICATE_DOES_NOT_EXIST", name) from None
    certificates.forget_named(context.database, name)


@call("pool.certificate_uninstall")
def certificate_uninstall(context: Context, name: str) -> None:
    """The same by its former name."""
    uninstall_ca_certificate(context, name, False)


@call("pool.certificate_sync")
def certificate_sync(context: Context) -> None:
    """Give all hosts what the coordinator trusts: in a simulated pool they have it in common."""
    context.database.record("pool", context.state.pool)
