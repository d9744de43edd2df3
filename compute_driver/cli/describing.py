"""Volumes, network interfaces and metadata as options describe them, or a file in JSON."""

from __future__ import annotations

import argparse
import hashlib
import uuid
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from agent_protocol.outcomes import Refused

from ..network import Interface, interfaces_from_list
from ..volumes import Volume
from .reading import description, known_password, pair

_NEEDED = {"vdi": ("vdi",), "iscsi": ("host", "iqn", "lun"), "nfs": ("host", "path", "sr", "vdi")}
"""Options that a volume's kind cannot be without."""

_CONNECTION = ("vdi", "host", "port", "iqn", "lun", "chap_user", "path", "sr", "version")
_VOLUME = ("volume", "kind", *_CONNECTION, "chap_password_file", "device", "read_only")
_LISTS = {"address": "addresses", "dns": "dns", "search": "search", "allowed_address": "allowed_addresses"}
_PLAIN = ("id", "mac", "vlan", "mtu", "dhcp4", "dhcp6", "locked")
_INTERFACE = (*_PLAIN, *_LISTS, "network", "bridge", "gateway", "route")

_OURS = uuid.UUID("6b0e1c5e-6a0c-4c39-8f67-3f6a2f2f4d0b")
"""Namespace of the uuids that follow from an order's id."""


def add_volume_options(parser: argparse.ArgumentParser) -> None:
    """Declare a volume."""
    parser.add_argument("volume", nargs="?", help="the volume's id, as the cloud calls it")
    parser.add_argument("--description", metavar="FILE", help="all of the volume in JSON, - for standard input")
    parser.add_argument("--kind", choices=list(_NEEDED), help="how it is reached")
    parser.add_argument("--vdi", metavar="UUID", help="vdi, nfs: the virtual disk")
    parser.add_argument("--host", help="iscsi, nfs: the server")
    parser.add_argument("--port", type=int, help="iscsi: TCP port (default: 3260)")
    parser.add_argument("--iqn", help="iscsi: name of the target")
    parser.add_argument("--lun", type=int, metavar="N", help="iscsi: the logical unit")
    parser.add_argument("--chap-user", metavar="USER", help="iscsi: user for CHAP; the password is asked for")
    parser.add_argument("--chap-password-file", metavar="FILE", help="iscsi: read it from FILE, - for standard input")
    parser.add_argument("--path", help="nfs: what the server exports")
    parser.add_argument("--sr", metavar="UUID", help="nfs: the storage repository there")
    parser.add_argument("--nfs-version", dest="version", metavar="VERSION", help="nfs: 3, 4 or 4.1")
    parser.add_argument("--device", help="as xvdb, or a number (default: the next free one)")
    parser.add_argument("--read-only", action="store_true", help="the guest cannot write to it")


def volume(parsed: argparse.Namespace) -> Volume:
    """The volume. Refused (`bad_volume`, `bad_json`, `unreadable_file`, `no_password`)."""
    if parsed.description is not None:
        _refuse_both(parsed, _VOLUME, "bad_volume")
        return described_volume(parsed.description)
    if parsed.volume is None or parsed.kind is None:
        raise Refused("bad_volume", "a volume needs its id and --kind, or --description")
    needed = _NEEDED[parsed.kind]
    if any(getattr(parsed, name) is None for name in needed):
        raise Refused("bad_volume", f"--kind {parsed.kind} needs {', '.join(f'--{name}' for name in needed)}")
    connection = {name: getattr(parsed, name) for name in _CONNECTION if getattr(parsed, name) is not None}
    if parsed.kind == "vdi":
        connection["uuid"] = connection.pop("vdi")
    if parsed.chap_user is not None:
        told = known_password(parsed.chap_password_file, "CHAP password", "--chap-password-file")
        connection["chap_password"] = told.value
    elif parsed.chap_password_file is not None:
        raise Refused("bad_volume", "--chap-password-file needs --chap-user")
    return Volume.from_dict(
        {
            "id": parsed.volume,
            "kind": parsed.kind,
            "connection": connection,
            "device": parsed.device,
            "read_only": parsed.read_only,
        }
    )


def described_volume(file: str) -> Volume:
    """The volume that a file describes in JSON, as Volume.to_dict gives it. Errors as of volume()."""
    return Volume.from_dict(description(file))


def has_password(volume: Volume) -> bool:
    """Whether the volume's description holds a secret."""
    return volume.to_dict(secrets=True) != volume.to_dict()


