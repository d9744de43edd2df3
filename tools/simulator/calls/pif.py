"""Physical interfaces and VLANs. Source: ocaml/xapi/xapi_pif.ml and xapi_vlan.ml."""

from __future__ import annotations

import ipaddress
from typing import Any

from .. import errors
from ..model import NULL_REF
from ..state import Context
from .table import call

_VLAN_MAC = "fe:ff:ff:ff:ff:ff"
"""The address that xapi writes down for every VLAN's interface."""

_MAX_TAG = 4094
"""Of 802.1Q; 4095 is reserved."""


@call("VLAN.create")
def vlan_create(context: Context, tagged_pif: str, tag: int, network: str) -> str:
    """A VLAN on an interface, with an interface of its own on the network, which is brought up."""
    database = context.database
    parent = database.record("PIF", tagged_pif)
    database.record("network", network)
    if not parent["managed"]:
        raise errors.ApiError("PIF_UNMANAGED", tagged_pif)
    with database.exclusively():
        for pif in database.get("network", network, "PIFs"):
            if database.get("PIF", pif, "host") == parent["host"]:
                raise errors.ApiError("NETWORK_ALREADY_CONNECTED", parent["host"], pif)
        if parent["VLAN"] >= 0:
            raise errors.ApiError("PIF_IS_VLAN", tagged_pif)
        if not 0 <= tag <= _MAX_TAG:
            raise errors.ApiError("VLAN_TAG_INVALID", str(tag))
        if any(database.get("VLAN", vlan, "tag") == tag for vlan in parent["VLAN_slave_of"]):
            raise errors.ApiError("PIF_VLAN_EXISTS", parent["device"])
        vlan = database.create("VLAN", tagged_PIF=tagged_pif, tag=tag)
        untagged = database.create(
            "PIF",
            device=parent["device"],
            network=network,
            host=parent["host"],
            MAC=_VLAN_MAC,
            MTU=parent["MTU"],
            VLAN=tag,
            metrics=parent["metrics"],
            VLAN_master_of=vlan,
            physical=False,
            currently_attached=True,
            managed=True,
        )
        database.set("VLAN", vlan, untagged_PIF=untagged)
    return vlan


@call("VLAN.destroy")
def vlan_destroy(context: Context, self: str) -> None:
    """Remove a VLAN and its interface."""
    database = context.database
    untagged = database.get("VLAN", self, "untagged_PIF")
    if database.exists("PIF", untagged):
        unplug(context, untagged)
        database.destroy("PIF", untagged)
    database.destroy("VLAN", self)


@call("VLAN.pool_introduce")
def vlan_pool_introduce(
    context: Context, tagged_pif: str, untagged_pif: str, tag: int, other_config: dict[str, str]
) -> str:
    """A VLAN that is there already; nothing is checked."""
    return context.database.create(
        "VLAN", tagged_PIF=tagged_pif, untagged_PIF=untagged_pif, tag=tag, other_config=other_config
    )


@call("PIF.create_VLAN")
def create_vlan(context: Context, device: str, network: str, host: str, vlan: int) -> str:
    """The older form of VLAN.create; gives the VLAN's interface."""
    database = context.database
    found = [pif for pif in database.get("host", host, "PIFs") if _is_physical(context, pif, device)]
    if not found:
        raise errors.ApiError("PIF_DEVICE_NOT_FOUND")
    untagged: str = database.get("VLAN", vlan_create(context, found[0], vlan, network), "untagged_PIF")
    return untagged


def _is_physical(context: Context, pif: str, device: str) -> bool:
    record = context.database.snapshot("PIF", pif)
    return bool(record["physical"] and record["device"] == device)


@call("pool.create_VLAN")
def pool_create_vlan(context: Context, device: str, network: str, vlan: int) -> list[str]:
    """A VLAN on that device of every host; gives the VLANs' interfaces."""
    return [create_vlan(context, device, network, host, vlan) for host in context.database.refs("host")]


@call("pool.create_VLAN_from_PIF")
def pool_create_vlan_from_pif(context: Context, pif: str, network: str, vlan: int) -> list[str]:
    """A VLAN on every host's interface of the network that the given one is on; gives the VLANs' interfaces."""
    database = context.database
    pifs = database.get("network", database.get("PIF", pif, "network"), "PIFs")
    vlans = [vlan_create(context, tagged, vlan, network) for tagged in pifs]
    return [database.get("VLAN", created, "untagged_PIF") for created in vlans]


@call("PIF.plug")
def plug(context: Context, self: str) -> None:
    """Bring an interface up; nothing happens when it is."""
    if not context.database.get("PIF", self, "managed"):
        raise errors.ApiError("PIF_UNMANAGED", self)
    context.database.set("PIF", self, currently_attached=True)


@call("PIF.unplug")
def unplug(context: Context, self: str) -> None:
    """Take an interface down that no running VM uses; nothing happens when it is."""
    database = context.database
    record = database.record("PIF", self)
    if not record["managed"]:
        raise errors.ApiError("PIF_UNMANAGED", self)
    if record["management"] and record["currently_attached"]:
        raise errors.ApiError("PIF_IS_MANAGEMENT_INTERFACE", self)
    if record["disallow_unplug"]:
        raise errors.ApiError("PIF_DOES_NOT_ALLOW_UNPLUG", self)
    for vif in database.get("network", record["network"], "VIFs"):
        if database.get("VIF", vif, "currently_attached"):
            raise errors.ApiError("VIF_IN_USE", record["network"], vif)
    database.set("PIF", self, currently_attached=False)


