"""The compute service: database, driver, manager and bus put together, as a process or inside another one."""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from agent_protocol.outcomes import Unsuccessful

from . import concurrency, config

if TYPE_CHECKING:
    from .manager import ComputeManager

LOG = logging.getLogger(__name__)

EMBEDDED = "fake://"
"""The bus within one process, and the default."""

IMAGE_CACHE_PERIOD = 3600.0
"""Seconds from one look for cached images that nobody uses to the next."""


def transport(conf: Any) -> Any:
    """The RPC transport that `[DEFAULT] transport_url` names; EMBEDDED when it names none."""
    import oslo_messaging
    from oslo_messaging import opts

    for group, options in opts.list_opts():
        conf.register_opts(options, group=group)
    conf.set_default("transport_url", EMBEDDED)
    return oslo_messaging.get_rpc_transport(conf)


def is_embedded(conf: Any) -> bool:
    """Whether the bus ends in this process, so that the service must run in it too. Call transport() first."""
    return str(conf.transport_url).startswith(EMBEDDED)


@contextmanager
def running(conf: Any, bus: Any, *, brief: bool = False) -> Iterator[ComputeManager]:
    """The compute service of `conf.host`, serving `bus` while the block runs; gives its manager.

    brief: for one who gives a few orders and waits for every answer. He needs no greeting of the hypervisor at the
    start, whose state his orders will tell, and no wait at the end, which costs a second: so long do oslo.messaging's
    idle workers take to notice it.
    """
    # Imported late: the process's edge decides on concurrency first.
    from . import rpc
    from .db import migrate
    from .db.repository import Repository
    from .images.services import load_service
    from .manager import ComputeManager
    from .memory import RepositoryMemory
    from .xenapi.connection.session import Connection
    from .xenapi.driver import XenServerDriver

    settings = conf.xenserver
    connection = Connection(
        settings.url,
        settings.username,
        settings.password,
        timeout=settings.timeout,
        ca_file=settings.ca_file,
        fingerprints=tuple(settings.fingerprint),
        allow_plain_http=settings.allow_plain_http,
    )
    url = config.database_url(conf)
    migrate.upgrade(url)
    repository = Repository(url)
    driver = XenServerDriver(
        connection,
        RepositoryMemory(repository),
        agent_policy=conf.agent.protocol,
        agent_timeout=conf.agent.timeout,
        boot_timeout=conf.agent.boot_timeout,
        repository=settings.sr,
        allow_unlocked=settings.allow_unlocked,
        stall_timeout=conf.images.stall_timeout,
        import_stale_after=conf.images.import_stale_after,
    )
    manager = ComputeManager(repository, driver, conf.host, load_service(conf.images.service, conf))
    with _presence(conf, manager.close_unfinished):
        if not brief:
            manager.init_host()
        server = rpc.server(bus, manager, conf.host)
        server.start()
        try:
            yield manager
        finally:
            server.stop()
            if not brief:
                server.wait()
            driver.close()
            repository.close()


@contextmanager
def _presence(conf: Any, clean_up: Callable[[], None]) -> Iterator[None]:
    """Shows other processes on this machine that a service of `conf.host` runs.

    By a lock on a file, which the kernel releases however the process ends. Who finds nobody else there calls
    `clean_up` for what an earlier run left in flight, and shares the lock with all others after that.
    """
    path = config.state_path(conf) / f"{conf.host}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            clean_up()
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def main() -> int:
    """`xenward-compute`: serve one host until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="xenward-compute", description="Serve the Xen guests of one compute host.")
    parser.add_argument("--config-file", help="configuration to read (default: $XENWARD_CONFIG_FILE, then /etc)")
    parser.add_argument("--debug", action="store_true", help="log more")
    options = parser.parse_args()
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if options.debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    try:
        conf = config.load(options.config_file)
        concurrency.set_up(conf.concurrency_backend)
        return _serve(conf)
    except cfg.Error as error:
        print(f"xenward-compute: {error}", file=sys.stderr)
    except Unsuccessful as error:
        print(f"xenward-compute: {error} ({error.code})", file=sys.stderr)
    return 1


def _serve(conf: Any) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    bus = transport(conf)
    if is_embedded(conf):
        print("xenward-compute: transport_url must name a bus that other processes reach", file=sys.stderr)
        return 1
    with running(conf, bus) as manager:
        LOG.info("serving host %s", conf.host)
        print("ready", flush=True)
        while not stop.wait(IMAGE_CACHE_PERIOD):
            manager.manage_image_cache(conf.images.evict_after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
