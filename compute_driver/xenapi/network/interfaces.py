"""The interfaces of VMs: VIFs, made and removed while the guest runs or not, locked to their addresses.

A VIF of ours names its port in other_config. Everything can be asked for again: what is done already stays as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agent_protocol.outcomes import Busy, Refused

from ...errors import LockingUnlicensed, ObjectGone, XenServerFailure
from ...network import Address, Interface
from .. import hotplug
from ..connection.session import XenServer
from ..guests.vms import VM
from ..undo import Undo
from .networks import Networks

LOG = logging.getLogger(__name__)

PORT_KEY = "xenward:port"
"""Key in VIF.other_config that holds the port's id."""

_ATTEMPTS = 5
"""How often a device number is chosen anew because somebody else took it."""

_DEFAULT_MODE, _LOCKED = "network_default", "locked"


@dataclass(frozen=True)
class Attached:
    """A VIF. port: None for one that this driver did not make. device: its number. plugged: whether a guest has it."""

    ref: str
    port: str | None
    mac: str
    device: str
    network: str
    plugged: bool


class Interfaces:
    """The interfaces of all VMs of a pool.

    allow_unlocked: whether an interface that should be locked is attached without that, and a warning, when
    XenServer's licence does not have it. Otherwise that is LockingUnlicensed.
    """

    def __init__(self, server: XenServer, networks: Networks, *, allow_unlocked: bool = False) -> None:
        self._server = server
        self._networks = networks
        self._allow_unlocked = allow_unlocked

    def of_vm(self, vm: VM) -> list[Attached]:
        """All VIFs of a VM, in the order of their devices."""
        found = []
        for ref in self._server.call("VM.get_VIFs", vm.ref):
            record = self._server.call("VIF.get_record", ref)
            found.append(
                Attached(
                    ref=ref,
                    port=record["other_config"].get(PORT_KEY),
                    mac=record["MAC"].lower(),
                    device=record["device"],
                    network=record["network"],
                    plugged=record["currently_attached"],
                )
            )
        return sorted(found, key=lambda it: int(it.device))

    def attach(self, vm: VM, interface: Interface) -> None:
        """Give a VM that is halted or runs an interface; nothing happens when it has one with this MAC address.

        Leaves it attached, or nothing and the error. NetworkNotFound, NetworkAmbiguous, LockingUnlicensed,
        HotplugUnsupported; Refused with `instance_not_settled` in another power state, with `no_free_device` when it
        has all the interfaces that it can have, with `port_attached` when the port has another MAC address there.
        """
        hotplug.assert_settled(self._server, vm.ref)
        known = self._known(vm, interface)
        if known is not None:
            hotplug.plug(self._server, "VIF", known.ref, vm.ref)
            return
        with Undo() as undo:
            with self._networks.held(interface) as network, _network_kept(network):
                undo.add("the interface's network", lambda: self._networks.release(network))
                undo.add(f"the interface {interface.mac}", lambda: self._remove_made(vm, interface))
                vif = self._create(vm, interface, network)
            # From here on the interface itself keeps the network.
            hotplug.plug(self._server, "VIF", vif, vm.ref)

    def _known(self, vm: VM, interface: Interface) -> Attached | None:
        for it in self.of_vm(vm):
            if it.mac == interface.mac:
                return it
            if it.port == interface.id:
                raise Refused("port_attached", f"port {interface.id} is attached with another MAC address")
        return None

    def _create(self, vm: VM, interface: Interface, network: str) -> str:
        mtu = self._server.call("network.get_MTU", network) if interface.mtu is None else str(interface.mtu)
        record = {
            "VM": vm.ref,
            "network": network,
            "MAC": interface.mac,
            "MTU": mtu,
            "other_config": {PORT_KEY: interface.id},
            "qos_algorithm_type": "",
            "qos_algorithm_params": {},
            **_locking(interface.locked, interface),
        }
        try:
            return self._create_numbered(vm, record)
        except XenServerFailure as failure:
            if failure.details[0] != "LICENCE_RESTRICTION" or not interface.locked:
                raise
            self._warn_or_raise(interface.mac)
        return self._create_numbered(vm, {**record, **_locking(False, interface)})

    def _create_numbered(self, vm: VM, record: dict[str, Any]) -> str:
        failure: XenServerFailure | None = None
        for _ in range(_ATTEMPTS):
            free = self._server.call("VM.get_allowed_VIF_devices", vm.ref)
            if not free:
                raise Refused("no_free_device", "the VM has as many interfaces as it can have")
            try:
                return str(self._server.call("VIF.create", {**record, "device": min(free, key=int)}))
            except XenServerFailure as error:
                if error.details[0] != "DEVICE_ALREADY_EXISTS":
                    raise
                failure = error
        assert failure is not None
        raise failure

    def _warn_or_raise(self, mac: str) -> None:
        if not self._allow_unlocked:
            raise LockingUnlicensed from None
        LOG.warning("interface %s is not locked to its addresses: XenServer's licence does not have that", mac)

    def _remove_made(self, vm: VM, interface: Interface) -> None:
        for it in self.of_vm(vm):
            if it.port == interface.id and it.mac == interface.mac:
                self._remove(it)

    def detach(self, vm: VM, interface: Interface) -> None:
        """Take an interface from a VM, found by its port's id or its MAC address; nothing happens when it has none.

        DetachRejected when the running guest does not let go of it: then it stays. HotplugUnsupported, Unknown with
        `detach_timeout` when the guest did not answer: it may still let go. Ask again after any error. The network goes
        with its last interface if this driver made it for a VLAN.
        """
        for it in self.of_vm(vm):
            if it.port == interface.id or it.mac == interface.mac:
                hotplug.assert_settled(self._server, vm.ref)
                self._remove(it)
                self._networks.release(it.network)
        # What an earlier call left of it.
        self._networks.release_vlan(interface)

    def _remove(self, vif: Attached) -> None:
        hotplug.unplug(self._server, "VIF", vif.ref)
        try:
            self._server.call("VIF.destroy", vif.ref)
        except ObjectGone:
            return

    def set_allowed_addresses(self, vm: VM, port_or_mac: str, addresses: Sequence[Address] | None) -> None:
        """Let an interface use these addresses only, from now on; None lifts that, as far as the network allows it.

        Refused with `interface_not_found`; LockingUnlicensed. What was before is put back when it fails halfway.
        """
        for it in self.of_vm(vm):
            if port_or_mac.lower() in (it.mac, (it.port or it.mac).lower()):
                self._lock(it, addresses)
                return
        raise Refused("interface_not_found", "the VM has no such interface")

    def _lock(self, vif: Attached, addresses: Sequence[Address] | None) -> None:
        record = self._server.call("VIF.get_record", vif.ref)
        wanted = {
            "ipv4_allowed": [str(address) for address in addresses or () if address.version == 4],
            "ipv6_allowed": [str(address) for address in addresses or () if address.version == 6],
            "locking_mode": _DEFAULT_MODE if addresses is None else _LOCKED,
        }
        # The lock comes last and goes first: in between the guest never loses an address that it may use.
        order = list(wanted) if addresses is not None else list(reversed(wanted))
        try:
            with Undo() as undo:
                for field in order:
                    undo.add(f"the {field} of {vif.mac}", self._setter(vif.ref, field, record[field]))
                    self._server.call(f"VIF.set_{field}", vif.ref, wanted[field])
        except XenServerFailure as failure:
            if failure.details[0] != "LICENCE_RESTRICTION":
                raise
            self._warn_or_raise(vif.mac)

    def _setter(self, vif: str, field: str, value: Any) -> Any:
        return lambda: self._server.call(f"VIF.set_{field}", vif, value)


def _locking(locked: bool, interface: Interface) -> dict[str, Any]:
    if not locked:
        return {"locking_mode": _DEFAULT_MODE, "ipv4_allowed": [], "ipv6_allowed": []}
    return {
        "locking_mode": _LOCKED,
        "ipv4_allowed": [str(address) for address in interface.usable_addresses(4)],
        "ipv6_allowed": [str(address) for address in interface.usable_addresses(6)],
    }


@contextmanager
def _network_kept(network: str) -> Iterator[None]:
    """Busy when another process removes the network meanwhile."""
    try:
        yield
    except ObjectGone as error:
        if network not in error.details:
            raise
        raise Busy("network_gone", "the network was removed at this moment; try again") from None
