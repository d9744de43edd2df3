"""The network adapters, through iphlpapi."""

# ruff: noqa: E402 - the checks of types are to stop where Windows is not
from __future__ import annotations

import sys

assert sys.platform == "win32", "this module calls Windows"

import ctypes
import ipaddress
from collections.abc import Iterator
from ctypes import wintypes

from .api import Adapter
from .calls_win32 import check

_ERROR_BUFFER_OVERFLOW = 111
_ERROR_NO_DATA = 232

_FLAGS = 0x2 | 0x4 | 0x8
"""GAA_FLAG_SKIP_ANYCAST, _MULTICAST and _DNS_SERVER, iptypes.h."""

_AF_UNSPEC, _AF_INET, _AF_INET6 = 0, 2, 23
_IF_OPER_STATUS_UP = 1

_FIRST_SIZE = 16384
"""Bytes: what the documentation of GetAdaptersAddresses advises, and somewhat more than that."""

_ATTEMPTS = 3
"""Adapters may appear between the call that tells the size and the next one."""


class _SocketAddress(ctypes.Structure):
    _fields_ = [("sockaddr", ctypes.c_void_p), ("length", ctypes.c_int)]


class _UnicastAddress(ctypes.Structure):
    """The beginning of IP_ADAPTER_UNICAST_ADDRESS_LH."""


_UnicastAddress._fields_ = [
    ("length", wintypes.ULONG),
    ("flags", wintypes.DWORD),
    ("next", ctypes.POINTER(_UnicastAddress)),
    ("address", _SocketAddress),
]


class _AdapterAddresses(ctypes.Structure):
    """The beginning of IP_ADAPTER_ADDRESSES_LH."""


_AdapterAddresses._fields_ = [
    ("length", wintypes.ULONG),
    ("index", wintypes.DWORD),
    ("next", ctypes.POINTER(_AdapterAddresses)),
    ("adapter_name", ctypes.c_char_p),
    ("first_unicast", ctypes.POINTER(_UnicastAddress)),
    ("first_anycast", ctypes.c_void_p),
    ("first_multicast", ctypes.c_void_p),
    ("first_dns_server", ctypes.c_void_p),
    ("dns_suffix", ctypes.c_wchar_p),
    ("description", ctypes.c_wchar_p),
    ("friendly_name", ctypes.c_wchar_p),
    ("physical_address", ctypes.c_ubyte * 8),
    ("physical_address_length", wintypes.ULONG),
    ("flags", wintypes.ULONG),
    ("mtu", wintypes.ULONG),
    ("type", wintypes.DWORD),
    ("oper_status", ctypes.c_int),
]


def adapters() -> list[Adapter]:
    """Those that IP is bound to, by GetAdaptersAddresses."""
    function = ctypes.WinDLL("iphlpapi").GetAdaptersAddresses
    function.argtypes = [
        wintypes.ULONG,
        wintypes.ULONG,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.POINTER(wintypes.ULONG),
    ]
    function.restype = wintypes.ULONG
    size = wintypes.ULONG(_FIRST_SIZE)
    for _ in range(_ATTEMPTS):
        buffer = ctypes.create_string_buffer(size.value)
        number = function(_AF_UNSPEC, _FLAGS, None, buffer, ctypes.byref(size))
        if number != _ERROR_BUFFER_OVERFLOW:
            break
    if number == _ERROR_NO_DATA:
        return []
    check("GetAdaptersAddresses", number)
    return [_adapter(found) for found in _walk(_AdapterAddresses.from_buffer(buffer))]


def _walk(first: _AdapterAddresses) -> Iterator[_AdapterAddresses]:
    found = first
    while True:
        yield found
        if not found.next:
            return
        found = found.next.contents


def _adapter(found: _AdapterAddresses) -> Adapter:
    addresses = []
    unicast = found.first_unicast
    while unicast:
        addresses.append(_address(unicast.contents.address))
        unicast = unicast.contents.next
    return Adapter(
        found.friendly_name or "",
        bytes(found.physical_address)[: found.physical_address_length],
        found.type,
        found.oper_status == _IF_OPER_STATUS_UP,
        tuple(address for address in addresses if address),
    )


def _address(socket_address: _SocketAddress) -> str:
    """From a sockaddr_in or sockaddr_in6; empty for another family."""
    content = ctypes.string_at(socket_address.sockaddr, socket_address.length)
    family = int.from_bytes(content[:2], "little")
    if family == _AF_INET:
        return str(ipaddress.IPv4Address(content[4:8]))
    if family == _AF_INET6:
        return str(ipaddress.IPv6Address(content[8:24]))
    return ""
