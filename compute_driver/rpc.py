"""The bus: the manager as an RPC server, and the client that callers use. Topic `compute`, server = host.

Arguments and answers are plain dictionaries. An honest error crosses the bus as data, not as an exception, so no
traceback and no argument travels with it.
"""

from __future__ import annotations

import functools
import logging
import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import oslo_messaging

from agent_protocol.messages import Password
from agent_protocol.outcomes import Outcome, Refused, Unknown, Unreachable, Unsuccessful, Unsupported, unsuccessful

from .context import RequestContext
from .files import InjectedFile
from .manager import ComputeManager
from .sealing import SealedAnswer, SealedFailure

LOG = logging.getLogger(__name__)

TOPIC = "compute"
EXCHANGE = "xenward"
VERSION = "1.0"

_HEARTBEAT = 30
"""Seconds within which the server shows that a long call is still being worked on."""

_AMQP_PORT = 5672
_BROKER_TIMEOUT = 5.0
"""Seconds to wait for a broker's TCP connection."""

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _answered(method: _Method) -> _Method:
    """Sends the method's result as {"result": …} and an honest error as {"error": {outcome, code, message}}."""

    @functools.wraps(method)
    def answer(self: object, context: Mapping[str, object], **arguments: Any) -> dict[str, Any]:
        try:
            return {"result": method(self, RequestContext.from_dict(context), **arguments)}
        except SealedFailure as error:
            return {"sealed": error.answer.to_dict()}
        except Unsuccessful as error:
            return {"error": {"outcome": str(error.outcome), "code": error.code, "message": error.message}}
        except Exception as error:
            # The text of an unforeseen error may hold an argument; its kind is enough for the log.
            LOG.error("%s: internal error: %s", method.__name__, type(error).__name__)
            return {"error": {"outcome": "unknown", "code": "internal_error", "message": "internal error, see the log"}}

    return cast(_Method, answer)


def _string(name: str, untrusted: object) -> str:
    """`untrusted` itself, when it is a string; Refused otherwise."""
    if not isinstance(untrusted, str):
        raise Refused("bad_argument", f"{name} must be a string")
    return untrusted


def _strings(name: str, untrusted: object) -> list[str]:
    """`untrusted` itself, when it is a list of strings; Refused otherwise."""
    if not isinstance(untrusted, list) or not all(isinstance(item, str) for item in untrusted):
        raise Refused("bad_argument", f"{name} must be a list of strings")
    return untrusted


class ComputeEndpoint:
    """The methods that the bus offers. Their names follow Nova's compute manager."""

    target = oslo_messaging.Target(version=VERSION)

    def __init__(self, manager: ComputeManager) -> None:
        self._manager = manager

    @_answered
    def build_and_run_instance(
        self,
        context: RequestContext,
        *,
        display_name: str,
        memory_mb: int,
        vcpus: int,
        root_gb: int,
        admin_password: str | None,
        injected_files: list[dict[str, Any]],
        ssh_keys: list[str],
        image_ref: str = "",
    ) -> dict[str, Any]:
        instance = self._manager.build_and_run_instance(
            context,
            display_name=display_name,
            memory_mb=memory_mb,
            vcpus=vcpus,
            root_gb=root_gb,
            image_ref=_string("image_ref", image_ref),
            admin_password=None if admin_password is None else Password(admin_password),
            injected_files=[InjectedFile.from_dict(file) for file in injected_files],
            ssh_keys=_strings("ssh_keys", ssh_keys),
        )
        return instance.to_dict()

    @_answered
    def terminate_instance(self, context: RequestContext, *, target: str) -> None:
        self._manager.terminate_instance(context, target)

    @_answered
    def start_instance(self, context: RequestContext, *, target: str) -> None:
        self._manager.start_instance(context, target)

    @_answered
    def stop_instance(self, context: RequestContext, *, target: str) -> None:
        self._manager.stop_instance(context, target)

    @_answered
    def reboot_instance(self, context: RequestContext, *, target: str, reboot_type: str) -> None:
        self._manager.reboot_instance(context, target, reboot_type)

    @_answered
    def set_admin_password(self, context: RequestContext, *, target: str, new_pass: str) -> None:
        self._manager.set_admin_password(context, target, Password(new_pass))

    @_answered
    def inject_file(self, context: RequestContext, *, target: str, file: dict[str, Any]) -> None:
        self._manager.inject_file(context, target, InjectedFile.from_dict(file))

    @_answered
    def add_ssh_keys(self, context: RequestContext, *, target: str, keys: list[str]) -> None:
        self._manager.add_ssh_keys(context, target, _strings("keys", keys))

    @_answered
    def send_sealed(
        self, context: RequestContext, *, target: str, action: str, request_id: str, value: str, box: str
    ) -> dict[str, str]:
        answer = self._manager.send_sealed(
            context,
            target,
            _string("action", action),
            request_id=_string("request_id", request_id),
            value=_string("value", value),
            box=_string("box", box),
        )
        return answer.to_dict()

    @_answered
    def trust_agent(self, context: RequestContext, *, target: str) -> dict[str, Any]:
        return self._manager.trust_agent(context, target).to_dict()

    @_answered
    def get_agent(self, context: RequestContext, *, target: str, action: str | None) -> dict[str, Any] | None:
        agent = self._manager.get_agent(context, target, action)
        return None if agent is None else agent.to_dict()

    @_answered
    def get_instance(self, _context: RequestContext, *, target: str) -> dict[str, Any]:
        instance, agent, power_state = self._manager.get_instance(target)
        return {**instance.to_dict(), "power_state": power_state, "agent": agent.to_dict() if agent else None}

    @_answered
    def list_instances(self, _context: RequestContext) -> list[dict[str, Any]]:
        return [instance.to_dict() for instance in self._manager.list_instances()]

    @_answered
    def list_nodes(self, _context: RequestContext) -> list[dict[str, Any]]:
        return self._manager.list_nodes()

    @_answered
    def check_nodes(self, _context: RequestContext, *, names: list[str]) -> list[dict[str, Any]]:
        return [state.to_dict() for state in self._manager.check_nodes(_strings("names", names))]

    @_answered
    def list_actions(self, _context: RequestContext, *, target: str | None) -> list[dict[str, Any]]:
        return [action.to_dict() for action in self._manager.list_actions(target)]


