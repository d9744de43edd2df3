"""The named errors of the cloud's side: what can be wrong with an instance, the database or XenServer.

Each is one of the outcomes with a fixed code, so the manager, the bus and the command line treat them all alike.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from agent_protocol.outcomes import Busy, Failed, Outcome, Refused, Unknown, Unreachable, Unsupported


class InstanceNotFound(Refused):
    """Raise when no instance that still exists has this name or uuid."""

    def __init__(self, name_or_uuid: str) -> None:
        super().__init__("instance_not_found", f"There is no instance {name_or_uuid!r}.")
        self.name_or_uuid = name_or_uuid


class InstanceExists(Refused):
    """Raise when an instance is to be made under a uuid that is taken, be it by a deleted one."""

    def __init__(self, uuid: str) -> None:
        super().__init__("instance_exists", f"There is or was an instance with the uuid {uuid}.")
        self.uuid = uuid


class InstanceNameAmbiguous(Refused):
    """Raise when several instances bear the name that was asked for: the caller must give a uuid."""

    def __init__(self, name: str) -> None:
        super().__init__("instance_name_ambiguous", f"Several instances are called {name!r}; give the uuid.")
        self.name = name


class InstanceBusy(Busy):
    """Raise when another task holds the instance's turn."""

    def __init__(self, uuid: str, task_state: str) -> None:
        super().__init__("instance_busy", f"Instance {uuid} is busy: {task_state!s}.")
        self.uuid = uuid
        self.task_state = task_state


class InstanceStateRefused(Refused):
    """Raise when the instance's vm_state is none of those in which the task is allowed."""

    def __init__(self, uuid: str, vm_state: str, wanted: Collection[str]) -> None:
        self.uuid = uuid
        self.vm_state = vm_state
        self.wanted = tuple(wanted)
        allowed = " or ".join(str(state) for state in self.wanted)
        super().__init__("instance_state", f"Instance {uuid} is {vm_state!s}; this needs it {allowed}.")


class TurnLost(Unknown):
    """Raise when an action wants to change its instance, but has its turn no more. action: the action's number."""

    def __init__(self, uuid: str, action: int) -> None:
        super().__init__("turn_lost", f"Action {action} has lost its turn on instance {uuid}: another has it.")
        self.uuid = uuid
        self.action = action


class ActionEnded(Unknown):
    """Raise when the outcome of an action is to be recorded that has one already, or was never started."""

    def __init__(self, action: int) -> None:
        super().__init__("action_ended", f"Action {action} is not in flight: it has ended, or was never started.")
        self.action = action


class OrderKnown(Refused):
    """Raise when an order was given before: nothing is done for the repetition. action: its db.records.Action."""

    def __init__(self, action: Any) -> None:
        super().__init__("order_known", f"Order {action.order_id} was given before.")
        self.action = action


class OrderNotFound(Refused):
    """Raise when no order with this id has arrived."""

    def __init__(self, order_id: str) -> None:
        super().__init__("order_not_found", f"No order {order_id!r} has arrived.")
        self.order_id = order_id


class HostHeld(Busy):
    """Raise when another service has the lease of the host, or nobody has one that could be shared.

    holder: empty for nobody. seconds: until the lease expires, unless it is renewed.
    """

    def __init__(self, host: str, holder: str, seconds: float) -> None:
        super().__init__("host_held", f"Host {host} is held by {holder or 'nobody'}; {seconds:.1f} s are left.")
        self.host = host
        self.holder = holder
        self.seconds = seconds


class HalfDone(Unknown):
    """Raise when something cannot go on, and what was done of it cannot be undone now.

    An order that ends so has not ended yet: it is treated as one whose service died.
    """

    def __init__(self) -> None:
        super().__init__(
            "half_done", "it may be half done, and is put right as soon as the hypervisor lets that happen"
        )


class DatabaseUnavailable(Unreachable):
    """Raise when the database cannot be reached, hung up, or kept us waiting beyond its limit.

    Nothing was asked of XenServer or a guest because of the call that raises it. Whether the row being written
    got in is unknown when the connection broke during the commit itself.

    reason: kind of database and the number of the error, such as `mysql 2003`. Never a driver's own text: that may
    hold the URL, a user or a password.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__("database_unavailable", f"The database is unavailable{f' ({reason})' if reason else ''}.")
        self.reason = reason


class XenServerUnreachable(Unreachable):
    """Raise when no connection to XenServer could be made, so that the call certainly did not arrive.

    address: host name or URL without credentials. reason: the system's words, such as `Connection refused`.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__("xenserver_unreachable", f"XenServer at {address} cannot be reached: {reason}.")
        self.address = address
        self.reason = reason


class XenServerAuthenticationFailed(Refused):
    """Raise when XenServer does not accept the user or the password of the configuration.

    address: host name or URL without credentials.
    """

    def __init__(self, address: str) -> None:
        super().__init__("xenserver_authentication_failed", f"XenServer at {address} refused the login.")
        self.address = address


