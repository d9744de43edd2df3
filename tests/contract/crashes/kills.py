"""The ways in which something is killed, and the moments."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from compute_driver.xenapi.connection.session import ORIGINATOR
from tools.simulator.control import ControlError

from .orders import Order
from .world import World, in_thread
from .zygote import WRITES

_USUAL = 0.6
"""Seconds that an order is taken to last before one of its kind was seen to end."""

_LONGEST = 4.0
"""Seconds that a moment is waited for: it may never come."""

Seconds = Mapping[str, Sequence[float]]
Calls = Mapping[str, "set[str]"]


class Crash:
    """Something that is killed. name: of what and when. guests_die: whether guests may end by it, too."""

    guests_die = False

    def __init__(self, name: str, happen: Callable[[Sequence[Order]], None], *, guests_die: bool = False) -> None:
        self._name = name
        self.happen = happen
        self.guests_die = guests_die

    def __str__(self) -> str:
        return self._name

    @classmethod
    def nothing(cls) -> Crash:
        """All goes well."""
        return cls("nothing", lambda orders: None)


Kill = Callable[[World, Sequence[Order], Seconds, Calls], Crash]


def _moment(world: World, orders: Sequence[Order], seconds: Seconds) -> float:
    """Seconds from now, within what one of the orders usually takes, or a little more."""
    kind = world.chance.choice(orders).kind
    known = seconds.get(kind, ())
    usual = statistics.median(known) if known else _USUAL
    return world.chance.uniform(0.0, 1.2 * usual + 0.05)


def _at_a_moment(world: World, orders: Sequence[Order], seconds: Seconds, calls: Calls) -> Crash:
    wait = _moment(world, orders, seconds)

    def happen(_: Sequence[Order]) -> None:
        time.sleep(wait)
        world.restart_service()
        world.service.await_ready()

    return Crash(f"SIGKILL of the service after {wait:.3f} s", happen)


def _at_a_call(world: World, orders: Sequence[Order], seconds: Seconds, calls: Calls) -> Crash:
    """XenServer holds a call, the service is killed, and the call goes on: before the next service, or beside it."""
    known = sorted(it for it in calls.get(world.chance.choice(orders).kind, ()) if not it.startswith(_NOT_HELD))
    changing = [it for it in known if ".get_" not in it]
    chosen = changing if changing and world.chance.random() < 0.8 else known
    if not chosen:
        return _at_a_moment(world, orders, seconds, calls)
    name, nth, late = world.chance.choice(chosen), world.chance.choice((1, 1, 1, 2, 3)), world.chance.random() < 0.6
    wait = world.chance.uniform(0.0, 1.0) if late else 0.0

    def happen(_: Sequence[Order]) -> None:
        rule = world.control.add_rule(name, "hang", nth=nth, originator=ORIGINATOR)
        _await(world, lambda: _matches(world, rule) >= nth)
        world.kill_service()
        if late:
            world.service.start()
            time.sleep(wait)
            world.control.remove_rule(rule)
        else:
            world.control.remove_rule(rule)
            world.service.start()
        world.service.await_ready()

    return Crash(
        f"SIGKILL of the service at {name} {nth}, which goes on {f'{wait:.2f} s later' if late else ''}", happen
    )


def _await(world: World, has_come: Callable[[], bool]) -> None:
    """Wait for a moment, which does not come any more when nothing is being done."""
    began = time.monotonic()
    while not has_come() and time.monotonic() < began + _LONGEST:
        if time.monotonic() > began + _USUAL and not world.repository.unfinished_actions(world.host):
            return
        time.sleep(0.01)


_NOT_HELD = ("event.", "session.", "pool.get", "host.get")
"""Calls that are not about an order."""


def _matches(world: World, rule: int) -> int:
    return next((it.matches for it in world.control.list_rules() if it.id == rule), 0)


def _at_a_write(world: World, orders: Sequence[Order], seconds: Seconds, calls: Calls) -> Crash:
    """It kills itself right before, or right after, it has written something to the database."""
    where = f"{world.chance.choice(WRITES)} {world.chance.choice(('before', 'after'))}"
    wait = _moment(world, orders, seconds) if world.chance.random() < 0.5 else 0.0

    def happen(_: Sequence[Order]) -> None:
        time.sleep(wait)
        world.trigger.with_suffix(".new").write_text(where)
        world.trigger.with_suffix(".new").rename(world.trigger)
        _await(world, lambda: not world.trigger.exists())
        world.trigger.unlink(missing_ok=True)
        world.restart_service()
        world.service.await_ready()

    return Crash(f"SIGKILL of the service at {where}", happen)


def _service(world: World, orders: Sequence[Order], seconds: Seconds, calls: Calls) -> Crash:
    way = world.chance.choice((_at_a_moment, _at_a_call, _at_a_write))
    return way(world, orders, seconds, calls)


def _again(world: World, orders: Sequence[Order], seconds: Seconds, calls: Calls) -> Crash:
    """The next one is killed while it ends what the first one left."""
    first = _service(world, orders, seconds, calls)
    waits = [world.chance.uniform(0.02, 0.6) for _ in range(world.chance.choice((1, 1, 2)))]

    def happen(given: Sequence[Order]) -> None:
        first.happen(given)
        for wait in waits:
            world.restart_service()
            time.sleep(wait)
        world.restart_service()
        world.service.await_ready()

    return Crash(f"{first}, and again while it reconciles", happen)


def _agent(world: World, orders: Sequence[Order], seconds: Seconds, calls: Calls) -> Crash:
    """The agents of guests that something is done to are killed, and started again."""
    waits = [_moment(world, orders, seconds) for _ in range(world.chance.choice((1, 2, 3)))]

    def happen(given: Sequence[Order]) -> None:
        for wait in waits:
            time.sleep(wait)
            for order in given:
                if order.before is not None:
                    # It may be off by now, or gone.
                    with suppress(ControlError):
                        world.control.kill_agent(order.before.ref, restart=True)

    return Crash(f"SIGKILL of the agents after {' and '.join(f'{it:.3f} s' for it in waits)}", happen)


def _host(world: World, orders: Sequence[Order], seconds: Seconds, calls: Calls) -> Crash:
    """A host of the pool loses its power, its guests with it, and comes back."""
    wait, away = _moment(world, orders, seconds), world.chance.uniform(0.0, 1.5)
    node = world.chance.choice(world.simulator.hosts).name

    def happen(_: Sequence[Order]) -> None:
        (ref,) = world.xenapi.host.get_by_name_label(node)
        time.sleep(wait)
        world.control.crash_host(ref)
        time.sleep(away)
        world.control.start_host(ref)
        world.forget_session()

    return Crash(f"power cut of {node} after {wait:.3f} s for {away:.1f} s", happen, guests_die=True)


def _plugin(world: World, orders: Sequence[Order], seconds: Seconds, calls: Calls) -> Crash:
    """The dom0 plugin hangs for a while, or its processes are killed."""
    wait, hangs = _moment(world, orders, seconds), world.chance.random() < 0.4
    length = world.chance.uniform(0.1, 1.5)

    def happen(_: Sequence[Order]) -> None:
        if hangs:
            rule = world.control.hang_plugin("xenward.*")
            time.sleep(wait + length)
            world.control.remove_rule(rule)
            return
        time.sleep(wait)
        deadline = time.monotonic() + length
        while time.monotonic() < deadline:
            world.kill_plugins()
            time.sleep(0.01)

    what = "hang" if hangs else "SIGKILL"
    return Crash(f"{what} of the plugin after {wait:.3f} s for {length:.1f} s", happen)


def _toolstack(world: World, orders: Sequence[Order], seconds: Seconds, calls: Calls) -> Crash:
    """xapi is restarted: it cuts all connections, and forgets what it was asked to do."""
    wait, away = _moment(world, orders, seconds), world.chance.uniform(0.05, 1.0)

    def happen(_: Sequence[Order]) -> None:
        time.sleep(wait)
        world.control.restart_toolstack(away)

    return Crash(f"restart of the toolstack after {wait:.3f} s for {away:.1f} s", happen)


def _both(world: World, orders: Sequence[Order], seconds: Seconds, calls: Calls) -> Crash:
    """The service, and something else."""
    other = world.chance.choice((_agent, _host, _plugin, _toolstack))(world, orders, seconds, calls)
    first = _service(world, orders, seconds, calls)

    def happen(given: Sequence[Order]) -> None:
        beside = in_thread(lambda: other.happen(given))
        first.happen(given)
        beside.join()

    return Crash(f"{first}, and {other}", happen, guests_die=other.guests_die)


KILLS: Mapping[str, Kill] = {
    "service": _service,
    "again": _again,
    "agent": _agent,
    "host": _host,
    "plugin": _plugin,
    "toolstack": _toolstack,
    "both": _both,
}
