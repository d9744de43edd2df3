"""Hosts in and out of service: whether they take guests, are emptied for maintenance, go down and come up."""

from __future__ import annotations

import logging
from typing import Any

from agent_protocol.outcomes import Outcome, Refused, Unknown, Unsuccessful, Unsupported, unsuccessful

from ...errors import ObjectGone
from ...fencing import LeaseLost
from ...states import PowerState
from ..connection.cache import INSTANCE_KEY
from ..connection.session import XenServer
from ..guests import vms
from ..guests.vms import VM
from ..moving import disks as moves
from ..moving import sending
from ..parts import Parts
from . import nodes

LOG = logging.getLogger(__name__)

POWER_ACTIONS = ("shutdown", "reboot", "startup")

POWER_TIMEOUT = 1200.0
"""Seconds for a host to go down or to come up; servers check their memory for minutes before they boot."""


def set_enabled(server: XenServer, node: str, enabled: bool) -> None:
    """Let a node take new guests, or not. XenServer itself lets it take guests again when it restarts."""
    server.call("host.enable" if enabled else "host.disable", nodes.find(server, node))


def leave(server: XenServer, node: str) -> None:
    """Let a node take guests again."""
    set_enabled(server, node, True)


def enter(parts: Parts, node: str) -> None:
    """Let a node take no more guests, and move those away live that it has, whoever made them.

    A disk of a guest that is in the node's own storage goes along. When a guest cannot be moved, those that were come
    back, the node takes guests again if it did before, and the error (`guest_not_moved`) names the guest.
    """
    server = parts.server
    host = nodes.find(server, node)
    was_enabled = bool(server.call("host.get_enabled", host))
    server.call("host.disable", host)
    moved: list[str] = []
    try:
        while guests := _guests(server, host):
            for vm, name in guests:
                if vm.power_state is not PowerState.RUNNING:
                    raise _not_moved(name, Refused("", f"it is {vm.power_state.word}"))
            for vm, name in guests:
                _leave_host(parts, vm, name, host)
                moved.append(vm.ref)
    except LeaseLost:
        raise
    except BaseException as error:
        left = _take_back(parts, host, moved, enable=was_enabled)
        if left and isinstance(error, Unsuccessful):
            raise unsuccessful(error.outcome, error.code, f"{error.message}; {'; '.join(left)}") from None
        raise


def _guests(server: XenServer, host: str) -> list[tuple[VM, str]]:
    """What runs on a host now, control domains aside, and what it is called."""
    found = []
    for ref in server.call("host.get_resident_VMs", host):
        try:
            record = server.call("VM.get_record", ref)
        except ObjectGone:
            continue
        if not record["is_control_domain"]:
            instance = str(record["other_config"].get(INSTANCE_KEY, ""))
            name = f"instance {instance}" if instance else f"VM {record['name_label']!r}"
            found.append((vms.described(str(ref), record, instance), name))
    return found


def _leave_host(parts: Parts, vm: VM, name: str, host: str) -> None:
    error: Unsuccessful = Refused("", "no other host can run it")
    for other in _candidates(parts.server, vm, host):
        try:
            _move(parts, vm, other)
            return
        except ObjectGone:
            # It shut itself down and was destroyed meanwhile.
            return
        except LeaseLost:
            raise
        except Unsuccessful as reason:
            error = reason
            now = vms.again(parts.server, vm)
            if now.host != host and now.power_state in (PowerState.RUNNING, PowerState.SHUTDOWN):
                return
            if reason.outcome is Outcome.UNKNOWN:
                break
    raise _not_moved(name, error) from None


def _not_moved(name: str, error: Unsuccessful) -> Unsuccessful:
    return unsuccessful(error.outcome, "guest_not_moved", f"{name} was not moved: {error.message}")


def _candidates(server: XenServer, vm: VM, host: str) -> list[str]:
    """Where the guest may go, the best first: hosts that see all that it needs, then by free memory."""
    possible = set(server.call("VM.get_possible_hosts", vm.ref))
    usable = []
    for ref, record in server.call("host.get_all_records").items():
        if ref != host and record["enabled"] and server.call("host_metrics.get_live", record["metrics"]):
            usable.append((ref in possible, int(server.call("host.compute_free_memory", ref)), str(ref)))
    return [ref for is_possible, _, ref in sorted(usable, reverse=True) if is_possible or vm.instance]


def _move(parts: Parts, vm: VM, host: str) -> None:
    if vm.instance:
        vm = moves.settle(parts, vm)
        moves.move(parts, vm, moves.plan(parts, vm, host), live=True)
        return

    def is_there(now: VM) -> bool:
        return now.host == host

    # A guest of somebody else's: what it has in the host's own storage is not ours to copy.
    sending.carry_out(parts.server, vm, "VM.pool_migrate", host, {}, reached=is_there)


def _take_back(parts: Parts, host: str, moved: list[str], *, enable: bool) -> list[str]:
    """Make the node what it was, as far as that is possible; what could not be done, in words."""
    server, left = parts.server, []
    if enable:
        try:
            server.call("host.enable", host)
        except Unsuccessful as error:
            left.append(f"the node takes no guests ({error.code})")
    for ref in moved if enable else ():
        try:
            record: dict[str, Any] = server.call("VM.get_record", ref)
            vm = vms.described(ref, record, str(record["other_config"].get(INSTANCE_KEY, "")))
            if vm.power_state is PowerState.RUNNING and vm.host != host:
                _move(parts, vm, host)
        except ObjectGone:
            continue
        except Unsuccessful as error:
            LOG.error("VM %s was moved away and could not be moved back: %s", ref, error)
            left.append(f"{record['name_label']!r} could not be moved back ({error.code})")
    return left


# Power


def power_action(server: XenServer, node: str, action: str) -> None:
    """`shutdown`, `reboot` or `startup` of a node.

    The first two are refused unless it takes no guests and has none, and for the pool's coordinator, with which the API
    would go. shutdown and startup end when XenServer saw it go or come, reboot when the host began it.
    """
    if action not in POWER_ACTIONS:
        raise Refused("bad_power_action", f"a node's power action is {', '.join(POWER_ACTIONS)}")
    host = nodes.find(server, node)
    record = server.call("host.get_record", host)
    if action == "startup":
        _start_up(server, node, host, record)
        return
    if record["enabled"] or _guests(server, host):
        raise Refused("node_not_in_maintenance", f"the node {node} takes or has guests; put it into maintenance first")
    if server.call("pool.get_master", server.call("pool.get_all")[0]) == host:
        raise Refused("node_is_coordinator", f"the node {node} is the pool's coordinator; make another one that first")
    server.run(f"host.{action}", host, timeout=POWER_TIMEOUT)
    if action == "shutdown":
        _await_life(server, node, record["metrics"], live=False)


def _start_up(server: XenServer, node: str, host: str, untrusted_record: dict[str, Any]) -> None:
    metrics = untrusted_record["metrics"]
    if server.call("host_metrics.get_live", metrics):
        return
    if not untrusted_record["power_on_mode"]:
        raise Unsupported(
            "power_on_not_configured",
            f"XenServer was not told how to switch the node {node} on (xe host-set-power-on-mode)",
        )
    server.run("host.power_on", host, timeout=POWER_TIMEOUT)
    _await_life(server, node, metrics, live=True)


def _await_life(server: XenServer, node: str, metrics: str, *, live: bool) -> None:
    if server.events.wait_for("host_metrics", metrics, lambda row: bool(row["live"]) == live, POWER_TIMEOUT) is None:
        state = "up" if live else "down"
        raise Unknown("node_state_unknown", f"XenServer does not see yet that the node {node} is {state}")