class XenServerCertificateMismatch(Refused):
    """Raise when XenServer's certificate is not one that the configuration trusts. It was sent nothing.

    address: host name or URL without credentials. seen: SHA-256 of the certificate that it showed, in pairs of
    hexadecimal capitals; empty when the certificate's chain or name was refused. reason: TLS's own words in that case.
    """

    def __init__(self, address: str, seen: str = "", reason: str = "") -> None:
        what = f"its SHA-256 fingerprint is {seen}" if seen else reason or "it does not verify"
        message = f"XenServer at {address} showed a certificate that is not trusted: {what}."
        super().__init__("xenserver_certificate_mismatch", message)
        self.address = address
        self.seen = seen


_OUTCOMES = {
    # Checked before a call is carried out (rbac.ml; assert_operation_valid; pool_features.ml).
    "RBAC_PERMISSION_DENIED": Outcome.REFUSED,
    "PERMISSION_DENIED": Outcome.REFUSED,
    "OPERATION_BLOCKED": Outcome.REFUSED,
    "LICENCE_RESTRICTION": Outcome.REFUSED,
    "FEATURE_RESTRICTED": Outcome.REFUSED,
    "MESSAGE_METHOD_UNKNOWN": Outcome.UNSUPPORTED,
    "MESSAGE_REMOVED": Outcome.UNSUPPORTED,
    "VM_LACKS_FEATURE": Outcome.UNSUPPORTED,
    "SR_OPERATION_NOT_SUPPORTED": Outcome.UNSUPPORTED,
    "OTHER_OPERATION_IN_PROGRESS": Outcome.BUSY,
    "VDI_IN_USE": Outcome.BUSY,
    "VIF_IN_USE": Outcome.BUSY,
    "VLAN_IN_USE": Outcome.BUSY,
    "HOST_IN_USE": Outcome.BUSY,
    "SR_DEVICE_IN_USE": Outcome.BUSY,
    "PGPU_IN_USE_BY_VM": Outcome.BUSY,
    "TOO_BUSY": Outcome.BUSY,
    "TOO_MANY_PENDING_TASKS": Outcome.BUSY,
    "TOO_MANY_STORAGE_MIGRATES": Outcome.BUSY,
    "VM_CALL_PLUGIN_RATE_LIMIT": Outcome.BUSY,
    # The host that was asked turned the call away before it looked at it (api_server.ml).
    "HOST_IS_SLAVE": Outcome.UNREACHABLE,
    "HOST_IN_EMERGENCY_MODE": Outcome.UNREACHABLE,
    "HOST_STILL_BOOTING": Outcome.UNREACHABLE,
    # The coordinator knew that the host in question is down, and did not try (check_live in message_forwarding.ml,
    # assert_host_is_live in xapi_vm_helpers.ml).
    "HOST_OFFLINE": Outcome.UNREACHABLE,
    "HOST_NOT_LIVE": Outcome.UNREACHABLE,
    # It did try, and the connection broke: perhaps after the host had the call (do_op_on_common in the same file).
    "CANNOT_CONTACT_HOST": Outcome.UNKNOWN,
}
"""How a call ended that XenServer answered with one of these codes; with any other it FAILED."""

_HARMLESS = frozenset(
    {
        "DEVICE_ALREADY_ATTACHED",
        "DEVICE_ALREADY_DETACHED",
        "FAULT",
        "HANDLE_INVALID",
        "HOST_IS_SLAVE",
        "HOST_NOT_ENOUGH_FREE_MEMORY",
        "LICENCE_RESTRICTION",
        "MESSAGE_METHOD_UNKNOWN",
        "MESSAGE_PARAMETER_COUNT_MISMATCH",
        "OPERATION_BLOCKED",
        "OTHER_OPERATION_IN_PROGRESS",
        "SR_FULL",
        "TOO_MANY_STORAGE_MIGRATES",
        "UUID_INVALID",
        "VDI_IN_USE",
        "VDI_TOO_SMALL",
        "VM_BAD_POWER_STATE",
        "VM_CALL_PLUGIN_RATE_LIMIT",
        "VM_SHUTDOWN_TIMEOUT",
        "XENAPI_MISSING_PLUGIN",
        "UNKNOWN_XENAPI_PLUGIN_FUNCTION",
    }
)
"""Codes whose parameters are documented as names, states and numbers of XenServer's own. Any other's may repeat what a
caller sent, or what a program printed."""

_IDENTIFIER = re.compile(r"(OpaqueRef:)?([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|NULL)\Z")
"""A reference or a uuid."""


class XenServerFailure(Failed):
    """Raise when XenServer answered a call with a failure. Its outcome depends on the code: see _OUTCOMES.

    details: XenAPI's error description: its code, such as `VM_BAD_POWER_STATE`, then the parameters. Those become
    part of the message that are known to be harmless; never log or record the others, which may hold secrets. An empty
    description counts as `INTERNAL_ERROR`.
    """

    def __init__(self, details: Sequence[str]) -> None:
        self.details = tuple(str(detail) for detail in details) or ("INTERNAL_ERROR",)
        name = self.details[0]
        told = _told(self.details)
        said = f"{name}: {', '.join(told)}" if told else name
        super().__init__(f"xenserver_{name.lower()}", f"XenServer answered {said}.")
        self.outcome = _OUTCOMES.get(name, Outcome.FAILED)