@call("PIF.destroy")
def destroy(context: Context, self: str) -> None:
    """The older form of VLAN.destroy, by the VLAN's interface."""
    record = context.database.record("PIF", self)
    if record["VLAN"] < 0:
        raise errors.ApiError("PIF_IS_PHYSICAL", self)
    vlan_destroy(context, record["VLAN_master_of"])


@call("PIF.forget")
def forget(context: Context, self: str) -> None:
    """Drop what is known of a physical interface."""
    database = context.database
    record = database.record("PIF", self)
    if record["VLAN_slave_of"] or record["VLAN"] >= 0:
        raise errors.ApiError("PIF_VLAN_STILL_EXISTS", self)
    unplug(context, self)
    if database.exists("PIF_metrics", record["metrics"]):
        database.destroy("PIF_metrics", record["metrics"])
    database.destroy("PIF", self)


@call("PIF.introduce")
def introduce(context: Context, host: str, mac: str, device: str, managed: bool) -> str:
    """A physical interface of a host. A simulated host has no hardware to be found besides what is known."""
    del managed
    database = context.database
    if any(_is_physical(context, pif, device) for pif in database.get("host", host, "PIFs")):
        raise errors.ApiError("DUPLICATE_PIF_DEVICE_NAME", device)
    raise errors.ApiError(
        "COULD_NOT_FIND_NETWORK_INTERFACE_WITH_SPECIFIED_DEVICE_NAME_AND_MAC_ADDRESS", device, mac.lower()
    )


@call("PIF.scan")
def scan(context: Context, host: str) -> None:
    """Look for new hardware; a simulated host never has any."""
    context.database.record("host", host)


@call("PIF.set_property")
def set_property(context: Context, self: str, name: str, value: str) -> None:
    """Set a property that the interface has."""
    properties = context.database.get("PIF", self, "properties")
    if name not in properties:
        raise errors.invalid_value("properties", name)
    context.database.set("PIF", self, properties={**properties, name: value})


@call("PIF.reconfigure_ip")
def reconfigure_ip(context: Context, self: str, mode: str, ip: str, netmask: str, gateway: str, dns: str) -> None:
    """Set an interface's own IPv4 address. The simulator itself stays where it is."""
    _check(mode, {"IP": ip, "netmask": netmask}, {"gateway": gateway}, dns, 4)
    _assert_not_management(context, self, mode)
    is_static = mode == "Static"
    context.database.set(
        "PIF",
        self,
        ip_configuration_mode=mode,
        IP=ip if is_static else "",
        netmask=netmask if is_static else "",
        gateway=gateway if is_static else "",
        DNS=dns if is_static else "",
    )


@call("PIF.reconfigure_ipv6")
def reconfigure_ipv6(context: Context, self: str, mode: str, ipv6: str, gateway: str, dns: str) -> None:
    """Set an interface's own IPv6 address, with its prefix length."""
    if mode == "Static":
        try:
            ipaddress.IPv6Interface(ipv6)
        except ValueError:
            raise errors.ApiError("INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6") from None
    _check(mode, {}, {"gateway": gateway}, dns, 6)
    is_static = mode == "Static"
    changes: dict[str, Any] = {"DNS": dns} if dns else {}
    context.database.set(
        "PIF",
        self,
        ipv6_configuration_mode=mode,
        IPv6=[ipv6] if is_static else [],
        ipv6_gateway=gateway if is_static else "",
        **changes,
    )


def _check(mode: str, needed: dict[str, str], optional: dict[str, str], dns: str, version: int) -> None:
    if mode != "Static":
        return
    given = {**needed, **{name: value for name, value in optional.items() if value}}
    servers = [("DNS", server.strip()) for server in dns.split(",") if server.strip()]
    for name, value in [*given.items(), *servers]:
        try:
            right = name == "DNS" or ipaddress.ip_address(value).version == version
            ipaddress.ip_address(value)
        except ValueError:
            right = False
        if not right:
            raise errors.ApiError("INVALID_IP_ADDRESS_SPECIFIED", name)


def _assert_not_management(context: Context, pif: str, mode: str) -> None:
    # Without an address nobody would reach the host any more.
    if context.database.get("PIF", pif, "management") and mode == "None":
        raise errors.ApiError("PIF_IS_MANAGEMENT_INTERFACE", pif)


@call("PIF.db_introduce", "PIF.pool_introduce")
def db_introduce(context: Context, *values: Any) -> str:
    """An interface that is there already; nothing is checked."""
    parameters = context.state.model.signatures["PIF.db_introduce"].parameters
    fields = {parameter.name: value for parameter, value in zip(parameters, values, strict=True)}
    if not context.database.exists("VLAN", fields["VLAN_master_of"]):
        fields["VLAN_master_of"] = NULL_REF
    return context.database.create("PIF", metrics=context.database.create("PIF_metrics"), **fields)


@call("PIF.db_forget")
def db_forget(context: Context, self: str) -> None:
    """Drop what is known of an interface; nothing is checked."""
    context.database.destroy("PIF", self)
