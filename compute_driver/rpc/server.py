"""The server of the bus: every method of the manager that callers may use, under Nova's names where Nova has them."""

from __future__ import annotations

from typing import Any

import oslo_messaging

from ..manager import ComputeManager
from .client import EXCHANGE, TOPIC, VERSION
from .guests import GuestEndpoint
from .instances import InstanceEndpoint
from .questions import QuestionEndpoint


class ComputeEndpoint(InstanceEndpoint, GuestEndpoint, QuestionEndpoint):
    """The methods that the bus offers."""

    target = oslo_messaging.Target(version=VERSION)


def server(transport: Any, manager: ComputeManager, host: str) -> Any:
    """An RPC server for `host`, to be started and stopped. It runs calls as concurrency.set_up has prepared."""
    return oslo_messaging.get_rpc_server(
        transport,
        oslo_messaging.Target(exchange=EXCHANGE, topic=TOPIC, server=host),
        [ComputeEndpoint(manager)],
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )
