"""How this guest reaches XenStore."""

from __future__ import annotations

from pathlib import Path

from agent_protocol.xenstore import Client, connect

XENBUS_DEVICES = ("/dev/xen/xenbus", "/proc/xen/xenbus")
"""Where Linux shows a guest its XenStore: the device, and the file of older kernels, in this order."""

_UNIX = "unix:"


def store_path(where: str) -> str:
    """The socket or device that `where` names: `unix:PATH`, or `xenbus`. ValueError for anything else."""
    if where == "xenbus":
        return next((device for device in XENBUS_DEVICES if Path(device).exists()), XENBUS_DEVICES[0])
    if where.startswith(_UNIX) and len(where) > len(_UNIX):
        return where[len(_UNIX) :]
    raise ValueError("a store is unix:PATH or xenbus")


def open_store(where: str) -> Client:
    """A connection to the store that `where` names. ValueError as above, StoreClosed when nothing answers there."""
    return connect(store_path(where))
