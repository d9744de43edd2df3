"""Conversations with the agent inside a guest, carried by the dom0 plugin `xenward`.

A question (`version`, `features`, `keyinit`) changes nothing in the guest; an order (`password`, a file) does. So
an unanswered question is `unreachable`, and an unanswered order is `unknown`, unless the plugin proved that the
agent did not take it. When the guest restarts in the middle, the conversation begins again with the new domain;
if it cannot be brought to its end there, an order that was under way before stays `unknown`.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from agent_protocol.legacy import HostExchange
from agent_protocol.messages import (
    MessageError,
    Password,
    Reply,
    Request,
    encode_request,
    new_request_id,
    parse_reply,
)
from agent_protocol.outcomes import Failed, Outcome, Refused, Unknown, Unreachable, Unsuccessful, Unsupported

from ..driver import AgentInfo, InjectedFile
from ..errors import XenServerAnswerLost, XenServerFailure
from .session import XenServer
from .vms import VM

PLUGIN = "xenward"

_CALL_MARGIN = 15.0
"""Seconds that XenServer gets beyond the plugin's own wait, to start and to end it."""

_T = TypeVar("_T")


class _GuestRestarted(Exception):
    """The domain went away after the request was delivered."""


@dataclass
class _Conversation:
    """What must be remembered across the attempts of one operation."""

    vm: VM
    deadline: float
    order_delivered: bool = False

    def remaining(self) -> float:
        return max(0.0, self.deadline - time.monotonic())


class GuestAgents:
    """The agents of all guests of one XenServer.

    timeout: seconds that one operation may take, with all its requests and repetitions.
    boot_timeout: seconds from the start of a guest to its agent's first answer.
    """

    def __init__(self, server: XenServer, *, timeout: float, boot_timeout: float) -> None:
        self._server = server
        self._timeout = timeout
        self._boot_timeout = boot_timeout

    def await_boot(self, vm: VM) -> AgentInfo:
        """Wait for the agent of a guest that was just started, and hear what it can do."""
        return self._converse(vm, self._boot_timeout, self._introduction)

    def set_password(self, vm: VM, password: Password) -> None:
        """Set the administrator's password."""

        def conversation(talk: _Conversation) -> None:
            exchange = HostExchange()
            answer = self._ask(talk, Request("keyinit", exchange.public))
            self._order(talk, Request("password", exchange.seal(password.value, answer.message)))

        self._converse(vm, self._timeout, conversation)

    def put_file(self, vm: VM, file: InjectedFile) -> None:
        """Put a file; Unsupported when the agent cannot give it the mode or owner that was asked for."""

        def conversation(talk: _Conversation) -> None:
            self._order(talk, _file_request(file, self._introduction(talk).features))

        self._converse(vm, self._timeout, conversation)

    def add_ssh_keys(self, vm: VM, keys: Sequence[str]) -> None:
        """Add keys to the administrator's; keys that are there stay."""

        def conversation(talk: _Conversation) -> None:
            if "ssh_keys" not in self._introduction(talk).features:
                raise Unsupported("ssh_keys_unsupported", "the agent cannot add SSH keys")
            self._order(talk, Request("ssh_keys", json.dumps({"add": list(keys)})))

        self._converse(vm, self._timeout, conversation)

    def _introduction(self, talk: _Conversation) -> AgentInfo:
        version = self._ask(talk, Request("version", "agent")).message
        try:
            features = self._ask(talk, Request("features", "")).message
        except (Failed, Unsupported):
            # The oldest agents do not know the question.
            features = ""
        return AgentInfo(version, tuple(name.strip() for name in features.split(",") if name.strip()), "legacy")

    def _converse(self, vm: VM, timeout: float, conversation: Callable[[_Conversation], _T]) -> _T:
        talk = _Conversation(vm, time.monotonic() + timeout)
        while True:
            try:
                return conversation(talk)
            except _GuestRestarted:
                if talk.remaining() == 0:
                    _give_up(talk, Unreachable("guest_restarted", "the guest restarted and did not come back in time"))
            except Unsuccessful as error:
                _give_up(talk, error)

    def _ask(self, talk: _Conversation, question: Request) -> Reply:
        """The agent's answer to a question; raises the error that it answers with, or Unreachable."""
        try:
            return self._exchange(talk, question)
        except Unknown as error:
            # Whatever became of the question, it had no effect.
            raise Unreachable(error.code, f"the guest's agent could not be talked to: {error.message}") from None

    def _order(self, talk: _Conversation, order: Request) -> None:
        """Have an order carried out; raises the error that the agent answers with, Unreachable or Unknown."""
        try:
            self._exchange(talk, order)
        except _GuestRestarted:
            talk.order_delivered = True
            raise

    def _exchange(self, talk: _Conversation, request: Request) -> Reply:
        identity = new_request_id()
        try:
            value = encode_request(request).decode("ascii")
        except MessageError as error:
            raise Refused("request_too_large", f"{request.name}: {error.message}") from None
        result = self._call_plugin(talk, {"vm": talk.vm.uuid, "id": identity, "value": value})
        if result.get("id") != identity:
            raise Unknown("bad_plugin_answer", "the dom0 plugin answered something else than it was asked")
        if result.get("delivery") != "answered":
            _raise_undelivered(result)
        try:
            reply = parse_reply(str(result.get("value", "")).encode("utf-8"))
        except MessageError as error:
            raise Unknown(
                "bad_reply", f"the agent's answer to {request.name} cannot be read: {error.message}"
            ) from None
        reply.raise_unless_successful()
        return reply

    def _call_plugin(self, talk: _Conversation, request: dict[str, str]) -> dict[str, Any]:
        timeout = talk.remaining()
        arguments = {"requests": json.dumps([request]), "timeout": f"{timeout:.3f}"}
        try:
            untrusted_answer = self._server.call(
                "host.call_plugin", talk.vm.host, PLUGIN, "exchange", arguments, timeout=timeout + _CALL_MARGIN
            )
        except XenServerFailure as failure:
            raise _plugin_error(failure) from None
        except XenServerAnswerLost:
            raise Unknown("plugin_answer_lost", "the connection to XenServer broke while the agent was asked") from None
        try:
            (result,) = json.loads(untrusted_answer)
        except (TypeError, ValueError):
            result = None
        if not isinstance(result, dict):
            raise Unknown("bad_plugin_answer", "the dom0 plugin's answer cannot be read")
        return result


