"""Everything that can be done to an instance: in which states, under which name, and what becomes of it when the
service ends in the middle. docs/reconciliation.md tells the same in words; a test holds the two against each other."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from ..states import PowerState, TaskState, VmState


class Interrupted(enum.Enum):
    """What reconciliation does about an operation that its service did not live to end."""

    REMOVE = "remove"
    """Remove what there is of the guest; the instance is in error. It failed."""
    COMPLETE = "complete"
    """Do it again from the start: what was done already stays done. It succeeded when that does."""
    COMPARE_POWER = "compare_power"
    """It succeeded if the guest is in the state that was wanted, and failed otherwise."""
    COMPARE_NODE = "compare_node"
    """It succeeded if the guest is on the node that was wanted, and failed otherwise."""
    UNDO = "undo"
    """Do the opposite, which finds nothing to do where nothing was done. It failed."""
    MARK_ERROR = "mark_error"
    """Clear half-made things away; the instance is in error until it is rebuilt. It failed."""
    UNKNOWN = "unknown"
    """Nobody can tell whether it happened, and doing it again may do harm."""


@dataclass(frozen=True)
class Operation:
    """One kind of order on an instance.

    action: its name in the audit trail. task_state: what the instance shows meanwhile. vm_states: those in which it is
    allowed, None for all. interrupted: see Interrupted. power: the state in which it leaves the guest, for
    COMPARE_POWER.
    """

    action: str
    task_state: TaskState
    vm_states: frozenset[VmState] | None
    interrupted: Interrupted
    power: PowerState | None = None


_ACTIVE = frozenset({VmState.ACTIVE})
_AT_REST = frozenset({VmState.ACTIVE, VmState.STOPPED})
_WHOLE = _AT_REST | {VmState.PAUSED, VmState.SUSPENDED}
_USABLE = _WHOLE | {VmState.ERROR}


def _power(action: str, task: TaskState, before: frozenset[VmState], power: PowerState) -> Operation:
    return Operation(action, task, before, Interrupted.COMPARE_POWER, power)


CREATE = Operation("create", TaskState.SPAWNING, None, Interrupted.REMOVE)
DELETE = Operation("delete", TaskState.DELETING, None, Interrupted.COMPLETE)
REBUILD = Operation("rebuild", TaskState.REBUILDING, _AT_REST | {VmState.ERROR}, Interrupted.MARK_ERROR)
RESCUE = Operation("rescue", TaskState.RESCUING, _AT_REST | {VmState.ERROR}, Interrupted.UNDO)
UNRESCUE = Operation("unrescue", TaskState.UNRESCUING, frozenset({VmState.RESCUED}), Interrupted.COMPLETE)

START = _power("start", TaskState.POWERING_ON, _AT_REST, PowerState.RUNNING)
STOP = _power("stop", TaskState.POWERING_OFF, _AT_REST, PowerState.SHUTDOWN)
PAUSE = _power("pause", TaskState.PAUSING, _ACTIVE, PowerState.PAUSED)
UNPAUSE = _power("unpause", TaskState.UNPAUSING, frozenset({VmState.PAUSED}), PowerState.RUNNING)
SUSPEND = _power("suspend", TaskState.SUSPENDING, _ACTIVE, PowerState.SUSPENDED)
RESUME = _power("resume", TaskState.RESUMING, frozenset({VmState.SUSPENDED}), PowerState.RUNNING)
REBOOT = Operation("reboot", TaskState.REBOOTING, _ACTIVE, Interrupted.UNKNOWN)
REBOOT_HARD = Operation("reboot", TaskState.REBOOTING_HARD, _USABLE, Interrupted.UNKNOWN)

SET_PASSWORD = Operation("set_admin_password", TaskState.UPDATING_PASSWORD, _ACTIVE, Interrupted.UNKNOWN)
GENERATE_PASSWORD = Operation("generate_admin_password", TaskState.UPDATING_PASSWORD, _ACTIVE, Interrupted.UNKNOWN)
INJECT_FILE = Operation("inject_file", TaskState.INJECTING_FILE, _ACTIVE, Interrupted.UNKNOWN)
ADD_SSH_KEYS = Operation("add_ssh_keys", TaskState.UPDATING_SSH_KEYS, _ACTIVE, Interrupted.UNKNOWN)
TRUST_AGENT = Operation("trust_agent", TaskState.TRUSTING_AGENT, _ACTIVE, Interrupted.UNKNOWN)
INJECT_NETWORK = Operation("inject_network_info", TaskState.UPDATING_NETWORK, _ACTIVE, Interrupted.UNKNOWN)
RESET_NETWORK = Operation("reset_network", TaskState.UPDATING_NETWORK, _ACTIVE, Interrupted.UNKNOWN)
CHANGE_METADATA = Operation("change_instance_metadata", TaskState.UPDATING_METADATA, _USABLE, Interrupted.UNDO)

SNAPSHOT = Operation("snapshot", TaskState.IMAGE_SNAPSHOT, _WHOLE, Interrupted.UNDO)
QUIESCE = Operation("quiesce", TaskState.QUIESCING, _ACTIVE, Interrupted.UNDO)
UNQUIESCE = Operation("unquiesce", TaskState.UNQUIESCING, _ACTIVE, Interrupted.UNKNOWN)

RESIZE = Operation("resize", TaskState.RESIZE_PREP, _AT_REST, Interrupted.UNDO)
MIGRATE = Operation("migrate", TaskState.RESIZE_PREP, _AT_REST, Interrupted.UNDO)
CONFIRM_RESIZE = Operation(
    "confirm_resize", TaskState.RESIZE_CONFIRMING, frozenset({VmState.RESIZED}), Interrupted.COMPLETE
)
REVERT_RESIZE = Operation(
    "revert_resize", TaskState.RESIZE_REVERTING, frozenset({VmState.RESIZED}), Interrupted.COMPLETE
)
LIVE_MIGRATION = Operation("live_migration", TaskState.MIGRATING, _ACTIVE, Interrupted.COMPARE_NODE)

ATTACH_VOLUME = Operation("attach_volume", TaskState.ATTACHING_VOLUME, _WHOLE, Interrupted.UNDO)
DETACH_VOLUME = Operation("detach_volume", TaskState.DETACHING_VOLUME, _WHOLE, Interrupted.COMPLETE)
ATTACH_INTERFACE = Operation("attach_interface", TaskState.ATTACHING_INTERFACE, _AT_REST, Interrupted.UNDO)
DETACH_INTERFACE = Operation("detach_interface", TaskState.DETACHING_INTERFACE, _AT_REST, Interrupted.COMPLETE)

OPERATIONS = tuple(it for it in list(globals().values()) if isinstance(it, Operation))
"""All of them."""

ACTIONS: Mapping[str, Operation] = {it.action: it for it in OPERATIONS}
"""By the name of the action. Both kinds of reboot are one action, and are one to reconciliation, too."""

SEALED_ACTIONS: Mapping[str, Operation] = {
    it.action: it for it in (SET_PASSWORD, GENERATE_PASSWORD, INJECT_FILE, ADD_SSH_KEYS)
}
"""What a caller may say that it has sealed."""
