"""VM_guest_metrics, as xapi derives them from what a guest writes into XenStore.

Source: ocaml/xapi/xapi_guest_agent.ml for the fields, ocaml/xenopsd/xc/xenops_server_xen.ml for the nodes that are read
and how deep.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent_protocol.xenstore import Client, StoreError

from .domain import CONNECTED

_READ = (("control", 1), ("feature/hotplug", 1), ("attr", 4), ("xenserver/attr", 4), ("drivers", 1), ("data", 1))
"""Directories below a domain's, and how many levels of each are read. xapi counts from 0, so its 3 are 4 here."""

_NEVER_READ = ("attr/os/hotfixes",)
_SERVICES = "data/service"
_BACKENDS = ("vif", "vbd", "vbd3")

_OS_VERSION = {
    "data/os_name": "name",
    "data/os_uname": "uname",
    "data/os_distro": "distro",
    "data/os_majorver": "major",
    "data/os_minorver": "minor",
    "attr/os/spmajor": "spmajor",
    "attr/os/spminor": "spminor",
}
_DRIVERS = {"MajorVersion": "major", "MinorVersion": "minor", "MicroVersion": "micro", "BuildVersion": "build"}
_TRISTATE = {"1": "yes", "0": "no"}


def read_guest(store: Client, domid: int) -> dict[str, str]:
    """What the guest says about itself: its nodes by their paths below the domain's own directory."""
    base = f"/local/domain/{domid}"
    nodes: dict[str, str] = {}
    for directory, levels in _READ:
        nodes.update(_walk(store, base, directory, levels))
    nodes.update(_walk(store, base, _SERVICES, 2))
    return nodes


def has_drivers(store: Client, domid: int) -> bool:
    """Whether the guest shows that it has Xen's drivers: a device is connected, or its kernel announced itself.

    xapi goes by devices alone. A simulated guest may do without any, but it never boots without drivers.
    """
    for kind in _BACKENDS:
        directory = f"/local/domain/0/backend/{kind}/{domid}"
        if any(_read(store, f"{directory}/{device}/state") == CONNECTED for device in _names(store, directory)):
            return True
    return _read(store, f"/local/domain/{domid}/control/feature-poweroff") == "1"


def read_published(store: Client, domid: int) -> dict[str, str]:
    """VM.xenstore_data as a running guest sees it now: all below `vm-data` and `FIST`, and `vm-data` itself."""
    base = f"/local/domain/{domid}"
    published = {path: value for name in ("vm-data", "FIST") for path, value in _walk(store, base, name, 64)}
    itself = _read(store, f"{base}/vm-data")
    return published if itself is None else {"vm-data": itself, **published}


def _walk(store: Client, base: str, path: str, levels: int) -> Iterator[tuple[str, str]]:
    for name in _names(store, f"{base}/{path}"):
        below = f"{path}/{name}"
        if below in _NEVER_READ:
            continue
        value = _read(store, f"{base}/{below}")
        if value is not None:
            yield below, value
            if levels > 1:
                yield from _walk(store, base, below, levels - 1)


def _names(store: Client, path: str) -> list[str]:
    try:
        return sorted(store.directory(path))
    except StoreError:
        # Gone, or never there: the guest may remove what is its own at any moment.
        return []


def _read(store: Client, path: str) -> str | None:
    try:
        untrusted_value = store.read(path)
    except StoreError:
        return None
    return untrusted_value.decode("utf-8", "replace")


def derive(untrusted_nodes: dict[str, str]) -> dict[str, Any]:
    """The fields of VM_guest_metrics that the guest's own nodes decide."""
    get = untrusted_nodes.get
    host_name = get("data/host_name_dns")
    domain = get("data/domain")
    return {
        "os_version": {name: get(path, "") for path, name in _OS_VERSION.items() if path in untrusted_nodes},
        "netbios_name": {"host_name": f"{host_name}.{domain}" if domain else host_name} if host_name else {},
        "PV_drivers_version": _drivers_version(untrusted_nodes),
        "networks": _networks(untrusted_nodes),
        "other": _other(untrusted_nodes),
        "services": {
            path[len(_SERVICES) + 1 :]: value
            for path, value in untrusted_nodes.items()
            if path.startswith(_SERVICES + "/") and path.count("/") == 3
        },
        "can_use_hotplug_vbd": _TRISTATE.get(get("feature/hotplug/vbd", ""), "unspecified"),
        "can_use_hotplug_vif": _TRISTATE.get(get("feature/hotplug/vif", ""), "unspecified"),
    }


def _drivers_version(nodes: dict[str, str]) -> dict[str, str]:
    version: dict[str, str] = {}
    prefix = "attr/PVAddons/"
    if any(prefix + name in nodes for name in _DRIVERS):
        version = {key: nodes.get(prefix + name, "-1") for name, key in _DRIVERS.items()}
    if prefix + "Application" in nodes:
        version["application"] = nodes[prefix + "Application"]
    for path, value in nodes.items():
        words = value.split()
        # Windows: vendor, name, version, attribute.
        if path.startswith("drivers/") and len(words) >= 3:
            version[words[1].lower()] = words[2]
    return version


def _networks(nodes: dict[str, str]) -> dict[str, str]:
    networks: dict[str, str] = {}
    for path, value in nodes.items():
        parts = path.split("/")
        if parts[:2] == ["attr", "vif"] and len(parts) == 5 and parts[3] in ("ipv4", "ipv6"):
            _add_address(networks, parts[2], parts[3], parts[4], value)
        elif parts[:3] == ["xenserver", "attr", "net-sriov-vf"] and len(parts) == 6 and parts[4] in ("ipv4", "ipv6"):
            _add_address(networks, parts[3], parts[4], parts[5], value)
        elif parts[0] == "attr" and len(parts) >= 3 and parts[1].startswith("eth"):
            if parts[2:] == ["ip"]:
                _add_address(networks, parts[1][3:], "ipv4", "0", value)
            elif parts[2] == "ipv6" and len(parts) == 5 and parts[4] == "addr":
                _add_address(networks, parts[1][3:], "ipv6", parts[3], value)
    return networks


def _add_address(networks: dict[str, str], device: str, family: str, index: str, address: str) -> None:
    networks[f"{device}/{family}/{index}"] = address
    if family == "ipv4":
        # The first one, for clients that know nothing of several.
        networks.setdefault(f"{device}/ip", address)


def _other(nodes: dict[str, str]) -> dict[str, str]:
    other = {path.split("/")[1]: value for path, value in nodes.items() if path.startswith("control/")}
    if nodes.get("data/cant_suspend_reason"):
        other.pop("feature-suspend", None)
        other["data-cant-suspend-reason"] = nodes["data/cant_suspend_reason"]
    if "data/ts" in nodes:
        other["data-ts"] = nodes["data/ts"]
    return other