def _give_up(talk: _Conversation, error: Unsuccessful) -> NoReturn:
    """Raise what the operation ends with: `error`, unless an earlier attempt may have succeeded."""
    if talk.order_delivered and error.outcome is not Outcome.UNKNOWN:
        raise Unknown("guest_restarted", f"the guest restarted while it carried out the request; then: {error.message}")
    raise error


def _raise_undelivered(result: dict[str, Any]) -> NoReturn:
    delivery = result.get("delivery")
    if delivery == "gone":
        raise _GuestRestarted
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
        return Unsupported("plugin_missing", f"the dom0 plugin {PLUGIN!r} is not installed on the guest's host")
    if code == "XENWARD_XENSTORE":
        return Unreachable("xenstore_unreachable", "the dom0 plugin could not reach XenStore")
    if code == "XENWARD_BAD_REQUEST":
        return Failed("plugin_refused", f"the dom0 plugin did not accept the call: {' '.join(failure.details[1:])}")
    if code == "XENAPI_PLUGIN_FAILURE":
        # It died: before or after the request was delivered, nobody can tell. Its output may hold anything.
        return Unknown("plugin_died", f"the dom0 plugin ended without an answer ({failure.details[1]})")
    return failure


def _file_request(file: InjectedFile, features: tuple[str, ...]) -> Request:
    content = base64.b64encode(file.content).decode("ascii")
    if "file_put" in features:
        value: dict[str, str] = {"path": file.path, "content": content}
        if file.mode is not None:
            value["mode"] = f"{file.mode:04o}"
        if file.owner is not None:
            value["owner"] = file.owner
        return Request("file_put", json.dumps(value, separators=(",", ":")))
    if file.mode is not None or file.owner is not None:
        raise Unsupported("file_mode_unsupported", "the agent cannot set the mode or owner of a file")
    path = file.path.encode("utf-8")
    if "file_inject" in features:
        encoded = {"b64_path": base64.b64encode(path).decode("ascii"), "b64_file": content}
        return Request("file_inject", json.dumps(encoded, separators=(",", ":")))
    if "injectfile" not in features:
        raise Unsupported("file_unsupported", "the agent cannot take files")
    if b"," in path:
        raise Unsupported("file_path_unsupported", "the agent cannot take a file whose path holds a comma")
    return Request("injectfile", base64.b64encode(path + b"," + file.content).decode("ascii"))