def add_interface_options(parser: argparse.ArgumentParser) -> None:
    """Declare a network interface."""
    parser.add_argument("--description", metavar="FILE", help="all of the interface in JSON, - for standard input")
    parser.add_argument("--id", help="of the port, as the cloud calls it (default: made up)")
    parser.add_argument("--mac", help="MAC address (default: made up)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--network", metavar="NETWORK", help="uuid or name of the network")
    where.add_argument("--bridge", help="the network's bridge")
    parser.add_argument("--vlan", type=int, metavar="N", help="attach it to this VLAN on the network's interfaces")
    parser.add_argument("--mtu", type=int, metavar="BYTES", help="(default: the network's own)")
    _add_list(parser, "--address", "ADDRESS/PREFIX", "a static address")
    _add_list(parser, "--gateway", "ADDRESS", "of the default route, at most one of each family")
    _add_list(parser, "--route", "NETWORK=GATEWAY", "a further route")
    _add_list(parser, "--dns", "ADDRESS", "a DNS server")
    _add_list(parser, "--search", "DOMAIN", "a search domain")
    parser.add_argument("--dhcp4", action="store_true", help="get IPv4 addresses by DHCP")
    parser.add_argument("--dhcp6", action="store_true", help="get IPv6 addresses by DHCP")
    parser.add_argument("--locked", action="store_true", help="the host lets the guest use no other addresses")
    _add_list(parser, "--allowed-address", "ADDRESS", "locked: a further address that it may use")


def _add_list(parser: argparse.ArgumentParser, option: str, metavar: str, what: str) -> None:
    parser.add_argument(option, action="append", metavar=metavar, help=f"{what}; may be repeated")


def interface(parsed: argparse.Namespace, order_id: str) -> Interface:
    """The interface. Refused (`bad_interface`, `bad_json`, `unreadable_file`).

    order_id: what is not told follows from it, so that an order which is sent again is about the same interface.
    """
    if parsed.description is not None:
        _refuse_both(parsed, _INTERFACE, "bad_interface")
        return Interface.from_dict(_completed(description(parsed.description), order_id))
    told = {name: getattr(parsed, name) for name in _PLAIN}
    told.update({member: getattr(parsed, option) for option, member in _LISTS.items()})
    if parsed.bridge is not None:
        told["network"] = {"bridge": parsed.bridge}
    elif parsed.network is not None:
        told["network"] = _network(parsed.network)
    else:
        raise Refused("bad_interface", "an interface needs --network or --bridge, or --description")
    told["routes"] = [_route(argument) for argument in parsed.route or ()]
    for gateway in parsed.gateway or ():
        member = f"gateway{_version(gateway)}"
        if member in told:
            raise Refused("bad_interface", "there is one --gateway of each family")
        told[member] = gateway
    return Interface.from_dict(_completed(told, order_id))


def known_interfaces(file: str) -> list[dict[str, Any]]:
    """All interfaces that an instance has, from a list in JSON, for the bus."""
    return [it.to_dict() for it in interfaces_from_list(description(file))]


def new_interfaces(file: str, order_id: str) -> list[dict[str, Any]]:
    """All interfaces of an instance to be, from a list in JSON, for the bus. order_id: as of interface()."""
    return _new(description(file), order_id)


def interfaces_on(networks: Sequence[str], order_id: str) -> list[dict[str, Any]]:
    """An interface with DHCP for IPv4 on each of these networks, for the bus. order_id: as of interface()."""
    return _new([{"network": _network(network), "dhcp4": True} for network in networks], order_id)


def _new(untrusted: Any, order_id: str) -> list[dict[str, Any]]:
    if isinstance(untrusted, list):
        untrusted = [_completed(entry, f"{order_id} {number}") for number, entry in enumerate(untrusted)]
    return [it.to_dict() for it in interfaces_from_list(untrusted)]


def instance_uuid(order_id: str) -> str:
    """The uuid of the instance that an order creates."""
    return str(uuid.uuid5(_OURS, order_id))


def properties(arguments: Sequence[str]) -> dict[str, str]:
    """Metadata out of arguments KEY=VALUE. Refused (`bad_property`)."""
    return dict(pair(argument, "KEY=VALUE", "bad_property") for argument in arguments)


def _completed(untrusted: Any, seed: str) -> Any:
    """The description with an id and a locally administered MAC address, if it has none."""
    if not isinstance(untrusted, dict):
        return untrusted
    completed = dict(untrusted)
    if completed.get("id") is None:
        completed["id"] = str(uuid.uuid5(_OURS, f"interface {seed}"))
    if completed.get("mac") is None:
        completed["mac"] = "02:" + hashlib.sha256(f"mac {seed}".encode()).digest()[:5].hex(":")
    return completed


def _network(name: str) -> dict[str, str]:
    try:
        is_uuid = str(uuid.UUID(name)) == name
    except ValueError:
        is_uuid = False
    return {"uuid" if is_uuid else "name_label": name}


def _route(argument: str) -> dict[str, str]:
    to, via = pair(argument, "NETWORK=GATEWAY", "bad_interface")
    return {"to": to, "via": via}


def _version(address: str) -> int:
    try:
        return ip_address(address).version
    except ValueError:
        raise Refused("bad_interface", "--gateway takes an IP address") from None


def _refuse_both(parsed: argparse.Namespace, names: Sequence[str], code: str) -> None:
    given = [getattr(parsed, name) for name in names]
    if any(value is not None and value is not False for value in given):
        raise Refused(code, "--description tells it all: no other option beside it")
