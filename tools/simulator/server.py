"""Assembles a simulated XenServer from its parts, and takes it apart again."""

from __future__ import annotations

import base64
import json
import sys
import threading
from pathlib import Path
from typing import IO

from agent_protocol.wire import Operation

from . import admin, certificates, initial_guests, local_api, model, prepared, restart, state_directory
from .admin import AdminServer
from .consoles import Consoles
from .database import Database
from .dispatch import Dispatcher
from .faults.answers import truncating
from .faults.operations import Faults
from .guest import Guests
from .handlers import handlers
from .hypervisor import Hypervisor, SimulatedHypervisor
from .initial_guests import InitialGuest
from .local_api import as_root
from .machine import Front, Host
from .persistence import Persistence
from .protocols import protocols
from .settings import Settings
from .state import State
from .state_directory import Lock, Machine
from .supporters import over_tcp
from .watchdog import Watchdog
from .xenstore.server import StoreServer, Tap, TapRecord, XenStoreServer

PLUGIN = "xenward"
"""The name of this project's own dom0 plugin."""


class Recorder:
    """Writes one JSON line per XenStore packet to a file, so that a test can look for what must not be there."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._guard = threading.Lock()

    def __call__(self, record: TapRecord) -> None:
        """Append a record."""
        try:
            operation = Operation(record.operation).name
        except ValueError:
            operation = str(int(record.operation))
        line = json.dumps(
            {
                "domid": record.domid,
                "direction": str(record.direction),
                "operation": operation,
                "payload": base64.b64encode(record.payload).decode("ascii"),
            }
        )
        with self._guard:
            if not self._file.closed:
                self._file.write(line + "\n")
                self._file.flush()

    def close(self) -> None:
        """Close the file; records that come later are dropped."""
        with self._guard:
            self._file.close()


class Simulator:
    """A simulated pool of XenServers.

    hosts: its machines, the first of which begins as the coordinator. guests: those that run from the start.

    start() once, then stop() once; both from the same thread. OSError when the port is taken or a directory cannot be
    made, ValueError when the state directory's path is too long for sockets, or when the packets of a real XenStore
    daemon shall be recorded.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._recorder: Recorder | None = None
        if settings.record_xenstore is not None:
            self._recorder = Recorder(settings.record_xenstore.open("a", encoding="ascii"))
        self._watchdog: Watchdog | None = None
        self._guests: Guests | None = None
        self._state: State | None = None
        self._lock = Lock(settings.state)
        self._persistence: Persistence | None = None
        self._faults: Faults | None = None
        self._admin: AdminServer | None = None
        self.hosts: list[Host] = []
        self.guests: list[InitialGuest] = []

    @property
    def coordinator(self) -> Host:
        """The host to begin with, once started."""
        return self.hosts[0]

    @property
    def state(self) -> State:
        """The pool, once started."""
        assert self._state is not None
        return self._state

    @property
    def faults(self) -> Faults:
        """What can be let go wrong, once started."""
        assert self._faults is not None
        return self._faults

    @property
    def admin_socket(self) -> Path:
        """Where other processes can do that (control.py), once started."""
        assert self._admin is not None
        return self._admin.path

    def start(self) -> None:
        """Bring everything up. When it returns, the API answers. After an error nothing is left running."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        settings = self.settings
        self._lock.acquire()
        settings.plugin_directory.mkdir(parents=True, exist_ok=True)
        self._build_own_plugin()
        self._watchdog = Watchdog()
        self._guests = Guests(settings.state, settings.agent_command, self._watchdog)
        datamodel = model.load()
        state = self._state = State(settings, datamodel, Database(datamodel), self._guests)
        state.events.start()
        state.tasks.start()
        if settings.is_kept and settings.hypervisor == "simulated":
            self._persistence = Persistence(settings.state, datamodel, state.database, state.messages)
            state.flush = self._persistence.flush
        if self._persistence is not None and self._persistence.load():
            self._take_over(state, self._watchdog, self._guests)
        else:
            for number in range(1, settings.hosts + 1):
                machine = Machine(number, settings.name_of(number), settings.port if number == 1 else 0, 0)
                self.hosts.append(self._host(machine, self._watchdog, self._guests))
                self.hosts[-1].start(state.database)
            prepared.prepare(state, self.hosts)
        for host in self.hosts:
            if host.certificates is not None:
                certificates.record_host(state.database, host.ref, host.certificates)
        if self._persistence is not None:
            state_directory.write_hosts(settings.state, {host.ref: host.machine for host in self.hosts})
            self._persistence.start()
        restart.start_automatically(state)
        self.guests = initial_guests.run(state, settings.guests)
        self._faults = Faults(state, self._guests)
        for host in self.hosts:
            host.listen()
        self._admin = AdminServer(settings.state / admin.SOCKET_NAME, self._faults)
        self._admin.start()

    def _take_over(self, state: State, watchdog: Watchdog, guests: Guests) -> None:
        """Boot the hosts of the pool that the database holds."""
        settings, database = self.settings, state.database
        machines = state_directory.read_hosts(settings.state)
        state.disks.load()
        (pool,) = database.refs("pool")
        coordinator = database.get("pool", pool, "master")
        if not machines.keys() >= {*database.refs("host")}:
            raise ValueError(f"{settings.state} does not tell the machines of all hosts; nothing was changed")
        for ref in sorted(database.refs("host"), key=lambda ref: ref != coordinator):
            machine = machines[ref]
            if machine.number == 1 and settings.port:
                machine = machine._replace(port=settings.port, plain_port=0)
            else:
                ports = map(state_directory.free_port, (machine.port, machine.plain_port))
                machine = Machine(machine.number, machine.name, *ports)
            self.hosts.append(self._host(machine, watchdog, guests))
            self.hosts[-1].ref = ref
            self.hosts[-1].start(database)
        restart.take_over(state, self.hosts)

    def _host(self, machine: Machine, watchdog: Watchdog, guests: Guests) -> Host:
        settings, state = self.settings, self.state
        directory = settings.state if machine.number == 1 else settings.state / f"host-{machine.number}"

        def front(host: Host) -> Front:
            host.hypervisor.plugins.before = lambda *names: state.conditions.plugin(host.ref, *names)
            answer = Dispatcher(state, host).answer
            local = as_root(answer, lambda: (state.settings.username, state.settings.password))
            tcp = over_tcp(state, host, answer)
            return Front(truncating(protocols(tcp)), handlers(state, host), truncating(protocols(local)))

        return Host(
            machine,
            directory,
            _hypervisor(settings, directory, self._recorder, watchdog, guests),
            front,
            with_tls=settings.tls,
        )

    def _build_own_plugin(self) -> None:
        destination = self.settings.plugin_directory / PLUGIN
        if destination.exists():
            return
        # Imported here: who brings plugins along needs no package builder.
        from tools.packages.dom0_plugin import build

        build(destination, sys.executable)

    def stop(self) -> None:
        """Take everything down: no process, thread or socket is left."""
        if self._admin is not None:
            self._admin.stop()
        if self._state is not None:
            self._state.conditions.stop()
        for host in self.hosts:
            host.hang_up()
        if self._state is not None:
            self._state.tasks.stop()
            self._state.events.stop()
        for host in self.hosts:
            host.stop()
        if self._guests is not None:
            self._guests.stop()
        if self._watchdog is not None:
            # Kills what a call that was still under way has started meanwhile.
            self._watchdog.close()
        if self._recorder is not None:
            self._recorder.close()
        if self._persistence is not None:
            self._persistence.stop()
        if self._state is not None:
            self._state.disks.close()
        self._lock.release()


def _hypervisor(settings: Settings, directory: Path, tap: Tap | None, watchdog: Watchdog, guests: Guests) -> Hypervisor:
    if settings.hypervisor == "simulated":
        python = local_api.python_path(directory / local_api.DIRECTORY)
        store, consoles = _store(settings, directory / "xenstore", tap), Consoles(directory / "consoles")
        return SimulatedHypervisor(settings, store, python, consoles, watchdog, guests)
    # Imported here, as below.
    from tools.labs.xen.hypervisor import XenHypervisor

    return XenHypervisor(directory / "xen", "xenstored" if settings.xenstore == "simulated" else settings.xenstore)


def _store(settings: Settings, directory: Path, tap: Tap | None) -> StoreServer:
    if settings.xenstore == "simulated":
        return XenStoreServer(directory, tap)
    # Imported here: what needs Debian and a C compiler is not needed by anybody else.
    from tools.labs.xenstored.server import XenstoredServer

    return XenstoredServer(directory, "c" if settings.xenstore == "xenstored" else "ocaml", tap)
