"""A hundred orders at once, and in their middle the broker, the database or the pool's coordinator goes away.

python -m tests.contract.crashes.restarts WHAT [--seed N]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent_protocol.outcomes import Outcome, Unsuccessful
from compute_driver.context import RequestContext
from tools.labs.services import private_mariadb, private_postgresql, private_rabbitmq

from . import invariants
from .invariants import IN_DOUBT
from .orders import At, Order, creation, order_for
from .sending import Sender
from .world import PATIENCE, World, eventually, in_thread, world

INSTANCES = 25
EACH = 4
"""Callers for each instance, each with one order."""

UNDER_WAY = 20
"""Orders that must be being carried out when something goes away."""

PAUSE = 0.3
"""Seconds until a caller asks again."""

QUIET_KINDS = ("metadata", "snapshot", "attach volume", "attach interface")
"""Orders whose effects do not get into each other's way: each instance gets three of them, and one of the others."""

POWER_KINDS = ("reboot hard", "stop", "live migration", "detach interface")


class Caller:
    """Somebody who wants one thing of an instance, and asks until it is certain what became of it."""

    def __init__(self, at: World, order: Order) -> None:
        self._world = at
        self.orders = [order]
        self._thread = in_thread(self._insist)

    def join(self, timeout: float) -> bool:
        """Whether it is certain within so many seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _insist(self) -> None:
        while True:
            order = self.orders[-1]
            try:
                self._world.client.order(order.context, order.wanted.method, **order.arguments)
                order.answers.append(("succeeded", ""))
                return
            except Unsuccessful as error:
                order.answers.append((str(error.outcome), error.code))
                if error.code == "instance_busy":
                    # Another caller has the turn: this one asks for the same anew.
                    self.orders.append(replace(order, context=RequestContext.new("crash-test").for_order(), answers=[]))
                elif error.code not in IN_DOUBT or self._has_ended(order):
                    return
            time.sleep(PAUSE)

    def _has_ended(self, order: Order) -> bool:
        """Whether there is a record of its end, which may be that nobody knows."""
        try:
            action = self._world.client.ask(order.context, "get_order", order_id=order.order_id)
        except Unsuccessful:
            return False
        return action["outcome"] is not None


Restart = Callable[[World, Any], None]


def _stopped(it: World, server: Any) -> None:
    server.stop()
    time.sleep(it.chance.uniform(0.0, 0.5))
    server.start()


def _killed(it: World, server: Any) -> None:
    server.kill()
    time.sleep(it.chance.uniform(0.0, 0.5))
    server.start()


def _failed_over(it: World, _: Any) -> None:
    (ref,) = it.xenapi.host.get_by_name_label(it.simulator.hosts[1].name)
    it.control.change_coordinator(ref)
    it.forget_session()


@contextmanager
def _no_server(_: Path) -> Iterator[None]:
    yield None


RESTARTS: Mapping[str, tuple[Any, Restart]] = {
    "broker stopped": (private_rabbitmq, _stopped),
    "broker killed": (private_rabbitmq, _killed),
    "postgresql killed": (private_postgresql, _killed),
    "mariadb killed": (private_mariadb, _killed),
    "coordinator failed over": (_no_server, _failed_over),
}
"""What goes away: how it is had, and how it goes and comes back."""


@contextmanager
def _place(what: str, seed: int) -> Iterator[tuple[World, Any]]:
    having, _ = RESTARTS[what]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xw-server-")))
        server = stack.enter_context(having(directory))
        named: dict[str, str] = {}
        if "broker" in what:
            named["broker"] = server.url
        elif server is not None:
            named["url"] = server.url
        yield stack.enter_context(world("postgresql", seed, "--no-agent", **named)), server


def run(what: str, seed: int) -> str:
    """Let it go away in the middle; gives the figures. AssertionError when anything does not hold."""
    with _place(what, seed) as (it, server):
        it.service.start()
        it.service.await_ready()
        it.control.log_calls()
        sender = Sender(it)
        made = [creation(it, agents=0.0, images=1.0, powered=1.0) for _ in range(INSTANCES)]
        for order in made:
            sender.send(order)
        sender.settle(made)
        it.control.clear_calls()
        callers = [Caller(it, order) for order in _orders(it)]
        began = time.monotonic()
        eventually(lambda: len(it.repository.unfinished_actions(it.host)) >= UNDER_WAY, "orders are under way")
        time.sleep(it.chance.uniform(0.0, 0.3))
        under_way = len(it.repository.unfinished_actions(it.host))
        RESTARTS[what][1](it, server)
        away = time.monotonic() - began
        for caller in callers:
            assert caller.join(max(0.0, began + PATIENCE - time.monotonic())), f"no end: {caller.orders[-1]}"
        orders = [order for caller in callers for order in caller.orders]
        rows = sender.settle(orders)
        _check(it, orders, rows)
        outcomes = Counter(str(rows[caller.orders[-1].order_id].outcome) for caller in callers)
        assert it.service.terminate() == 0
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    asked = sum(len(order.answers) for order in orders)
    return (
        f"{what}: {len(callers)} callers ended with {told}; {under_way} orders were under way, {asked} were sent in "
        f"all; {away:.1f} s until it was back, {time.monotonic() - began:.1f} s until all had ended"
    )


def _orders(it: World) -> list[Order]:
    seen = it.look()
    orders = []
    for row in it.instances():
        guest = seen.guest(row.uuid)
        assert guest is not None
        kinds = [*it.chance.sample(QUIET_KINDS, EACH - 1), it.chance.choice(POWER_KINDS)]
        for kind in kinds:
            order = order_for(kind, At(it, row, guest))
            orders.append(order or order_for("stop", At(it, row, guest)))
    it.chance.shuffle(orders)
    return [order for order in orders if order is not None]


def _check(it: World, orders: list[Order], rows: Mapping[str, Any]) -> None:
    wrong: list[str] = []
    # What was only busy, or never had a chance, is not what its caller got in the end.
    final = [order for order in orders if rows[order.order_id].outcome is not Outcome.BUSY]

    def holds() -> bool:
        seen = it.look()
        wrong[:] = [
            *invariants.one_row_each(it, orders),
            *invariants.answers_are_kept(orders, rows),
            *invariants.claims_are_true(it, final, rows, seen, guests_died=False),
            *invariants.done_once(final, it.control.read_calls(), seen),
            *invariants.instances_are_whole(it, seen),
            *invariants.nothing_is_left(it, seen),
            *invariants.images_are_whole(it),
            *invariants.sessions_are_ended(it),
        ]
        return not wrong

    try:
        eventually(holds, "all invariants", 20.0, pause=0.2)
    except AssertionError:
        raise AssertionError("\n".join(wrong)) from None


def main() -> int:
    """0 when all held that must."""
    parser = argparse.ArgumentParser(prog="tests.contract.crashes.restarts")
    parser.add_argument("what", choices=RESTARTS)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    print(run(options.what, seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
