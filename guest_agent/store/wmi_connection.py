"""What the WMI classes of XENIFACE are asked, and what their errors mean.

Source: win-xeniface 9.1, src/xeniface.mof and src/xeniface/wmi.c. Nothing here talks to WMI.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

PREFIXES = ("Citrix", "XenProject")
"""How the names of the classes begin: drivers of XenServer and XCP-ng, drivers of the Xen project."""

MAX_WATCHES = 63
"""Watches of a session: MAX_WATCH_COUNT of wmi.c."""

_GONE = {
    0x80010108: "the object was disconnected",  # RPC_E_DISCONNECTED
    0x800401FD: "the object is not connected",  # CO_E_OBJNOTCONNECTED
    0x800706BA: "the WMI service is not available",  # RPC_S_SERVER_UNAVAILABLE
    0x800706BE: "the WMI service failed",  # RPC_S_CALL_FAILED
    0x800706BF: "the WMI service failed",  # RPC_S_CALL_FAILED_DNE
    0x80041009: "the driver's data is not available",  # WBEM_E_NOT_AVAILABLE
    0x8004100C: "the driver is not there",  # WBEM_E_NOT_SUPPORTED
    0x8004100E: "there is no such namespace",  # WBEM_E_INVALID_NAMESPACE
    0x80041010: "there is no such class",  # WBEM_E_INVALID_CLASS
    0x80041015: "the connection to WMI broke",  # WBEM_E_TRANSPORT_FAILURE
    0x80041033: "WMI is shutting down",  # WBEM_E_SHUTTING_DOWN
}
"""Errors after which nothing more can be had from this connection."""

_CODES = {
    0x80070005: "EACCES",  # E_ACCESSDENIED
    0x80041003: "EACCES",  # WBEM_E_ACCESS_DENIED
    0x80041006: "ENOMEM",  # WBEM_E_OUT_OF_MEMORY
    0x80041008: "EINVAL",  # WBEM_E_INVALID_PARAMETER
}
"""Those that say by themselves what is wrong. What a missing node, an empty one and a session that is gone end with
depends on how WMI maps the driver's status, and is the same for several of them."""


class WmiError(Exception):
    """Raised when WMI fails. hresult: the code, as a positive number."""

    def __init__(self, hresult: int) -> None:
        super().__init__(f"WMI error {hresult:#010x}")
        self.hresult = hresult


class WmiConnection(Protocol):
    """A connection to the namespace root\\wmi, for the one thread that opened it. Every method may raise WmiError."""

    def add_session(self, prefix: str, name: str) -> int:
        """Begin a session that everybody sees under `name`: its number."""

    def sessions(self, prefix: str) -> list[tuple[int, str]]:
        """Number and name of all sessions, whoever began them."""

    def call(self, prefix: str, session: int, method: str, arguments: Mapping[str, str]) -> Mapping[str, object]:
        """Call a method of a session: what it gives back, by name. A list of nodes is a list of str."""

    def close(self) -> None:
        """End the connection."""


class WmiEvents(Protocol):
    """The watch events of all sessions, for the one thread that asked for them. Every method may raise WmiError."""

    def next(self, timeout: float) -> str | None:
        """The path of the watch that fired (EventId), None after `timeout` seconds."""

    def close(self) -> None:
        """Ask for no more."""


class WmiService(Protocol):
    """WMI, as a thread finds it. Both may raise WmiError."""

    def connect(self) -> WmiConnection:
        """A connection for the thread that calls."""

    def subscribe(self, prefix: str) -> WmiEvents:
        """The events for the thread that calls. Those of the first moments may be missing."""


def gone(error: WmiError) -> str | None:
    """Why the connection is gone with this error, None when it is not."""
    reason = _GONE.get(error.hresult)
    return None if reason is None else f"WMI: {reason} ({error})"


def errno_name(error: WmiError) -> str | None:
    """The name of the errno that this error stands for, None when it does not tell."""
    return _CODES.get(error.hresult)
