"""Networks of the pool: found by their names, or made for a VLAN, for all hosts, when nobody has made one yet."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agent_protocol.outcomes import Busy, Refused

from ...errors import NetworkAmbiguous, NetworkNotFound, ObjectGone, XenServerFailure
from ...network import Interface, NetworkName
from ..connection.session import XenServer
from ..turns import Turns
from ..undo import Undo

LOG = logging.getLogger(__name__)

MADE_KEY = "xenward:made"
"""Key in other_config of what this driver made, and removes when nobody uses it any more. Its value is unique."""

VLAN_KEY = "xenward:vlan"
"""Key in other_config of a network that this driver made: the uuid of its trunk, and the tag."""

_ATTEMPTS = 6
_FIRST_WAIT = 0.05
"""Seconds before another look at a VLAN that somebody else is making at the same moment; doubled each time."""

_TAKEN = ("PIF_VLAN_EXISTS", "VLAN_IN_USE", "NETWORK_ALREADY_CONNECTED")
"""Somebody else made the VLAN, or a part of it, in the meantime (xapi_vlan.ml, xapi_network_attach_helpers.ml)."""


def connect(server: XenServer, vm: str) -> None:
    """Give the VM (a ref) one interface, on the first network (by bridge) that reaches a physical interface."""
    networks = server.call("network.get_all_records")
    wired = sorted((record["bridge"], ref) for ref, record in networks.items() if record["PIFs"])
    if not wired:
        raise XenServerFailure(["NETWORK_NOT_FOUND"])
    _, network = wired[0]
    server.call(
        "VIF.create",
        {
            "VM": vm,
            "network": network,
            "device": "0",
            "MAC": "",
            "MTU": "1500",
            "other_config": {},
            "qos_algorithm_type": "",
            "qos_algorithm_params": {},
        },
    )


def find(server: XenServer, name: NetworkName) -> str:
    """The reference of the network of that name. NetworkNotFound, NetworkAmbiguous."""
    if name.kind == "uuid":
        try:
            return str(server.call("network.get_by_uuid", name.value))
        except ObjectGone:
            raise NetworkNotFound(name) from None
    if name.kind == "name_label":
        refs = list(server.call("network.get_by_name_label", name.value))
    else:
        records = server.call("network.get_all_records")
        refs = [ref for ref, record in records.items() if record["bridge"] == name.value]
    if not refs:
        raise NetworkNotFound(name)
    if len(refs) > 1:
        raise NetworkAmbiguous(name)
    return str(refs[0])


@dataclass(frozen=True)
class _Vlan:
    """One VLAN on a trunk, as far as it exists. networks: that it leads to, by uuid. missing: PIFs that are without."""

    networks: dict[str, str]
    missing: tuple[str, ...]


class Networks:
    """The networks of one pool, for attaching interfaces to them.

    Two requests never make or remove one VLAN's network together, and neither do two processes make it twice. A
    network that one process removes while another attaches an interface to it is told as `network_gone`.
    """

    def __init__(self, server: XenServer) -> None:
        self._server = server
        self._turns = Turns()

    @contextmanager
    def held(self, interface: Interface) -> Iterator[str]:
        """The reference of an interface's network, which nobody removes meanwhile. It is made if it is a VLAN's.

        release() it when it is not used after all. NetworkNotFound, NetworkAmbiguous; Refused when there is no physical
        interface for a VLAN.
        """
        trunk = find(self._server, interface.network)
        if interface.vlan is None:
            # It may be a VLAN's network itself, named by its uuid.
            with self._turns.of(trunk):
                yield trunk
            return
        with self._turns.of(f"{trunk} {interface.vlan}"):
            network = self._vlan(trunk, interface.vlan)
            with self._turns.of(network):
                yield network

    def release(self, network: str) -> None:
        """Remove a network (a ref) if this driver made it and no interface is attached to it any more."""
        with self._turns.of(network):
            self._remove_if_unused(network)

    def release_vlan(self, interface: Interface) -> None:
        """Remove what is left of the network of an interface's VLAN, on the same terms, also if only half is left."""
        if interface.vlan is None:
            return
        try:
            trunk = find(self._server, interface.network)
        except NetworkNotFound:
            return
        with self._turns.of(f"{trunk} {interface.vlan}"):
            name = _vlan_name(self._server.call("network.get_uuid", trunk), interface.vlan)
            for network, record in self._server.call("network.get_all_records").items():
                if record["other_config"].get(VLAN_KEY) == name:
                    self.release(network)

    def _vlan(self, trunk: str, tag: int) -> str:
        wait = _FIRST_WAIT
        with Undo() as undo:
            for _ in range(_ATTEMPTS):
                found = self._look(trunk, tag)
                if len(found.networks) == 1 and not found.missing:
                    return next(iter(found.networks.values()))
                if not found.networks:
                    self._make(trunk, tag, found.missing[0], undo)
                elif len(found.networks) == 1:
                    self._complete(found, tag)
                else:
                    # Two were being made on different hosts, and one of both is about to be given up.
                    time.sleep(wait)
                    wait *= 2
            if len(self._look(trunk, tag).networks) > 1:
                raise NetworkAmbiguous(f"for VLAN {tag}")
            raise Busy("vlan_busy", f"somebody else changes VLAN {tag} all the time; try again later")

    def _look(self, trunk: str, tag: int) -> _Vlan:
        networks: dict[str, str] = {}
        missing = []
        pifs = [pif for pif in self._server.call("network.get_PIFs", trunk) if self._carries_tags(pif)]
        if not pifs:
            raise Refused("network_without_interface", f"the network has no physical interface for VLAN {tag}")
        for pif in pifs:
            network = self._network_on(pif, tag)
            if network is None:
                missing.append(pif)
            else:
                networks[str(self._server.call("network.get_uuid", network))] = network
        return _Vlan(networks, tuple(missing))

    def _carries_tags(self, pif: str) -> bool:
        return int(self._server.call("PIF.get_VLAN", pif)) < 0

    def _network_on(self, pif: str, tag: int) -> str | None:
        for vlan in self._server.call("PIF.get_VLAN_slave_of", pif):
            try:
                record = self._server.call("VLAN.get_record", vlan)
                if int(record["tag"]) == tag:
                    return str(self._server.call("PIF.get_network", record["untagged_PIF"]))
            except ObjectGone:
                # Removed since a moment ago, or not complete yet.
                continue
        return None

    def _make(self, trunk: str, tag: int, pif: str, undo: Undo) -> None:
        """Make the network and its VLANs, or give way to whoever does the same."""
        token = str(uuid.uuid4())
        trunk_record = self._server.call("network.get_record", trunk)
        record = {
            "name_label": f"VLAN {tag} on {trunk_record['name_label']}",
            "name_description": "",
            "MTU": trunk_record["MTU"],
            "other_config": {MADE_KEY: token, VLAN_KEY: _vlan_name(trunk_record["uuid"], tag)},
            "tags": [],
        }
        undo.add(f"the network of VLAN {tag}", lambda: self._remove_made(token))
        network = str(self._server.call("network.create", record))
        try:
            self._server.call("pool.create_VLAN_from_PIF", pif, network, str(tag))
        except XenServerFailure as failure:
            if failure.details[0] not in _TAKEN:
                raise
            self._give_way(trunk, tag, network)
        else:
            LOG.info("network of VLAN %d made", tag)

    def _give_way(self, trunk: str, tag: int, network: str) -> None:
        """Remove our network unless it is the one that stays: of several, that with the lowest uuid."""
        networks = self._look(trunk, tag).networks
        if not networks or networks[min(networks)] != network:
            self._remove_if_unused(network)

    def _complete(self, found: _Vlan, tag: int) -> None:
        """Make the VLAN on the hosts that lack it: new ones, or those that somebody's failure left out."""
        ((_, network),) = found.networks.items()
        for pif in found.missing:
            try:
                self._server.call("VLAN.create", pif, str(tag), network)
            except XenServerFailure as failure:
                if failure.details[0] not in _TAKEN and not isinstance(failure, ObjectGone):
                    raise

    def _remove_made(self, token: str) -> None:
        for network, record in self._server.call("network.get_all_records").items():
            if record["other_config"].get(MADE_KEY) == token:
                self._remove_if_unused(network)

    def _remove_if_unused(self, network: str) -> None:
        try:
            record = self._server.call("network.get_record", network)
            if MADE_KEY not in record["other_config"] or record["VIFs"]:
                return
            for pif in record["PIFs"]:
                self._server.call("VLAN.destroy", self._server.call("PIF.get_VLAN_master_of", pif))
            # Not before: xapi removes the interfaces of halted VMs together with their network.
            if not self._server.call("network.get_VIFs", network):
                self._server.call("network.destroy", network)
        except ObjectGone:
            # Somebody else was quicker.
            return
        except XenServerFailure as failure:
            if failure.details[0] not in ("VIF_IN_USE", "NETWORK_CONTAINS_VIF", "NETWORK_CONTAINS_PIF"):
                raise


def _vlan_name(trunk_uuid: str, tag: int) -> str:
    return f"{trunk_uuid} {tag}"
