"""Networks. Source: ocaml/xapi/xapi_network.ml."""

from __future__ import annotations

import itertools
from typing import Any

from .. import errors
from ..generic import constructor_fields
from ..state import Context
from .table import call

_RESERVED_BRIDGES = ("xen", "xapi", "vif", "tap", "eth")
_MAX_BRIDGE = 15
"""IFNAMSIZ without its final NUL."""

_CONFLICTS = {"nbd": "insecure_nbd", "insecure_nbd": "nbd"}
"""No network may have the one purpose while any has the other."""

_INTERNAL = "is_host_internal_management_network"
_ETHERNET_MTU = 1500


@call("network.create")
def create(context: Context, args: dict[str, Any]) -> str:
    """A network, with the bridge that is named or the next free one."""
    database = context.database
    fields = constructor_fields(context.state.model, "network", args)
    if fields.get("MTU", _ETHERNET_MTU) <= 0:
        fields["MTU"] = _ETHERNET_MTU
    with database.exclusively():
        used = {record["bridge"] for record in database.snapshots("network").values()}
        bridge = fields.get("bridge", "")
        if not bridge:
            bridge = next(name for name in (f"xapi{n}" for n in itertools.count()) if name not in used)
        elif len(bridge) > _MAX_BRIDGE or bridge.startswith(_RESERVED_BRIDGES):
            raise errors.invalid_value("bridge", bridge)
        elif bridge in used:
            raise errors.ApiError("BRIDGE_NAME_EXISTS", bridge)
        return database.create("network", **{**fields, "bridge": bridge})


@call("network.pool_introduce")
def pool_introduce(
    context: Context,
    name_label: str,
    name_description: str,
    mtu: int,
    other_config: dict[str, str],
    bridge: str,
    managed: bool,
    purpose: list[str],
) -> str:
    """A network that is there already; nothing is checked."""
    return context.database.create(
        "network",
        name_label=name_label,
        name_description=name_description,
        MTU=mtu,
        other_config=other_config,
        bridge=bridge,
        managed=managed,
        purpose=purpose,
    )


@call("network.destroy")
def destroy(context: Context, self: str) -> None:
    """Remove a network that nothing is attached to, with the VIFs of halted VMs."""
    database = context.database
    record = database.record("network", self)
    attached = [vif for vif in record["VIFs"] if database.get("VIF", vif, "currently_attached")]
    if attached:
        raise errors.ApiError("NETWORK_CONTAINS_VIF", *attached)
    if record["PIFs"]:
        raise errors.ApiError("NETWORK_CONTAINS_PIF", *record["PIFs"])
    if record["other_config"].get(_INTERNAL) == "true":
        raise errors.ApiError("CANNOT_DESTROY_SYSTEM_NETWORK", self)
    for vif in record["VIFs"]:
        database.destroy("VIF", vif)
    database.destroy("network", self)


@call("network.attach")
def attach(context: Context, network: str, host: str) -> None:
    """Bring a network up on a host."""
    database = context.database
    database.record("host", host)
    for pif in database.get("network", network, "PIFs"):
        if database.get("PIF", pif, "host") == host:
            database.set("PIF", pif, currently_attached=True)


@call("network.set_default_locking_mode")
def set_default_locking_mode(context: Context, network: str, value: str) -> None:
    """Set what VIFs with the locking mode network_default do; none may be attached."""
    database = context.database
    for vif in database.get("network", network, "VIFs"):
        if database.get("VIF", vif, "currently_attached"):
            raise errors.ApiError("VIF_IN_USE", network, vif)
    database.set("network", network, default_locking_mode=value)


@call("network.add_purpose")
def add_purpose(context: Context, self: str, value: str) -> None:
    """Let a network serve disks over NBD, with or without TLS."""
    database = context.database
    database.record("network", self)
    for record in database.snapshots("network").values():
        if _CONFLICTS[value] in record["purpose"]:
            raise errors.ApiError("NETWORK_INCOMPATIBLE_PURPOSES", value, _CONFLICTS[value])
    database.add_to_set("network", self, "purpose", value)


@call("network.remove_purpose")
def remove_purpose(context: Context, self: str, value: str) -> None:
    """Let a network serve no disks any more."""
    context.database.remove_from_set("network", self, "purpose", value)
