"""What crash tests work with: a simulated pool, a broker, a database, and a service that is started and killed."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import XenAPI

from compute_driver.db.records import Instance, Lease
from compute_driver.db.repository import Repository
from tests.databases import empty_database
from tools.simulator.process import SimulatorProcess

from .seen import Seen, look
from .zygote import Zygote

BROKER = "rabbit://guest:guest@127.0.0.1:5672/"

MIB = 1024**2

IMAGES = {"with-agent": {}, "agentless": {"img_use_agent": "no"}}
"""The images that there are from the start, and their properties."""

PATIENCE = 300.0
"""Seconds for whatever has to happen by itself, on a machine that is busy with other things."""

QUESTION = 10.0
ORDER = 6.0
"""Seconds that the caller waits for an answer. A killed service gives none."""


class World:
    """Everything of one campaign.

    host: the name under which the bus knows the service. repository: the same database that the service has. chance:
    decides whatever is left to chance.
    """

    def __init__(
        self,
        directory: Path,
        simulator: SimulatorProcess,
        repository: Repository,
        chance: random.Random,
        conf: Path,
        host: str,
    ) -> None:
        self.directory = directory
        self.simulator = simulator
        self.control = simulator.control
        self.repository = repository
        self.chance = chance
        self.host = host
        self.log = directory / "service.log"
        self.trigger = directory / "die-at"
        self.images = directory / "images"
        self.conf = conf
        self.service = Zygote(conf, self.log, self.trigger)
        self._session: Any = None
        self.volumes: list[str] = []
        self.former_sessions: set[str] = set()
        self.client = _client(conf)

    @property
    def xenapi(self) -> Any:
        """XenServer itself, through the official SDK, by a session of our own."""
        if self._session is None:
            self._session = self._logged_in()
        return self._session.xenapi

    def _logged_in(self) -> Any:
        for host in self.simulator.hosts:
            session = XenAPI.Session(host.plain_url)
            try:
                session.login_with_password(self.simulator.username, self.simulator.password, "1.0", "crash-test")
            except XenAPI.Failure as failure:
                if failure.details[0] != "HOST_IS_SLAVE":
                    raise
            else:
                return session
        raise AssertionError("no host is the coordinator")

    def forget_session(self) -> None:
        """The pool has another coordinator, or was away: log in anew at the next question."""
        self._session = None

    def look(self) -> Seen:
        """What there is in the pool and in its guests."""
        return look(self.xenapi, self.simulator)

    def instances(self) -> list[Instance]:
        """Those that exist, as recorded."""
        return self.repository.list_instances(host=self.host)

    def new_volume(self) -> str:
        """The uuid of a disk that the cloud might attach."""
        pool = self.xenapi.pool.get_all()[0]
        record = {
            "SR": self.xenapi.pool.get_default_SR(pool),
            "virtual_size": str(16 * MIB),
            "type": "user",
            "sharable": False,
            "read_only": False,
            "other_config": {},
            "name_label": "a volume",
        }
        made = str(self.xenapi.VDI.get_uuid(self.xenapi.VDI.create(record)))
        self.volumes.append(made)
        return made

    def new_image(self) -> str:
        """An image that the pool has not seen yet; its id."""
        return write_image(self.images, f"image-{uuid.UUID(int=self.chance.getrandbits(128))}", {"img_use_agent": "no"})

    def logged(self) -> int:
        """Bytes of the service's log until now."""
        return self.log.stat().st_size if self.log.exists() else 0

    def said(self, since: int) -> str:
        """What the service logged since then."""
        with self.log.open("rb") as file:
            file.seek(since)
            return file.read().decode("utf-8", "replace")

    def kill_plugins(self) -> int:
        """Kill the processes that run functions of the dom0 plugin; gives their number."""
        plugins = str(self.simulator.plugins).encode()
        killed = 0
        for directory in Path("/proc").iterdir():
            if not directory.name.isdigit():
                continue
            try:
                arguments = (directory / "cmdline").read_bytes().split(b"\0")
                if any(it.startswith(plugins) for it in arguments):
                    import os

                    os.kill(int(directory.name), signal.SIGKILL)
                    killed += 1
            except (OSError, ProcessLookupError):
                continue
        return killed

    def kill_service(self) -> None:
        """Kill it, and remember the sessions that it had recorded: these may not be open when the next one serves."""
        self.service.kill()
        epoch = next((it.epoch for it in self.repository.list_hosts() if it.name == self.host), 0)
        self.former_sessions.update(self.repository.sessions_before(Lease(self.host, "", epoch + 1)))

    def restart_service(self) -> None:
        """Kill it, and start another one, which is not ready yet."""
        self.kill_service()
        self.service.start()

    def close(self) -> None:
        """End the service."""
        self.service.close()


