"""The name of a Windows guest, which changes with a reboot; and whether it waits for one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent_protocol.outcomes import Failed, Refused

from .api import CallError, Machine, Registry
from .errors import failures

if TYPE_CHECKING:
    from ..hostname import HostName

MAX_NETBIOS = 15
"""Characters of the NetBIOS name: MAX_COMPUTERNAME_LENGTH. Windows makes it of the first ones of the host name."""

_CONTROL = "SYSTEM\\CurrentControlSet\\Control"
_TCPIP = "SYSTEM\\CurrentControlSet\\Services\\Tcpip\\Parameters"
_NEXT_NETBIOS = (_CONTROL + "\\ComputerName\\ComputerName", "ComputerName")
_ACTIVE_NETBIOS = (_CONTROL + "\\ComputerName\\ActiveComputerName", "ComputerName")
_NEXT_HOSTNAME = (_TCPIP, "NV Hostname")
_ACTIVE_HOSTNAME = (_TCPIP, "Hostname")

_REBOOT_KEYS = (
    "SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\RebootPending",
    "SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\WindowsUpdate\\Auto Update\\RebootRequired",
)
"""They are there while the servicing of components, or Windows Update, waits for a reboot."""

_RENAMES = (_CONTROL + "\\Session Manager", ("PendingFileRenameOperations", "PendingFileRenameOperations2"))
"""What is to be renamed or removed at the next boot (MoveFileEx)."""

_log = logging.getLogger(__name__)


def hostname(machine: Machine) -> str:
    """The name that is in use."""
    with failures():
        return machine.hostname()


def set_hostname(machine: Machine, registry: Registry, name: HostName) -> None:
    """Make this the name from the next boot on, and read back that it will be. It stays in use as it is until then.

    Of a name with more than MAX_NETBIOS characters the NetBIOS name is the beginning; the log says so.

    Refused: `bad_hostname` for a name with a domain, which Windows keeps elsewhere, in a setting that the agent does
    not have; `domain_member`, because a domain's member is renamed through its domain. Failed (`hostname_failed`).
    """
    if name.short != name.value:
        raise Refused("bad_hostname", "the name of a Windows guest is given without its domain")
    with failures():
        if machine.in_domain():
            raise Refused("domain_member", "this guest is a member of a domain, and is renamed through that")
    netbios = name.value[:MAX_NETBIOS].upper()
    if len(name.value) > MAX_NETBIOS:
        _log.warning("the NetBIOS name will be %s: it has at most %d characters", netbios, MAX_NETBIOS)
    try:
        machine.set_hostname(name.value)
        kept = (_next_hostname(registry), registry.value(*_NEXT_NETBIOS))
    except CallError as error:
        raise Failed("hostname_failed", str(error)) from None
    if kept != (name.value, netbios):
        raise Failed("hostname_failed", "Windows took the name, and keeps another one for the next boot nevertheless")


def _next_hostname(registry: Registry) -> object:
    """Without a value of its own, the one that is in use stays (Wine has it so)."""
    name = registry.value(*_NEXT_HOSTNAME)
    return registry.value(*_ACTIVE_HOSTNAME) if name is None else name


def reboot_pending(registry: Registry) -> bool:
    """Whether Windows waits for a reboot: for a new name, for an update, or to replace files that are in use."""
    with failures():
        key, names = _RENAMES
        return (
            _differs(registry.value(*_NEXT_HOSTNAME), registry.value(*_ACTIVE_HOSTNAME))
            or _differs(registry.value(*_NEXT_NETBIOS), registry.value(*_ACTIVE_NETBIOS))
            or any(registry.has_key(reboot_key) for reboot_key in _REBOOT_KEYS)
            or any(_is_filled(registry.value(key, name)) for name in names)
        )


def _differs(next_one: object, active: object) -> bool:
    return next_one is not None and active is not None and next_one != active


def _is_filled(renames: object) -> bool:
    return isinstance(renames, list) and any(renames)
