"""Rounds of random orders, each with a crash in the middle, and what must hold after each."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent_protocol.outcomes import Outcome
from compute_driver.db.records import Action

from . import invariants
from .kills import KILLS, Crash
from .orders import Order, any_order, creation
from .sending import Sender
from .world import World, eventually

INSTANCES = 7
"""That there are about so many gives each round something to choose from."""

IN_FLIGHT = 4
"""Orders that are under way together when something is killed."""

SETTLED = 20.0
"""Seconds until everything that must hold does: what follows the guests by itself comes a moment late."""


class Violated(AssertionError):
    """Raised when an invariant does not hold. Its text says which, and after what."""


@dataclass
class Figures:
    """What a campaign did: rounds by crash; orders by kind and outcome; codes that reconciliation gave."""

    rounds: Counter[str] = field(default_factory=Counter)
    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    codes: Counter[str] = field(default_factory=Counter)
    interrupted: Counter[str] = field(default_factory=Counter)
    again: int = 0
    seconds: float = 0.0


class Campaign:
    """Gives orders, lets things crash, and checks.

    kinds: of crashes, keys of KILLS.
    """

    def __init__(self, world: World, kinds: Sequence[str]) -> None:
        self._world = world
        self._kinds = list(kinds)
        self._sender = Sender(world)
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._calls: dict[str, set[str]] = defaultdict(set)
        self._orders: list[tuple[Order, Action]] = []
        self.figures = Figures()

    def run(self, rounds: int) -> Figures:
        """So many rounds. Violated at the first thing that does not hold."""
        began = time.monotonic()
        world = self._world
        world.service.start()
        world.service.await_ready()
        world.control.log_calls()
        world.control.mark()
        self._round(Crash.nothing(), [creation(world) for _ in range(INSTANCES)])
        for number in range(rounds):
            kind = self._kinds[number % len(self._kinds)]
            orders = self._choose()
            crash = KILLS[kind](world, orders, self._seconds, self._calls)
            self._round(crash, orders)
            self.figures.rounds[kind] += 1
        self._answers()
        world.service.terminate()
        self.figures.seconds = time.monotonic() - began
        return self.figures

    def _choose(self) -> list[Order]:
        world = self._world
        seen = world.look()
        rows = sorted(world.instances(), key=lambda it: it.id)
        orders = []
        missing = INSTANCES - len(rows)
        for _ in range(min(2, max(0, missing))):
            orders.append(creation(world))
        world.chance.shuffle(rows)
        for row in rows[: IN_FLIGHT - len(orders)]:
            orders.append(any_order(world, row, seen.guest(row.uuid)))
        for order in orders:
            order.waits = world.chance.random() < 0.6
        return orders

    def _round(self, crash: Crash, orders: list[Order]) -> None:
        world = self._world
        world.control.clear_calls()
        since = world.logged()
        for order in orders:
            self._sender.send(order)
        try:
            crash.happen(orders)
            rows = self._sender.settle(orders)
            self._learn(orders, rows)
            self._check(crash, orders, rows)
        except (AssertionError, OSError) as error:
            sent = "\n".join(f"  {it} {it.wanted.method}" for it in orders)
            raise Violated(f"after {crash}:\n{error}\norders:\n{sent}\n{world.said(since)[-12000:]}") from error

    def _learn(self, orders: Sequence[Order], rows: dict[str, Action]) -> None:
        calls = {it.name for it in self._world.control.read_calls() if it.originator != "crash-test"}
        for order in orders:
            row = rows[order.order_id]
            self._orders.append((order, row))
            self.figures.outcomes[order.kind][str(row.outcome)] += 1
            self.figures.again += order.attempts > 1
            if row.code in ("found_done", "interrupted", "service_ended"):
                self.figures.codes[row.code] += 1
                self.figures.interrupted[order.kind] += 1
            elif row.outcome is Outcome.SUCCEEDED and row.seconds is not None:
                self._seconds[order.kind].append(row.seconds)
            self._calls[order.kind] |= calls

    def _check(self, crash: Crash, orders: Sequence[Order], rows: dict[str, Action]) -> None:
        world = self._world
        wrong: list[str] = []

        def holds() -> bool:
            seen = world.look()
            wrong[:] = [
                *invariants.one_row_each(world, orders),
                *invariants.claims_are_true(world, orders, rows, seen, guests_died=crash.guests_die),
                *invariants.passwords_are_whole(orders, rows, seen),
                *invariants.done_once(orders, world.control.read_calls(), seen),
                *invariants.instances_are_whole(world, seen),
                *invariants.nothing_is_left(world, seen),
                *invariants.images_are_whole(world),
                *invariants.sessions_are_ended(world),
            ]
            return not wrong

        try:
            eventually(holds, "all invariants", SETTLED, pause=0.1)
        except AssertionError:
            ends = "\n".join(f"  {rows[it.order_id]}" for it in orders)
            raise AssertionError("\n".join(wrong) + f"\nrows:\n{ends}") from None

    def _answers(self) -> None:
        """What callers were told, also long after."""
        rows = {order.order_id: row for order, row in self._orders}
        wrong = list(invariants.answers_are_kept([order for order, _ in self._orders], rows))
        if wrong:
            raise Violated("\n".join(wrong))


def table(figures: Figures) -> str:
    """The figures, for people."""
    lines = [f"{'killed':24} rounds"]
    lines += [f"{kind:24} {count:6}" for kind, count in sorted(figures.rounds.items())]
    outcomes = [str(it) for it in Outcome]
    lines += ["", f"{'order':18} {'sent':>6} {'interrupted':>12} " + " ".join(f"{it:>11}" for it in outcomes)]
    for kind, counts in sorted(figures.outcomes.items()):
        cells = " ".join(f"{counts[it]:11}" for it in outcomes)
        lines.append(f"{kind:18} {sum(counts.values()):6} {figures.interrupted[kind]:12} {cells}")
    total = sum((Counter(it) for it in figures.outcomes.values()), Counter())
    cells = " ".join(f"{total[it]:11}" for it in outcomes)
    lines.append(f"{'all':18} {sum(total.values()):6} {sum(figures.interrupted.values()):12} {cells}")
    lines += ["", "interrupted orders ended as " + ", ".join(f"{k} {v}" for k, v in sorted(figures.codes.items()))]
    lines.append(f"orders that had to be sent again: {figures.again}")
    lines.append(f"seconds in all: {figures.seconds:.0f}")
    return "\n".join(lines)
