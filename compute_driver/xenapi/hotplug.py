"""Plugging devices of VMs that run or are halted, and what a guest can have against it. Never by force."""

from __future__ import annotations

from agent_protocol.outcomes import Refused, Unknown

from ..errors import DetachRejected, HotplugUnsupported, ObjectGone, XenServerFailure
from .connection.session import XenServer

_NAMES = {"VIF": "an interface", "VBD": "a disk"}

_SETTLED = ("Running", "Halted")


def assert_settled(server: XenServer, vm: str) -> None:
    """Refused (`instance_not_settled`) unless the VM (a ref) runs or is halted: no device can be plugged otherwise."""
    state = str(server.call("VM.get_power_state", vm))
    if state not in _SETTLED:
        raise Refused("instance_not_settled", f"the guest is {state.lower()}; devices need it running or shut down")


def plug(server: XenServer, cls: str, device: str, vm: str) -> None:
    """Give a running guest a device; nothing happens when it has it, or when the VM is halted.

    cls: `VIF` or `VBD`. HotplugUnsupported when the guest cannot.
    """
    if server.call("VM.get_power_state", vm) == "Halted":
        # The device is there from its next boot on.
        return
    if server.call(f"{cls}.get_currently_attached", device):
        return
    try:
        server.call(f"{cls}.plug", device)
    except XenServerFailure as failure:
        if failure.details[0] != "DEVICE_ALREADY_ATTACHED" and not _is_halted(failure):
            raise _explained(failure, cls) from None


def unplug(server: XenServer, cls: str, device: str) -> None:
    """Take a device from a running guest; nothing happens when it does not have it, as that of a halted VM.

    DetachRejected when the guest does not let go of it; Unknown (`detach_timeout`) when it did not answer in time, and
    may still let go; HotplugUnsupported when it cannot.
    """
    try:
        if not server.call(f"{cls}.get_currently_attached", device):
            return
        server.call(f"{cls}.unplug", device)
    except ObjectGone:
        return
    except XenServerFailure as failure:
        if failure.details[0] != "DEVICE_ALREADY_DETACHED" and not _is_halted(failure):
            raise _explained(failure, cls) from None


def _is_halted(failure: XenServerFailure) -> bool:
    # VM_BAD_POWER_STATE, <vm>, <expected>, <actual>: it went down meanwhile.
    return failure.details[0] == "VM_BAD_POWER_STATE" and failure.details[-1] == "halted"


def _explained(failure: XenServerFailure, cls: str) -> Exception:
    code, *parameters = failure.details
    if code == "DEVICE_DETACH_REJECTED":
        # DEVICE_DETACH_REJECTED, <type>, <ref>, <message>
        return DetachRejected(_NAMES[cls], parameters[-1] if len(parameters) > 2 else "it gives no reason")
    if code == "DEVICE_DETACH_TIMEOUT":
        return Unknown("detach_timeout", f"the guest did not let go of {_NAMES[cls]} in time; it may still do so")
    if code == "VM_MISSING_PV_DRIVERS" or (code == "OPERATION_NOT_ALLOWED" and "hotplug" in parameters[-1]):
        return HotplugUnsupported(_NAMES[cls])
    return failure
