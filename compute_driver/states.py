"""Nova's vocabulary for the state of an instance, so that clouds and their tools read ours as their own.

Values: Nova's nova/compute/vm_states.py, task_states.py and power_state.py; tasks from `injecting_file` on are ours,
after the pattern of `updating_password`.
"""

from __future__ import annotations

import enum


class VmState(str, enum.Enum):
    """What the instance is when nothing is being done to it. Plain text in the database and on the bus."""

    BUILDING = "building"
    ACTIVE = "active"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    STOPPED = "stopped"
    RESCUED = "rescued"
    RESIZED = "resized"
    DELETED = "deleted"
    ERROR = "error"

    def __str__(self) -> str:
        return self.value


class TaskState(str, enum.Enum):
    """What is being done to the instance right now; None in its place means nothing, the turn is free."""

    SPAWNING = "spawning"
    DELETING = "deleting"
    POWERING_ON = "powering-on"
    POWERING_OFF = "powering-off"
    REBOOTING = "rebooting"
    REBOOTING_HARD = "rebooting_hard"
    PAUSING = "pausing"
    UNPAUSING = "unpausing"
    SUSPENDING = "suspending"
    RESUMING = "resuming"
    RESCUING = "rescuing"
    UNRESCUING = "unrescuing"
    REBUILDING = "rebuilding"
    IMAGE_SNAPSHOT = "image_snapshot"
    RESIZE_PREP = "resize_prep"
    RESIZE_FINISH = "resize_finish"
    RESIZE_CONFIRMING = "resize_confirming"
    RESIZE_REVERTING = "resize_reverting"
    MIGRATING = "migrating"
    UPDATING_PASSWORD = "updating_password"  # noqa: S105 - a state, no password
    INJECTING_FILE = "injecting_file"
    UPDATING_SSH_KEYS = "updating_ssh_keys"
    TRUSTING_AGENT = "trusting_agent"
    UPDATING_NETWORK = "updating_network"
    UPDATING_METADATA = "updating_metadata"
    ATTACHING_VOLUME = "attaching_volume"
    DETACHING_VOLUME = "detaching_volume"
    ATTACHING_INTERFACE = "attaching_interface"
    DETACHING_INTERFACE = "detaching_interface"
    QUIESCING = "quiescing"
    UNQUIESCING = "unquiescing"

    def __str__(self) -> str:
        return self.value


class PowerState(enum.IntEnum):
    """What the hypervisor says, under Nova's numbers. 2 and 5 were given up by Nova and stay unused."""

    NOSTATE = 0
    RUNNING = 1
    PAUSED = 3
    SHUTDOWN = 4
    CRASHED = 6
    SUSPENDED = 7

    @property
    def word(self) -> str:
        """Nova's word for it, as operators see it: `pending` for NOSTATE, else the name in lower case."""
        return "pending" if self is PowerState.NOSTATE else self.name.lower()
