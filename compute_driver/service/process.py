"""`xenward-compute`, the resident process: gets its host, ends what the one before left, serves until it is stopped."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from agent_protocol.outcomes import Unreachable, Unsuccessful

from .. import bus, concurrency, config
from ..observing import logs, systemd
from ..observing.redaction import secrets_of
from .signals import StopSignal

if TYPE_CHECKING:
    from .assembly import Service
    from .leases import Flag
    from .watching import Watching

LOG = logging.getLogger(__name__)

TIDY_INTERVAL = 3600.0
"""Seconds from one look for images that nobody uses, half-made disks and old rows of the database to the next."""

ABANDONED_AFTER = 86400.0
"""Seconds after which a disk that is still half made is nobody's: the longest transfers are over by then."""

_BROKER_PAUSE = 1.0
"""Seconds between two looks for a broker."""

_JOIN_TIMEOUT = 10.0
"""Seconds that a stop waits for regular work that is under way."""

LOST = 75
"""Exit status when another service has the host: start again, and wait for it (EX_TEMPFAIL of sysexits.h)."""


def main() -> int:
    """`xenward-compute`: serve one host until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="xenward-compute", description="Serve the Xen guests of one compute host.")
    parser.add_argument("--config-file", help="configuration to read (default: $XENWARD_CONFIG_FILE, then /etc)")
    parser.add_argument("--debug", action="store_true", help="log more")
    options = parser.parse_args()
    try:
        conf = config.load(options.config_file)
        concurrency.set_up(conf.concurrency_backend)
        level = "debug" if options.debug else conf.logging.level
        logs.set_up(conf.logging.format, level, host=conf.host, secrets=secrets_of(conf, config.list_opts()))
        return serve(conf)
    except cfg.Error as error:
        print(f"xenward-compute: {error}", file=sys.stderr)
    except Unsuccessful as error:
        print(f"xenward-compute: {error} ({error.code})", file=sys.stderr)
    return 1


def serve(conf: Any) -> int:
    """Serve until a signal says to stop; the exit status."""
    stop = StopSignal()
    transport = bus.transport(conf)
    if bus.is_embedded(conf):
        print("xenward-compute: transport_url must name a bus that other processes reach", file=sys.stderr)
        return 1
    logs.hide(secrets_of(conf, bus.list_opts()))
    # Imported late: the process's edge decides on concurrency first.
    from ..notifications import Notifications
    from .assembly import assembled, serving
    from .watching import Watching

    if not _await_broker(transport, stop):
        return 0
    watching = Watching()
    with assembled(conf, [watching, Notifications(conf, conf.host)]) as it, watching.shown(conf, it):
        systemd.status(f"waiting for host {conf.host}")
        if not it.keeper.acquire(stop):
            return 0
        it.manager.init_host()
        watching.reconciled(it, it.reconcile())
        it.follow()
        with serving(conf, transport, it, drain=conf.service.drain_timeout), _regular_work(conf, it, watching):
            LOG.info("serving host %s", conf.host)
            systemd.ready(f"serving host {conf.host}")
            print("ready", flush=True)
            while not stop.wait(1.0) and not it.keeper.lost.is_set():
                pass
            systemd.stopping("ending what is in hand")
        return LOST if it.keeper.lost.is_set() else 0


def _await_broker(transport: Any, stop: Flag) -> bool:
    """Wait until a broker lets us in. False when `stop` was set before that; Refused when none ever will."""
    told = ""
    while not stop.is_set():
        try:
            bus.require_broker(transport)
            return True
        except Unreachable as error:
            if error.message != told:
                LOG.warning("waiting for the message bus: %s", error)
                told = error.message
        stop.wait(_BROKER_PAUSE)
    return False


@contextmanager
def _regular_work(conf: Any, it: Service, watching: Watching) -> Iterator[None]:
    """Does what is due from time to time while the block runs."""
    from .assembly import periodically

    identity = it.register(version("xenward"))
    stop = threading.Event()

    def look() -> None:
        watching.look(it)
        watching.reconciled(it, it.reconcile())
        it.manager.follow_all()

    def tidy() -> None:
        it.manager.manage_image_cache(conf.images.evict_after)
        it.manager.remove_abandoned(ABANDONED_AFTER)
        if conf.service.keep_actions:
            it.purge(datetime.now(timezone.utc) - timedelta(days=conf.service.keep_actions))

    threads = [
        periodically(conf.service.reconcile_interval, look, stop),
        periodically(conf.service.heartbeat, lambda: it.repository.beat_service(identity), stop),
        periodically(TIDY_INTERVAL, tidy, stop),
    ]
    period = systemd.watchdog_period()
    if period is not None:
        # A service that hangs does not keep its lease.
        threads.append(periodically(period / 3, lambda: it.keeper.is_kept and systemd.alive(), stop))
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(_JOIN_TIMEOUT)
        with suppress(Unsuccessful):
            it.repository.stop_service(identity)