def server(transport: Any, manager: ComputeManager, host: str) -> Any:
    """An RPC server for `host`, to be started and stopped. It runs calls as concurrency.set_up has prepared."""
    return oslo_messaging.get_rpc_server(
        transport,
        oslo_messaging.Target(exchange=EXCHANGE, topic=TOPIC, server=host),
        [ComputeEndpoint(manager)],
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )


class ComputeClient:
    """Calls the compute service of one host. The methods and their arguments are those of ComputeEndpoint.

    timeout: seconds that a question may take; order_timeout: seconds for everything else. Both end earlier when
    the service stops showing that it is alive.
    """

    def __init__(self, transport: Any, host: str, *, timeout: float = 60.0, order_timeout: float = 1800.0) -> None:
        target = oslo_messaging.Target(exchange=EXCHANGE, topic=TOPIC, server=host, version=VERSION)
        self._transport = transport
        self._client = oslo_messaging.get_rpc_client(transport, target)
        self._host = host
        self._timeout = timeout
        self._order_timeout = order_timeout

    def ask(self, context: RequestContext, method: str, **arguments: Any) -> Any:
        """Call a method that changes nothing. Raises the error it ended with; Unreachable when none answers."""
        try:
            return self._call(context, method, self._timeout, arguments)
        except Unknown as error:
            raise Unreachable(error.code, error.message) from None

    def order(self, context: RequestContext, method: str, **arguments: Any) -> Any:
        """Call a method that changes something. Raises the error it ended with; Unknown when no answer comes."""
        return self._call(context, method, self._order_timeout, arguments)

    def _call(self, context: RequestContext, method: str, timeout: float, arguments: dict[str, Any]) -> Any:
        _require_broker(self._transport)
        # Mandatory delivery: without a queue, the broker says so instead of dropping the call silently.
        options = oslo_messaging.TransportOptions(at_least_once=True)
        client = self._client.prepare(
            timeout=timeout, call_monitor_timeout=min(_HEARTBEAT, timeout), retry=0, transport_options=options
        )
        try:
            answer = client.call(context.to_dict(), method, **arguments)
        except oslo_messaging.MessageUndeliverable:
            raise Unreachable("service_unreachable", f"no compute service serves host {self._host!r}") from None
        except oslo_messaging.MessageDeliveryFailure:
            raise Unreachable("bus_unreachable", "the message bus cannot be reached") from None
        except oslo_messaging.MessagingTimeout:
            raise Unknown("service_no_answer", f"the compute service of host {self._host!r} did not answer") from None
        except (oslo_messaging.RemoteError, oslo_messaging.RPCDispatcherError) as error:
            # Refused by the bus's own layer, before our method ran: an unknown method or version. Within one process
            # the error itself arrives.
            kind = getattr(error, "exc_type", type(error).__name__)
            raise Unsupported("service_too_old", f"the compute service does not serve {method}: {kind}") from None
        if "sealed" in answer:
            raise SealedFailure(SealedAnswer.from_dict(answer["sealed"]))
        told = answer.get("error")
        if told:
            raise unsuccessful(Outcome(told["outcome"]), told["code"], told["message"])
        return answer.get("result")


def _require_broker(transport: Any) -> None:
    """Unreachable unless one of the transport's brokers takes connections; oslo.messaging itself tries for ever."""
    hosts = oslo_messaging.TransportURL.parse(transport.conf).hosts
    for host in hosts:
        try:
            with socket.create_connection((host.hostname, host.port or _AMQP_PORT), _BROKER_TIMEOUT):
                return
        except OSError:
            continue
    if hosts:
        raise Unreachable("bus_unreachable", "the message bus cannot be reached")
