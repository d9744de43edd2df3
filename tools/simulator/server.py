"""Assembles a simulated XenServer from its parts, and takes it apart again."""

from __future__ import annotations

import base64
import json
import sys
import threading
from typing import IO

from agent_protocol.wire import Operation

from . import model, prepared, tls
from .database import Database
from .dispatch import Dispatcher
from .handlers import handlers
from .http import HttpServer
from .hypervisor import Hypervisor, SimulatedHypervisor
from .protocols import protocols
from .settings import Settings
from .state import State
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
    """A simulated XenServer.

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
        self._hypervisor: Hypervisor | None = None
        self._state: State | None = None
        self._http: HttpServer | None = None
        self._https: HttpServer | None = None
        self._certificate: tls.Certificate | None = None

    @property
    def url(self) -> str:
        """Where the API is, once started: HTTPS if that is served, plain HTTP otherwise."""
        return self.plain_url if self._https is None else self._https.url

    @property
    def plain_url(self) -> str:
        """Where the API is without TLS, once started."""
        assert self._http is not None
        return self._http.url

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the certificate, such as `0A:1B:…`, once started; None without TLS."""
        return None if self._certificate is None else self._certificate.fingerprint

    @property
    def xenstore_socket(self) -> str:
        """dom0's XenStore socket, once started."""
        assert self._hypervisor is not None
        return str(self._hypervisor.socket)

    def start(self) -> None:
        """Bring everything up. When it returns, the API answers. After an error nothing is left running."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        settings = self.settings
        settings.plugin_directory.mkdir(parents=True, exist_ok=True)
        self._build_own_plugin()
        self._watchdog = Watchdog()
        self._hypervisor = _hypervisor(settings, self._recorder, self._watchdog)
        self._hypervisor.start()
        datamodel = model.load()
        state = State(settings=settings, model=datamodel, database=Database(datamodel), hypervisor=self._hypervisor)
        prepared.prepare(state)
        self._state = state
        state.events.start()
        state.tasks.start()
        calls, streams = protocols(Dispatcher(state).answer), handlers(state)
        if settings.tls:
            self._certificate = tls.load_or_create(settings.state, settings.host_name)
            self._https = HttpServer(settings.port, calls, streams, tls=self._certificate.context())
            self._https.start()
        self._http = HttpServer(0 if settings.tls else settings.port, calls, streams)
        self._http.start()

    def _build_own_plugin(self) -> None:
        destination = self.settings.plugin_directory / PLUGIN
        if destination.exists():
            return
        # Imported here: who brings plugins along needs no package builder.
        from tools.packages.dom0_plugin import build

        build(destination, sys.executable)

    def stop(self) -> None:
        """Take everything down: no process, thread or socket is left."""
        for http in (self._https, self._http):
            if http is not None:
                http.stop()
        if self._state is not None:
            self._state.tasks.stop()
            self._state.events.stop()
        if self._hypervisor is not None:
            self._hypervisor.stop()
        if self._watchdog is not None:
            # Kills what a call that was still under way has started meanwhile.
            self._watchdog.close()
        if self._recorder is not None:
            self._recorder.close()


def _hypervisor(settings: Settings, tap: Tap | None, watchdog: Watchdog) -> Hypervisor:
    if settings.hypervisor == "simulated":
        return SimulatedHypervisor(settings, _store(settings, tap), watchdog)
    # Imported here, as below.
    from tools.labs.xen.hypervisor import XenHypervisor

    return XenHypervisor(settings.state / "xen", "xenstored" if settings.xenstore == "simulated" else settings.xenstore)


def _store(settings: Settings, tap: Tap | None) -> StoreServer:
    directory = settings.state / "xenstore"
    if settings.xenstore == "simulated":
        return XenStoreServer(directory, tap)
    # Imported here: what needs Debian and a C compiler is not needed by anybody else.
    from tools.labs.xenstored.server import XenstoredServer

    return XenstoredServer(directory, "c" if settings.xenstore == "xenstored" else "ocaml", tap)
