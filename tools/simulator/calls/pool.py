"""The pool and the roles of its hosts. Source: ocaml/xapi/xapi_pool.ml."""

from __future__ import annotations

import socket

from .. import errors, hosts
from ..state import Context
from .table import call

_HTTPS_PORT = 443
_CONNECT_TIMEOUT = 5.0
_LAST_WEEKDAY = 6


@call("pool.join", "pool.join_force")
def join(context: Context, master_address: str, master_username: str, master_password: str) -> None:
    """Join another pool. What the other side would be asked is not done here: it fails where the first request would,
    JOINING_HOST_CONNECTION_FAILED when nobody answers there, JOINING_HOST_SERVICE_FAILED when somebody does."""
    del master_username, master_password
    database = context.database
    if database.count("host") > 1:
        raise errors.ApiError("JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS")
    if any(record["shared"] for record in database.snapshots("SR").values()):
        raise errors.ApiError("JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS")
    for record in database.snapshots("VM").values():
        if record["is_control_domain"]:
            continue
        if record["current_operations"]:
            raise errors.ApiError("JOINING_HOST_CANNOT_HAVE_VMS_WITH_CURRENT_OPERATIONS")
        if record["power_state"] in ("Running", "Paused"):
            raise errors.ApiError("JOINING_HOST_CANNOT_HAVE_RUNNING_VMS")
        if record["power_state"] == "Suspended":
            raise errors.ApiError("JOINING_HOST_CANNOT_HAVE_RUNNING_OR_SUSPENDED_VMS")
    try:
        socket.create_connection((master_address, _HTTPS_PORT), _CONNECT_TIMEOUT).close()
    except (OSError, UnicodeError):
        raise errors.ApiError("JOINING_HOST_CONNECTION_FAILED") from None
    raise errors.ApiError("JOINING_HOST_SERVICE_FAILED")


@call("pool.eject")
def eject(context: Context, host: str) -> None:
    """Put a host out of the pool, with its local storage; the coordinator cannot go.

    A real host begins anew as a pool of its own. Here a process is one pool: the host is switched off.
    """
    record = context.database.record("host", host)
    if host == context.state.coordinator:
        raise errors.operation_not_allowed("Cannot eject the pool coordinator")
    if len(record["resident_VMs"]) > 1:
        raise errors.operation_not_allowed("Cannot eject a host on which VMs run")
    context.state.live_host(host)
    hosts.remove_host(context.state, host)


@call("pool.designate_new_master")
def designate_new_master(context: Context, host: str) -> None:
    """Choose another coordinator; nothing happens when it is the one. All sessions end, the caller's too."""
    hosts.change_coordinator(context.state, host)


@call("pool.emergency_transition_to_master")
def emergency_transition_to_master(context: Context) -> None:
    """Let the host that is called take over from a coordinator that is gone. The others must still be told."""
    hosts.change_coordinator(context.state, context.host.ref)


@call("pool.emergency_reset_master")
def emergency_reset_master(context: Context, master_address: str) -> None:
    """Tell the host that is called where the coordinator is. If it is not there, the host has none."""
    database, coordinator = context.database, context.state.coordinator
    if context.host.ref == coordinator:
        raise errors.operation_not_allowed("This host is the pool coordinator")
    found = master_address == database.get("host", coordinator, "address")
    context.host.is_lost = not (found and context.state.hosts[coordinator].is_up)


@call("pool.recover_slaves")
def recover_slaves(context: Context) -> list[str]:
    """Tell hosts that lost their coordinator where it is; gives those that were told."""
    told = hosts.lost(context.state)
    for host in told:
        host.is_lost = False
    return [host.ref for host in told]


@call("pool.is_slave")
def is_slave(context: Context, host: str) -> bool:
    """Whether that host is no coordinator."""
    context.database.record("host", host)
    return bool(host != context.database.get("pool", context.state.pool, "master"))


@call("pool.sync_database")
def sync_database(context: Context) -> None:
    """Copy the database to all other hosts, which in a simulated pool have it in common."""
    del context


@call("pool.detect_nonhomogeneous_external_auth")
def detect_nonhomogeneous_external_auth(context: Context, pool: str) -> None:
    """Nothing, or an error when hosts authenticate users in different ways."""
    context.database.record("pool", pool)


@call("pool.has_extension")
def has_extension(context: Context, self: str, name: str) -> bool:
    """Whether every host has that extension; none has any."""
    del name
    context.database.record("pool", self)
    return False


@call("pool.get_license_state")
def get_license_state(context: Context, self: str) -> dict[str, str]:
    """The edition that all hosts have, and until when."""
    database = context.database
    return {"edition": database.get("host", database.get("pool", self, "master"), "edition"), "expiry": "never"}


@call("pool.apply_edition")
def apply_edition(context: Context, self: str, edition: str) -> None:
    """Choose a licence for all hosts."""
    database = context.database
    database.record("pool", self)
    for host in database.refs("host"):
        if edition not in database.get("host", host, "editions"):
            raise errors.ApiError("INVALID_EDITION", edition)
        database.set("host", host, edition=edition)


@call("pool.crl_list")
def crl_list(context: Context) -> list[str]:
    """The names of the lists of revoked certificates; none was installed."""
    del context
    return []


@call("pool.configure_update_sync")
def configure_update_sync(context: Context, self: str, update_sync_frequency: str, update_sync_day: int) -> None:
    """Set when updates are looked for: a day of the week, from 0 for Sunday, or daily with day 0."""
    allowed = range(_LAST_WEEKDAY + 1) if update_sync_frequency == "weekly" else range(1)
    if update_sync_day not in allowed:
        raise errors.ApiError("INVALID_UPDATE_SYNC_DAY", str(update_sync_day))
    context.database.set("pool", self, update_sync_frequency=update_sync_frequency, update_sync_day=update_sync_day)


@call("pool.ha_compute_max_host_failures_to_tolerate")
def ha_compute_max_host_failures_to_tolerate(context: Context) -> int:
    """How many hosts may fail while all protected VMs still run elsewhere: none, without high availability."""
    del context
    return 0
