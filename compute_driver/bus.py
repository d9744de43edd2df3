"""The message bus that the configuration names, as oslo.messaging reaches it.

What oslo.messaging does by itself: it publishes with the broker's confirmation, orders with the mandatory flag too, so
that the broker says when no service has a queue; it acknowledges an order before it is carried out, so none is carried
out twice; it connects again after the broker was away, for ever. What is added here: defaults, refusal of TLS without
verification, and a login before anything else, since oslo.messaging takes a refused login for a broker that is away.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any
from weakref import WeakKeyDictionary

from oslo_config import cfg

from agent_protocol.outcomes import Refused, Unreachable, Unsuccessful

EMBEDDED = "fake://"
"""The bus within one process, and the default."""

GROUP = "oslo_messaging_rabbit"

OPTIONS = [
    cfg.BoolOpt(
        "allow_unverified_tls",
        default=False,
        help="Use TLS without [oslo_messaging_rabbit] ssl_ca_file, although the broker may then be anybody.",
    )
]
"""Of the group `bus`."""

DEFAULTS = {
    # Notice within this many seconds that a broker is gone without a word: as soon as a call's own heartbeat does.
    "heartbeat_timeout_threshold": 30,
    # The longest pause between two attempts to connect again, in seconds.
    "rabbit_interval_max": 5,
}
"""Options of GROUP that differ from oslo.messaging's own defaults."""

_AMQP_PORT = 5672
_BROKER_TIMEOUT = 5.0
"""Seconds to wait for each of a broker's answers."""

_LOGIN_HOLDS = 60.0
"""Seconds for which a login that worked is taken to work still, unless the broker takes no connection."""

_logged_in: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
"""For each transport, when a login worked last."""


def transport(conf: Any) -> Any:
    """The RPC transport that `[DEFAULT] transport_url` names; EMBEDDED when it names none.

    Refused (`bus_settings`) when TLS is asked for, but would not be verified, or its files cannot be used.
    """
    import oslo_messaging

    for group, options in list_opts():
        conf.register_opts(options, group=group)
    conf.set_default("transport_url", EMBEDDED)
    for name, value in DEFAULTS.items():
        conf.set_default(name, value, group=GROUP)
    settings = _settings(conf)
    # RabbitMQ has neither a quorum queue that deletes itself nor one that is mirrored the old way.
    quorum = not settings.amqp_auto_delete and not settings.rabbit_ha_queues
    conf.set_default("rabbit_quorum_queue", quorum, group=GROUP)
    _check_tls(settings, allow_unverified=conf.bus.allow_unverified_tls)
    return oslo_messaging.get_rpc_transport(conf)


def list_opts() -> list[tuple[str | None, list[Any]]]:
    """Our own options of the bus, and oslo.messaging's, by group."""
    from oslo_messaging import opts

    return [("bus", [*OPTIONS]), *opts.list_opts()]


def is_embedded(conf: Any) -> bool:
    """Whether the bus ends in this process, so that the service must run in it too. Call transport() first."""
    return str(conf.transport_url).startswith(EMBEDDED)


def require_broker(transport: Any) -> None:
    """Returns when one of the transport's brokers lets us in; oslo.messaging itself tries for ever.

    Unreachable (`bus_unreachable`) when none takes connections; Refused when one does, but refuses the login
    (`bus_authentication_failed`), has another certificate than we trust (`bus_certificate_mismatch`), or speaks TLS
    where we do not, or the other way round (`bus_tls_mismatch`).
    """
    import oslo_messaging

    url = oslo_messaging.TransportURL.parse(transport.conf)
    if not url.hosts:
        return
    known = time.monotonic() - _logged_in.get(transport, float("-inf")) < _LOGIN_HOLDS
    settings = _settings(transport.conf)
    found: list[Unsuccessful] = []
    for host in url.hosts:
        try:
            if known:
                _connect(host)
            else:
                _log_in(host, url.virtual_host, settings)
        except Unsuccessful as error:
            found.append(error)
        else:
            if not known:
                _logged_in[transport] = time.monotonic()
            return
    _logged_in.pop(transport, None)
    # A broker that answers, if only by a refusal, tells more than one that does not.
    raise next((error for error in found if isinstance(error, Refused)), found[0])


