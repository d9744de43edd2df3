"""How a Windows guest's store is chosen: the driver's IOCTLs, else its WMI classes."""

from __future__ import annotations

import logging
from typing import Callable

from agent_protocol.xenstore import StoreClosed

from . import wmi, xeniface
from .base import Store

_log = logging.getLogger(__name__)


OPENERS: dict[str, Callable[[], Store]] = {"xeniface": xeniface.connect, "wmi": wmi.connect}
"""The ways, in the order in which `windows` tries them."""

_told: set[str] = set()


def open_windows_store(where: str) -> Store:
    """A connection to the guest's store: `xeniface`, `wmi`, or `windows` for the first of them that answers.

    StoreClosed tells the reasons of all that were tried; ValueError for another name. What is used is logged once,
    however often the store is lost and found again.
    """
    if where != "windows" and where not in OPENERS:
        raise ValueError("a store of Windows is xeniface, wmi or windows")
    reasons = []
    for name in OPENERS if where == "windows" else [where]:
        try:
            store = OPENERS[name]()
        except StoreClosed as error:
            reasons.append(f"{name}: {error}")
            continue
        if name not in _told:
            _told.add(name)
            _log.info(
                "the store is reached through %s%s", name, "".join(f"; not through {reason}" for reason in reasons)
            )
        return store
    raise StoreClosed("; ".join(reasons))