def eventually(is_so: Callable[[], Any], what: str, timeout: float = PATIENCE, pause: float = 0.02) -> Any:
    """What `is_so` gives once it is true. AssertionError when that takes too long."""
    deadline = time.monotonic() + timeout
    while True:
        found = is_so()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:g} s")
        time.sleep(pause)


def write_image(directory: Path, name: str, properties: dict[str, str]) -> str:
    """A raw image of one MiB with a content of its own; gives its id."""
    directory.mkdir(exist_ok=True)
    content = hashlib.sha256(name.encode()).digest() * (MIB // 32)
    (directory / f"{name}.raw").write_bytes(content)
    description = {
        "name": name,
        "disk_format": "raw",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "properties": properties,
    }
    (directory / f"{name}.json").write_text(json.dumps(description))
    return name


def configure(directory: Path, simulator: SimulatorProcess, database: str, host: str, broker: str = BROKER) -> Path:
    """The service's configuration file."""
    members = ",".join(it.url for it in simulator.hosts)
    groups = {
        "DEFAULT": {"host": host, "state_path": str(directory / "state"), "transport_url": broker},
        "database": {"connection": database},
        "xenserver": {"url": members, "username": simulator.username, "password": simulator.password},
        "agent": {"timeout": "10", "boot_timeout": "30"},
        "service": {"reconcile_interval": "0.5", "heartbeat": "5"},
        "images": {"directory": str(directory / "images")},
        "oslo_messaging_rabbit": {"amqp_auto_delete": "true"},
        "endpoint": {"port": "-1"},
    }
    lines = []
    for group, options in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in options.items()), ""]
    conf = directory / "xenward.conf"
    conf.touch(mode=0o600)
    conf.write_text("\n".join(lines))
    return conf


@contextmanager
def world(database: str, seed: int, *simulator_arguments: str, broker: str = BROKER, url: str = "") -> Iterator[World]:
    """A world whose service does not run yet. database: a kind, as of tests/databases.py; url: of another one.

    The directory stays when the block ends with an error; where it is, is printed.
    """
    import shutil
    import tempfile

    directory = Path(tempfile.mkdtemp(prefix="xw-crash-"))
    (directory / "state").mkdir()
    for name, properties in IMAGES.items():
        write_image(directory / "images", name, properties)
    host = f"crash-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        arguments = ["--login-failure-delay", "0", "--hosts", "2", *simulator_arguments]
        simulator = stack.enter_context(SimulatorProcess(arguments, log=directory / "simulator.log"))
        url = url or stack.enter_context(empty_database(database, directory))
        conf = configure(directory, simulator, url, host, broker)
        from compute_driver.db import migrate

        migrate.upgrade(url)
        repository = Repository(url)
        stack.callback(repository.close)
        it = World(directory, simulator, repository, random.Random(seed), conf, host)
        stack.callback(it.close)
        try:
            yield it
        except BaseException:
            print(f"logs are kept in {directory}", flush=True)
            raise
    shutil.rmtree(directory)


def _client(conf_file: Path) -> Any:
    from compute_driver import concurrency, config

    conf = config.load(str(conf_file))
    concurrency.set_up("threading")
    from compute_driver import bus, rpc

    return rpc.ComputeClient(bus.transport(conf), conf.host, timeout=QUESTION, order_timeout=ORDER)


def in_thread(do: Callable[[], None]) -> threading.Thread:
    """Do something beside; it may outlast its use."""
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    return thread
