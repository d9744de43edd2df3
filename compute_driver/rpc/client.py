"""The client of the bus: what controllers and the command line call the compute service with."""

from __future__ import annotations

import logging
import time
from typing import Any

import oslo_messaging

from agent_protocol.outcomes import Outcome, Refused, Unknown, Unreachable, Unsupported, unsuccessful

from ..bus import require_broker
from ..context import RequestContext
from ..sealing import SealedAnswer, SealedFailure

LOG = logging.getLogger(__name__)

TOPIC = "compute"
EXCHANGE = "xenward"

VERSION = "2.0"
"""Of the methods and their arguments. A newer minor one serves older callers."""

CAST_LIFETIME = 600.0
"""Seconds that an order that nobody waits for is wanted, should no service run meanwhile."""

_HEARTBEAT = 30
"""Seconds within which the server shows that a long call is still being worked on."""

_FIRST_LOOK = 0.1
_LONGEST_LOOK = 2.0


class ComputeClient:
    """Calls the compute service of one host. The methods and their arguments are those of ComputeEndpoint.

    Each order has an order_id: whoever is in doubt may send it again under the same one (RequestContext.for_order), and
    it is carried out once.

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
        # One that no service began in the time after which it would be given up must not be begun later.
        ordered = context if context.order_id else context.for_order(seconds=_HEARTBEAT)
        return self._call(ordered, method, self._order_timeout, arguments)

    def cast(self, context: RequestContext, method: str, **arguments: Any) -> str:
        """Have something changed without waiting for it; gives its order_id, for result().

        Raises Unreachable when it was not sent for certain, Unknown when that cannot be told: send it again under the
        same order_id. The bus keeps it for CAST_LIFETIME when no service runs.
        """
        require_broker(self._transport)
        ordered = context if context.order_id else context.for_order(seconds=CAST_LIFETIME)
        try:
            self._client.prepare(retry=0).cast(ordered.to_dict(), method, **arguments)
        except oslo_messaging.MessageDeliveryFailure:
            raise _in_doubt() from None
        assert ordered.order_id is not None
        return ordered.order_id

    def result(self, context: RequestContext, order_id: str, *, timeout: float) -> dict[str, Any]:
        """The record of an order once it has ended, whatever its outcome; see Action.

        Unknown when that takes longer than `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        pause = _FIRST_LOOK
        while True:
            try:
                action: dict[str, Any] = self.ask(context, "get_order", order_id=order_id)
                if action["outcome"] is not None:
                    return action
            except Refused as error:
                # It may still be on its way.
                if error.code != "order_not_found":
                    raise
            if time.monotonic() + pause > deadline:
                raise Unknown("order_not_ended", f"order {order_id} did not end in {timeout:g} s")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_LOOK)

    def _call(self, context: RequestContext, method: str, timeout: float, arguments: dict[str, Any]) -> Any:
        require_broker(self._transport)
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
            raise _in_doubt() from None
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


def _in_doubt() -> Unknown:
    # The broker may have taken the message, and gone before it said so.
    return Unknown("bus_lost", "the message bus went away while the message was handed to it")
