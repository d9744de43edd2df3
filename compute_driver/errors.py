"""The named errors of the cloud's side: what can be wrong with an instance, the database or XenServer.

Each is one of the outcomes with a fixed code, so the manager, the bus and the command line treat them all alike.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from agent_protocol.outcomes import Busy, Failed, Refused, Unknown, Unreachable


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


class XenServerFailure(Failed):
    """Raise when XenServer answered a call with a failure.

    details: XenAPI's error description: its code, such as `VM_BAD_POWER_STATE`, then the parameters. Take secrets
    out first: the parameters become part of the message. An empty description counts as `INTERNAL_ERROR`.
    """

    def __init__(self, details: Sequence[str]) -> None:
        self.details = tuple(str(detail) for detail in details) or ("INTERNAL_ERROR",)
        name, *parameters = self.details
        said = f"{name}: {', '.join(parameters)}" if parameters else name
        super().__init__(f"xenserver_{name.lower()}", f"XenServer answered {said}.")


class XenServerAnswerLost(Unknown):
    """Raise when a call went out and its answer did not come: it may or may not have had its effect.

    call: the XenAPI method, such as `VM.start`, without arguments.
    """

    def __init__(self, call: str) -> None:
        super().__init__("xenserver_answer_lost", f"XenServer's answer to {call} was lost; it may have happened.")
        self.call = call
