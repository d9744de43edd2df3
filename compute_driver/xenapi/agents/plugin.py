"""Calls of the dom0 plugin `xenward`: requests out, replies back, and what became of those that were not answered."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, NoReturn

from agent_protocol import frames
from agent_protocol.outcomes import Failed, Unknown, Unreachable, Unsuccessful

from ...errors import XenServerAnswerLost, XenServerFailure
from ...fencing import LeaseLost
from ..connection.session import XenServer
from ..guests.vms import VM
from . import plugin_versions
from .plugin_versions import NAME, PluginVersions

_CALL_MARGIN = 15.0
"""Seconds that XenServer gets beyond the plugin's own wait, to start and to end it."""

_SLICE = 48
"""Frames in one call: XAPI hands arguments on in the plugin's command line, where Linux allows 128 KiB."""


class GuestRestarted(Exception):
    """Raised when the guest's domain went away after the request was written to it."""


@dataclass(frozen=True)
class Answer:
    """An agent's reply as it stood in XenStore, and the text of its frames, empty if there were none."""

    value: str = field(repr=False)
    box: str = field(default="", repr=False)


class Plugin:
    """The plugin on whichever host a guest runs on. `timeout` is in seconds and covers a method's whole wait.

    versions: what makes sure of a host's plugin before its first use; None for whom the calls' own errors are enough.
    """

    def __init__(self, server: XenServer, versions: PluginVersions | None = None) -> None:
        self._server = server
        self._versions = versions

    def exchange(self, vm: VM, request_id: str, value: str, *, timeout: float, box: str = "") -> Answer:
        """Carry a request to the guest's agent and wait for the reply.

        box: what is too large for the request's own node, to be sent as frames. Raises GuestRestarted, Unreachable
        when nothing was delivered, Unknown when it was and no answer came, Unsupported when there is no plugin.
        """
        request: dict[str, Any] = {"vm": vm.uuid, "id": request_id, "value": value}
        pieces = frames.split(box) if box else []
        deadline = time.monotonic() + timeout
        for first in range(0, len(pieces), _SLICE) or (0,):
            last = first + _SLICE >= len(pieces)
            if pieces:
                request["frames"] = {"first": first, "values": pieces[first : first + _SLICE], "last": last}
            result = self._deliver(vm, request, max(0.0, deadline - time.monotonic()))
            if result.get("delivery") == "answered":
                return Answer(str(result.get("value", "")), str(result.get("box", "")))
            if result.get("delivery") != "continue" or last:
                _raise_undelivered(result)
        raise AssertionError("a plugin call that neither answered nor failed")

    def advert(self, vm: VM, *, timeout: float) -> str | None:
        """What the guest's agent tells about itself, None when it has told nothing by the end of `timeout`."""
        arguments = {"vms": json.dumps([vm.uuid]), "timeout": f"{timeout:.3f}"}
        adverts = self._call(vm, "adverts", arguments, timeout)
        advert = adverts.get(vm.uuid) if isinstance(adverts, dict) else None
        return advert if isinstance(advert, str) else None

    def console_log(self, vm: VM, *, timeout: float) -> dict[str, Any]:
        """What the plugin's function of that name answers. Whatever goes wrong, nothing was ordered: Unreachable."""
        try:
            answer = self._call(vm, "console_log", {"vm": vm.uuid}, timeout)
        except LeaseLost:
            raise
        except Unknown as error:
            raise Unreachable(error.code, error.message) from None
        return answer if isinstance(answer, dict) else {}

    def _deliver(self, vm: VM, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        arguments = {"requests": json.dumps([request]), "timeout": f"{timeout:.3f}"}
        results = self._call(vm, "exchange", arguments, timeout)
        if not isinstance(results, list) or len(results) != 1 or not isinstance(results[0], dict):
            raise Unknown("bad_plugin_answer", "the dom0 plugin's answer cannot be read")
        if results[0].get("id") != request["id"]:
            raise Unknown("bad_plugin_answer", "the dom0 plugin answered something else than it was asked")
        result: dict[str, Any] = results[0]
        return result

    def _call(self, vm: VM, function: str, arguments: dict[str, str], timeout: float) -> Any:
        if self._versions is not None:
            self._versions.require(vm.host)
        try:
            untrusted_answer = self._server.call(
                "host.call_plugin", vm.host, NAME, function, arguments, timeout=timeout + _CALL_MARGIN
            )
        except XenServerFailure as failure:
            if self._versions is not None:
                self._versions.forget(vm.host)
            raise _plugin_error(failure) from None
        except XenServerAnswerLost:
            raise Unknown("plugin_answer_lost", "the connection to XenServer broke while the agent was asked") from None
        try:
            return json.loads(untrusted_answer)
        except (TypeError, ValueError, RecursionError):
            raise Unknown("bad_plugin_answer", "the dom0 plugin's answer cannot be read") from None


def _raise_undelivered(result: dict[str, Any]) -> NoReturn:
    delivery = result.get("delivery")
    if delivery == "gone":
        raise GuestRestarted
    if delivery == "absent":
        raise Unreachable("guest_absent", "no running domain of the guest was found on its host")
    if delivery == "withdrawn":
        raise Unreachable("agent_silent", "the agent did not take the request in time; it was withdrawn")
    if delivery == "rejected":
        errno = str(result.get("errno", "EIO"))
        raise Unreachable("xenstore_refused", f"the guest's XenStore took no request: {errno}")
    if delivery == "taken":
        raise Unknown("agent_no_answer", "the agent took the request and did not answer in time")
    if delivery == "unanswered":
        raise Unknown("agent_no_answer", "no answer came in time")
    raise Unknown("xenstore_lost", "XenStore stopped answering while the agent was asked")


def _plugin_error(failure: XenServerFailure) -> Unsuccessful:
    code = failure.details[0]
    if code == "XENAPI_MISSING_PLUGIN":
        return plugin_versions.missing()
    if code == "UNKNOWN_XENAPI_PLUGIN_FUNCTION":
        return plugin_versions.too_old()
    if code == "XENWARD_XENSTORE":
        return Unreachable("xenstore_unreachable", "the dom0 plugin could not reach XenStore")
    if code == "XENWARD_BAD_REQUEST":
        return Failed("plugin_refused", f"the dom0 plugin did not accept the call: {' '.join(failure.details[1:])}")
    if code == "XENAPI_PLUGIN_FAILURE":
        # It died: before or after the request was delivered, nobody can tell. Its output may hold anything.
        return Unknown("plugin_died", f"the dom0 plugin ended without an answer ({' '.join(failure.details[1:2])})")
    return failure
