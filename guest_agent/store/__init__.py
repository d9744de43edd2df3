"""How this guest reaches XenStore: a unix socket, Linux's device, or one of the two interfaces of Windows's drivers."""

from __future__ import annotations

from pathlib import Path

from agent_protocol.xenstore import connect

from .base import Store

__all__ = ["WINDOWS", "XENBUS", "XENBUS_DEVICES", "Store", "check_store", "open_store", "store_path"]

XENBUS = "xenbus"
"""The device of a Linux guest."""

XENBUS_DEVICES = ("/dev/xen/xenbus", "/proc/xen/xenbus")
"""Where Linux shows a guest its XenStore: the device, and the file of older kernels, in this order."""

WINDOWS = "windows"
"""Whichever of a Windows guest's interfaces answers."""

_OF_WINDOWS = (WINDOWS, "xeniface", "wmi")
"""What windows.open_windows_store() knows."""

_UNIX = "unix:"


def check_store(where: str) -> str:
    """`where` itself, when it names a store: `unix:PATH`, `xenbus`, `xeniface`, `wmi`, or `windows`. ValueError
    otherwise."""
    if where not in _OF_WINDOWS:
        store_path(where)
    return where


def store_path(where: str) -> str:
    """The socket or device that `where` names: `unix:PATH`, or `xenbus`. ValueError for anything else."""
    if where == XENBUS:
        return next((device for device in XENBUS_DEVICES if Path(device).exists()), XENBUS_DEVICES[0])
    if where.startswith(_UNIX) and len(where) > len(_UNIX):
        return where[len(_UNIX) :]
    raise ValueError("a store is unix:PATH or xenbus, and in a Windows guest xeniface, wmi or windows")


def open_store(where: str) -> Store:
    """A connection to the store that `where` names. ValueError as check_store, StoreClosed when nothing answers there:
    for `windows` it tells why each of the interfaces did not."""
    if where in _OF_WINDOWS:
        # Only here: no other guest has any use for it.
        from .windows import open_windows_store

        return open_windows_store(where)
    return connect(store_path(where))
