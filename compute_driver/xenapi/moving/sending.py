"""VM.pool_migrate and VM.migrate_send: carried out to their end, given up without progress, and found out if lost."""

from __future__ import annotations

import time
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import SplitResult, urlsplit

import XenAPI

from agent_protocol.outcomes import Failed, Outcome, Refused, Unsuccessful

from ...errors import InstanceNotFound, ObjectGone, XenServerCertificateMismatch, XenServerFailure
from ..connection.session import LOGOUT_TIMEOUT, XenServer
from ..connection.tls import is_loopback
from ..connection.transport import LOST, NotConnected, Transport
from ..guests import vms
from ..guests.vms import VM

MOVE_TIMEOUT = 24 * 3600.0
"""Seconds for a move with all of its disks."""

STALL_TIMEOUT = 900.0
"""Seconds without any progress after which a move is given up. The last passes over a busy guest's memory show none."""

SETTLE_TIMEOUT = 60.0
"""Seconds that a call may go on whose answer was lost, before the VM shows that it is being moved."""

_OPERATIONS = frozenset({"pool_migrate", "migrate_send"})


class Stall:
    """Is set once there was no progress for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._latest = time.monotonic()

    def report(self, done: float) -> None:
        """There was some."""
        del done
        self._latest = time.monotonic()

    def is_set(self) -> bool:
        """Whether it took too long."""
        return time.monotonic() - self._latest > self._seconds


def is_under_way(vm: VM) -> bool:
    """Whether XenServer is moving it."""
    return not _OPERATIONS.isdisjoint(vm.operations)


def carry_out(server: XenServer, vm: VM, method: str, *arguments: Any, reached: Callable[[VM], bool]) -> None:
    """Move a VM by one call.

    reached: whether the VM is where it was to go; asked when the answer was lost. A VM that is gone has left its pool.
    Failed with `migration_stalled` without progress; other errors as of XenServer.run().
    """
    stall = Stall(STALL_TIMEOUT)
    try:
        server.run(method, vm.ref, *arguments, timeout=MOVE_TIMEOUT, progress=stall.report, cancelled=stall)
    except Unsuccessful as error:
        if error.outcome is Outcome.UNKNOWN:
            try:
                if reached(_at_rest(server, vm, method)):
                    return
            except ObjectGone:
                return
        elif stall.is_set() and isinstance(error, XenServerFailure) and error.details[0] == "TASK_CANCELLED":
            raise Failed("migration_stalled", "the guest was not moved: XenServer made no progress") from None
        raise


def send(
    server: XenServer,
    vm: VM,
    destination: Mapping[str, str],
    *,
    live: bool,
    disks: Mapping[str, str],
    networks: Mapping[str, str],
    reached: Callable[[VM], bool],
) -> None:
    """Send a VM with its disks, once XenServer said that it can be sent.

    destination: what receive() gave. disks: every one (a VDI), and its repository there; networks: likewise, by VIF.
    reached, errors: as of carry_out().
    """
    options: dict[str, str] = {}
    arguments = (dict(destination), live, dict(disks), dict(networks), options)
    server.call("VM.assert_can_migrate", vm.ref, *arguments)
    carry_out(server, vm, "VM.migrate_send", *arguments, reached=reached)


def _at_rest(server: XenServer, vm: VM, method: str) -> VM:
    """The VM once nobody moves it any more. ObjectGone when it has left its pool."""

    def is_over(untrusted_record: Mapping[str, Any]) -> bool:
        return untrusted_record["status"] not in ("pending", "cancelling")

    deadline = time.monotonic() + SETTLE_TIMEOUT
    for ref, record in server.call("task.get_all_records").items():
        # One of those of this name may be that whose reference we never got.
        if record["name_label"] in (method, f"Async.{method}") and not is_over(record):
            with suppress(ObjectGone):
                server.events.wait_for("task", ref, is_over, max(0.0, deadline - time.monotonic()))
    if is_under_way(vms.again(server, vm)):
        server.events.wait_for(
            "VM", vm.ref, lambda row: _OPERATIONS.isdisjoint(row["current_operations"].values()), STALL_TIMEOUT
        )
    return vms.again(server, vm)


# Where to


def receive(server: XenServer, host: str) -> dict[str, str]:
    """What VM.migrate_send needs to send a VM to a host (a ref). It holds a session: a secret."""
    for pif in server.call("PIF.get_all_records").values():
        if pif["host"] == host and pif["management"]:
            untrusted_answer = server.call("host.migrate_receive", host, pif["network"], {})
            return {str(key): str(value) for key, value in untrusted_answer.items()}
    raise Refused("no_management_interface", "the node has no network interface that guests could be sent to")


@contextmanager
def received(server: XenServer, host: str) -> Iterator[dict[str, str]]:
    """The same for a host of this pool; its session ends with the block."""
    destination = receive(server, host)
    try:
        yield destination
    finally:
        _log_out(server, server.members.coordinator, destination.get("session_id", ""))


@contextmanager
def lent(server: XenServer, find: Callable[[], VM], destination: Mapping[str, str]) -> Iterator[None]:
    """While the VM that `find` gives is sent to another pool. destination: what receive() there gave, empty for none.

    The session there ends with the block, unless XenServer is still sending, if our rule for certificates lets us ask
    for that; over plain HTTP on this machine only. Where it is not ended, XenServer does that when it was idle long.
    """
    try:
        yield
    except Unsuccessful as error:
        if error.outcome is not Outcome.UNKNOWN or _is_over(find):
            _let_go(server, destination)
        raise
    _let_go(server, destination)


def _is_over(find: Callable[[], VM]) -> bool:
    try:
        return not is_under_way(find())
    except InstanceNotFound:
        return True
    except Unsuccessful:
        return False


def _let_go(server: XenServer, destination: Mapping[str, str]) -> None:
    try:
        url = urlsplit(destination["master"])
        is_near = is_loopback(str(url.hostname))
    except (KeyError, ValueError):
        return
    _log_out(server, url if is_near else url._replace(scheme="https"), destination.get("session_id", ""))


def _log_out(server: XenServer, url: SplitResult, session: str) -> None:
    transport = Transport(server.trust, url, lambda *_: None)
    transport.deadline = time.monotonic() + LOGOUT_TIMEOUT
    # The answer does not matter: XenServer forgets idle sessions by itself.
    try:
        xmlrpc.client.ServerProxy(f"{url.scheme}://{url.netloc}", transport=transport).session.logout(session)
    except (XenAPI.Failure, xmlrpc.client.Fault, XenServerCertificateMismatch, NotConnected, *LOST):
        pass
    finally:
        transport.close()
