"""A caller of the service: sends orders, and sends them again under the same id as long as it is in doubt."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from agent_protocol.outcomes import Unsuccessful
from compute_driver.db.records import Action

from .orders import Order
from .world import PATIENCE, World, eventually, in_thread

AGAIN = 1.0
"""Seconds after which a caller that heard nothing, and finds no record either, sends an order again."""


class Sender:
    """Sends orders, each by a thread of its own: an answer may never come."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._guard = threading.Lock()

    def send(self, order: Order) -> None:
        """Send an order, as a call or as a cast."""
        order.sent = time.monotonic()
        order.attempts += 1
        in_thread(lambda: self._send(order))

    def _send(self, order: Order) -> None:
        client = self._world.client
        try:
            if order.waits:
                client.order(order.context, order.wanted.method, **order.arguments)
            else:
                client.cast(order.context, order.wanted.method, **order.arguments)
                return
            answer = ("succeeded", "")
        except Unsuccessful as error:
            answer = (str(error.outcome), error.code)
        with self._guard:
            order.answers.append(answer)

    def settle(self, orders: Sequence[Order], patience: float = PATIENCE) -> dict[str, Action]:
        """Wait until each has its final outcome and nothing is in hand any more; gives their rows, by order_id.

        What has no row was lost with a service, or with the broker: it is sent again.
        """
        rows: dict[str, Action] = {}

        def is_settled() -> bool:
            for order in orders:
                if order.order_id in rows:
                    continue
                row = self._world.repository.get_action(order.order_id)
                if row is None:
                    if time.monotonic() - order.sent > AGAIN:
                        self.send(order)
                elif row.outcome is not None:
                    rows[order.order_id] = row
            return len(rows) == len(orders) and self.is_quiet()

        try:
            eventually(is_settled, "every action ends in a final outcome", patience, pause=0.03)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._unsettled(orders, rows)}") from None
        return rows

    def is_quiet(self) -> bool:
        """Whether nobody works on anything, as far as is recorded."""
        repository = self._world.repository
        if repository.unfinished_actions(self._world.host):
            return False
        return all(it.task_state is None for it in self._world.instances())

    def _unsettled(self, orders: Sequence[Order], rows: dict[str, Action]) -> str:
        lines = [f"no outcome: {it}" for it in orders if it.order_id not in rows]
        lines += [f"unfinished: {it}" for it in self._world.repository.unfinished_actions(self._world.host)]
        lines += [f"in hand: {it.uuid} {it.task_state}" for it in self._world.instances() if it.task_state]
        return "\n".join(lines)