class ObjectGone(XenServerFailure):
    """Raise when the object that was asked for, or that an order is about, does not exist (any more).

    details: such as `HANDLE_INVALID`, the class, the reference.
    """


def answered(details: Sequence[str]) -> XenServerFailure:
    """The error for XenServer's error description."""
    gone = details and details[0] in ("HANDLE_INVALID", "UUID_INVALID", "OBJECT_NOLONGER_EXISTS")
    return ObjectGone(details) if gone else XenServerFailure(details)


def _told(details: Sequence[str]) -> list[str]:
    name, *parameters = details
    if name.startswith("SESSION_") or "session" in parameters:
        # A session's reference is as good as a password.
        return []
    return [it if name in _HARMLESS or _IDENTIFIER.match(it) else "…" for it in parameters]


class XenServerAnswerLost(Unknown):
    """Raise when a call went out and its answer did not come: it may or may not have had its effect.

    call: the XenAPI method, such as `VM.start`, without arguments.
    """

    def __init__(self, call: str) -> None:
        super().__init__("xenserver_answer_lost", f"XenServer's answer to {call} was lost; it may have happened.")
        self.call = call


class ImageNotFound(Refused):
    """Raise when no image has this name or id, or its bytes are gone."""

    def __init__(self, name: str) -> None:
        super().__init__("image_not_found", f"There is no image {name!r}.")
        self.name = name


class ImageUnavailable(Unreachable):
    """Raise when an image's bytes, or what describes it, cannot be read or written now.

    name: of the image, or server and path, without anything secret. reason: the system's words.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__("image_unavailable", f"Image {name!r} cannot be read or written: {reason}.")
        self.name = name
        self.reason = reason


class ImageCorrupt(Failed):
    """Raise when the bytes that came are not those that the image has. Nothing of them is left."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__("image_corrupt", f"Image {name!r} is not what it should be: {reason}.")
        self.name = name
        self.reason = reason


class ImageTooLarge(Refused):
    """Raise when an image holds a larger disk than the instance may have. Sizes are bytes."""

    def __init__(self, name: str, size: int, allowed: int) -> None:
        super().__init__(
            "image_too_large", f"Image {name!r} needs a root disk of {size} bytes; the flavour has {allowed}."
        )
        self.name = name
        self.size = size
        self.allowed = allowed


class StorageNotFound(Refused):
    """Raise when there is no storage repository that disks can be made in."""

    def __init__(self, reason: str) -> None:
        super().__init__("storage_not_found", f"There is no storage repository for disks: {reason}.")
        self.reason = reason


class StorageFull(Failed):
    """Raise when a storage repository has no room for a disk. What was made of it is removed."""

    def __init__(self, repository: str) -> None:
        super().__init__("storage_full", f"Storage repository {repository} has not enough free space.")
        self.repository = repository


class TransferCancelled(Failed):
    """Raise when somebody did not want a transfer of a disk any more. What was made of it is removed."""

    def __init__(self) -> None:
        super().__init__("transfer_cancelled", "The transfer of the disk was cancelled.")


class TransferFailed(Failed):
    """Raise when a disk did not get to its end, in or out. reason: in words."""

    def __init__(self, reason: str) -> None:
        super().__init__("transfer_failed", f"The transfer of the disk failed: {reason}.")
        self.reason = reason


class NetworkNotFound(Refused):
    """Raise when XenServer has no network of this name."""

    def __init__(self, name: object) -> None:
        super().__init__("network_not_found", f"There is no network {name}.")


class NetworkAmbiguous(Refused):
    """Raise when several networks bear the name that was asked for: the caller must give a uuid."""

    def __init__(self, name: object) -> None:
        super().__init__("network_ambiguous", f"There are several networks {name}; give the uuid.")


class LockingUnlicensed(Unsupported):
    """Raise when XenServer's licence has no locking of interfaces to addresses, and it was asked for."""

    def __init__(self) -> None:
        super().__init__("vif_locking_unlicensed", "XenServer's licence does not allow to lock an interface.")


class DetachRejected(Refused):
    """Raise when the guest does not let go of a device. It stays attached, and is not taken away by force.

    said: the guest's or XenServer's own words.
    """

    def __init__(self, what: str, said: str) -> None:
        super().__init__("detach_rejected", f"The guest does not let go of {what}: {said}")


class HotplugUnsupported(Unsupported):
    """Raise when the running guest cannot take or give a device: without drivers, or because it says so."""

    def __init__(self, what: str) -> None:
        super().__init__("hotplug_unsupported", f"The guest cannot attach or detach {what} while it runs.")


class VolumeNotFound(Refused):
    """Raise when there is no such volume where its connection leads to."""

    def __init__(self, volume: str) -> None:
        super().__init__("volume_not_found", f"Volume {volume} is not where it should be.")
        self.volume = volume


class VolumeInUse(Busy):
    """Raise when a volume that one guest alone can have is attached to another, or to this one as something else."""

    def __init__(self, volume: str) -> None:
        super().__init__("volume_in_use", f"Volume {volume} is attached elsewhere.")
        self.volume = volume
