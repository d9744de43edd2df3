"""What a Windows guest is, as the agent tells it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from ..distributions import WINDOWS, Distribution
from .api import Adapter, CallError, Machine, Registry
from .errors import failures

WINDOWS_11 = 22000
"""The first build of Windows 11, which calls itself Windows 10 in the registry."""

_VERSION_KEY = "SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion"

# IANA's ifType.
_LOOPBACK = 24
_TUNNEL = 131


def version(machine: Machine) -> str:
    """Such as `10.0.20348`."""
    with failures():
        return ".".join(str(number) for number in machine.version())


def kernel(machine: Machine, registry: Registry) -> str:
    """The version with the number of the last cumulative update (UBR) behind it, such as `10.0.20348.2031`."""
    with failures():
        revision = registry.value(_VERSION_KEY, "UBR")
    return version(machine) + (f".{revision}" if isinstance(revision, int) else "")


def release(machine: Machine, registry: Registry) -> Mapping[str, str]:
    """ID, VERSION_ID and, where the registry has it, PRETTY_NAME, such as `Windows Server 2022 Standard 21H2`."""
    told = {"ID": WINDOWS, "VERSION_ID": version(machine)}
    with failures():
        product = _text(registry, "ProductName")
        # The older ones of Windows 10 have ReleaseId alone, all newer ones `2009` in it.
        feature_release = _text(registry, "DisplayVersion") or _text(registry, "ReleaseId")
        build = machine.version()[2]
    if build >= WINDOWS_11 and product.startswith("Windows 10"):
        product = "Windows 11" + product[len("Windows 10") :]
    if product:
        told["PRETTY_NAME"] = f"{product} {feature_release}".strip()
    return told


def _text(registry: Registry, name: str) -> str:
    value = registry.value(_VERSION_KEY, name)
    return value.strip() if isinstance(value, str) else ""


def distribution(machine: Machine) -> Distribution:
    """Windows, with its version."""
    return Distribution(WINDOWS, version(machine), WINDOWS)


def boot_id(machine: Machine) -> str:
    """The time of the boot in units of 100 ns, in hexadecimal digits. Setting the clock does not change it."""
    with failures():
        return f"{machine.boot_time():016x}"


def interface_names(machine: Machine) -> Mapping[str, Sequence[str]]:
    """The names of the adapters with each MAC address. IP is not bound to the members of a team, so they are not told.

    Adapters that do not work now are told too: their names are needed to change that.
    """
    with failures():
        adapters = machine.adapters()
    names: dict[str, list[str]] = {}
    for adapter in adapters:
        if len(adapter.mac) == 6 and adapter.type not in (_LOOPBACK, _TUNNEL):
            names.setdefault(adapter.mac.hex(":"), []).append(adapter.name)
    return names


def addresses(machine: Machine) -> Sequence[Mapping[str, str]]:
    """Those of adapters that work, but the loopback and link-local ones of both families.

    Empty when the system does not tell: they are a piece of information, not worth an error.
    """
    try:
        adapters = machine.adapters()
    except CallError:
        return []
    return [
        {"interface": adapter.name, "address": address}
        for adapter in adapters
        if adapter.up
        for address in adapter.addresses
        if _is_told(adapter, address)
    ]


def _is_told(adapter: Adapter, address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return adapter.type != _LOOPBACK and not parsed.is_loopback and not parsed.is_link_local