def _settings(conf: Any) -> Any:
    """The options of GROUP as the driver has them: the transport URL's own, `?ssl=true`, come first."""
    import oslo_messaging
    from oslo_messaging._drivers.common import ConfigOptsProxy

    return getattr(ConfigOptsProxy(conf, oslo_messaging.TransportURL.parse(conf), GROUP), GROUP)


def _check_tls(settings: Any, *, allow_unverified: bool) -> None:
    if not settings.ssl:
        return
    if not settings.ssl_ca_file and not allow_unverified:
        # Any authority's signature for any name would do then.
        raise Refused(
            "bus_settings",
            f"[{GROUP}] ssl is on without ssl_ca_file, so the broker could be anybody: "
            "set ssl_ca_file, or [bus] allow_unverified_tls if that is meant",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if settings.ssl_ca_file:
        try:
            context.load_verify_locations(settings.ssl_ca_file)
        except OSError:
            raise Refused("bus_settings", f"[{GROUP}] ssl_ca_file is no readable PEM file of certificates") from None
    if settings.ssl_cert_file:
        try:
            context.load_cert_chain(settings.ssl_cert_file, settings.ssl_key_file or None)
        except OSError:
            raise Refused(
                "bus_settings", f"[{GROUP}] ssl_cert_file and ssl_key_file are no readable PEM files that fit together"
            ) from None


def _connect(host: Any) -> None:
    """Unreachable unless the broker takes a connection."""
    try:
        socket.create_connection((host.hostname, host.port or _AMQP_PORT), _BROKER_TIMEOUT).close()
    except OSError:
        raise _unreachable() from None


def _log_in(host: Any, virtual_host: str | None, settings: Any) -> None:
    """Log in and out again. Unreachable, or Refused, when that does not work."""
    import amqp  # type: ignore[import-untyped]
    from oslo_utils.netutils import escape_ipv6

    connection = amqp.Connection(
        f"{escape_ipv6(host.hostname)}:{host.port or _AMQP_PORT}",
        host.username or "",
        host.password or "",
        login_method=settings.rabbit_login_method,
        virtual_host=virtual_host or "/",
        ssl=_tls(settings, host.hostname),
        connect_timeout=_BROKER_TIMEOUT,
        read_timeout=_BROKER_TIMEOUT,
        write_timeout=_BROKER_TIMEOUT,
    )
    try:
        connection.connect()
    except amqp.exceptions.AccessRefused:
        raise Refused("bus_authentication_failed", "the message bus refuses the login") from None
    except (amqp.exceptions.NotAllowed, amqp.exceptions.NotFound):
        raise Refused(
            "bus_authentication_failed", "the message bus does not let this user into the virtual host"
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise Refused(
            "bus_certificate_mismatch", f"the message bus has a certificate that is not trusted: {error.verify_message}"
        ) from None
    except ssl.SSLEOFError:
        # As it ends, too, when it is just being stopped.
        if settings.ssl_cert_file:
            raise _unreachable() from None
        raise Refused(
            "bus_tls_mismatch", f"the message bus ended TLS; does it ask for a certificate, [{GROUP}] ssl_cert_file?"
        ) from None
    except ssl.SSLError as error:
        raise Refused("bus_tls_mismatch", f"TLS with the message bus fails: {error.reason or 'no reason'}") from None
    except (OSError, amqp.exceptions.AMQPError) as error:
        if not settings.ssl and not isinstance(error, socket.timeout) and _speaks_tls(host):
            raise Refused("bus_tls_mismatch", f"the message bus expects TLS: set [{GROUP}] ssl") from None
        raise _unreachable() from None
    connection.close()


def _speaks_tls(host: Any) -> bool:
    """Whether the broker greets as TLS does. Nothing is sent to it, so it may be anybody."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host.hostname, host.port or _AMQP_PORT), _BROKER_TIMEOUT) as plain:
            context.wrap_socket(plain).close()
            return True
    except OSError:
        return False


def _tls(settings: Any, hostname: str) -> dict[str, Any] | bool:
    """As oslo.messaging connects. Always with the broker's name, which it leaves out where it has no authorities."""
    if not settings.ssl:
        return False
    if not settings.ssl_ca_file:
        return True
    return {
        "ca_certs": settings.ssl_ca_file,
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": hostname,
        "certfile": settings.ssl_cert_file or None,
        "keyfile": settings.ssl_key_file or None,
    }


def _unreachable() -> Unreachable:
    return Unreachable("bus_unreachable", "the message bus cannot be reached")
