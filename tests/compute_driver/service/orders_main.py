"""A controller: makes instances, and gives orders on each, one after the other, until it is told to end.

python -m tests.compute_driver.service.orders_main CONFIG INSTANCES REPORT

It ends when its standard input does, once every order has one final answer. Each order is a line of JSON in REPORT.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

from agent_protocol.outcomes import Unsuccessful
from compute_driver import bus, concurrency, config
from compute_driver.context import RequestContext

TRY = 4.0
"""Seconds that one attempt has. The order may lie with a service that is stopped."""

NOT_FINAL = (
    "service_no_answer",
    "service_unreachable",
    "bus_unreachable",
    "order_in_flight",
    "lease_lost",
    "service_stopping",
    "not_recorded",
    "database_unavailable",
)
"""Codes after which the same order is sent again."""

ORDERS: list[tuple[str, dict[str, Any]]] = [
    ("start_instance", {}),
    ("reboot_instance", {"reboot_type": "HARD"}),
    ("pause_instance", {}),
    ("unpause_instance", {}),
    ("stop_instance", {"timeout": 0.0}),
]
"""On a stopped instance, in this order, and again. One that was interrupted leaves the next ones refused, at worst."""


class Controller:
    """client: of the bus. report: where orders are written to."""

    def __init__(self, client: Any, report: Any) -> None:
        self._client = client
        self._report = report
        self._guard = threading.Lock()
        self._ended = threading.Event()

    def order(self, method: str, **arguments: Any) -> tuple[str, str]:
        """Outcome and code of one order, sent as often as it takes. The same is written down."""
        context = RequestContext.new("controller").for_order()
        attempts = []
        while True:
            try:
                self._client.order(context, method, **arguments)
                outcome, code = "succeeded", ""
            except Unsuccessful as error:
                outcome, code = str(error.outcome), error.code
            attempts.append(f"{outcome} {code}".strip())
            if code == "order_succeeded":
                outcome, code = "succeeded", ""
            if code not in NOT_FINAL:
                break
            # So as not to ask a service that is ending again and again.
            threading.Event().wait(0.1)
        row = {
            "order": context.order_id,
            "method": method,
            "instance": arguments.get("target") or arguments.get("instance_uuid"),
            "outcome": outcome,
            "code": code,
            "attempts": attempts,
        }
        with self._guard:
            self._report.write(json.dumps(row) + "\n")
            self._report.flush()
        return outcome, code

    def work(self, number: int) -> None:
        """Give orders on an instance of one's own."""
        sizes = {"memory_mb": 64, "vcpus": 1, "root_gb": 1}
        instance = str(uuid.uuid4())
        self.order(
            "build_and_run_instance", instance_uuid=instance, display_name=f"web-{number}", power_on=False, **sizes
        )
        while not self._ended.is_set():
            for method, arguments in ORDERS:
                self.order(method, target=instance, **arguments)
                self._ended.wait(random.uniform(0.0, 0.02))

    def run(self, instances: int) -> None:
        """Work on so many, until standard input ends."""
        threads = [threading.Thread(target=self.work, args=(number,)) for number in range(instances)]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        self._ended.set()
        for thread in threads:
            thread.join()


def main() -> int:
    file, instances, report = sys.argv[1:]
    conf = config.load(file)
    concurrency.set_up("threading")
    from compute_driver import rpc

    client = rpc.ComputeClient(bus.transport(conf), conf.host, timeout=TRY, order_timeout=TRY)
    with Path(report).open("w") as lines:
        Controller(client, lines).run(int(instances))
    return 0


if __name__ == "__main__":
    sys.exit(main())
