"""Assembles a simulated XenServer from its parts, and takes it apart again."""

from __future__ import annotations

import base64
import json
import sys
import threading
from typing import IO

from agent_protocol.wire import Operation
from agent_protocol.xenstore import Client, connect

from . import model, prepared
from .database import Database
from .dispatch import Dispatcher
from .domain import DomainTree
from .http import HttpServer
from .plugins import Plugins
from .settings import GUEST_STOP_TIMEOUT, Settings
from .state import State
from .watchdog import Watchdog
from .xenstore.server import TapRecord, XenStoreServer

PLUGIN = "xenward"
"""The name of this project's own dom0 plugin."""

_STORE_TIMEOUT = 5.0


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
    made, ValueError when the state directory's path is too long for sockets.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._recorder: Recorder | None = None
        if settings.record_xenstore is not None:
            self._recorder = Recorder(settings.record_xenstore.open("a", encoding="ascii"))
        self._xenstore = XenStoreServer(settings.state / "xenstore", tap=self._recorder)
        self._watchdog: Watchdog | None = None
        self._store: Client | None = None
        self._state: State | None = None
        self._http: HttpServer | None = None

    @property
    def url(self) -> str:
        """Where the API is, once started."""
        assert self._http is not None
        return self._http.url

    @property
    def xenstore_socket(self) -> str:
        """dom0's XenStore socket."""
        return str(self._xenstore.socket)

    def start(self) -> None:
        """Bring everything up. When it returns, the API answers. After an error nothing is left running."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        settings = self.settings
        plugins = settings.plugin_directory
        plugins.mkdir(parents=True, exist_ok=True)
        (settings.state / "guests").mkdir(exist_ok=True)
        self._build_own_plugin()
        self._xenstore.start()
        self._store = connect(self.xenstore_socket, timeout=_STORE_TIMEOUT)
        self._watchdog = Watchdog()
        datamodel = model.load()
        self._state = State(
            settings=settings,
            model=datamodel,
            database=Database(datamodel),
            watchdog=self._watchdog,
            xenstore=self._xenstore,
            domains=DomainTree(self._store),
            plugins=Plugins(plugins, self._xenstore.socket, self._watchdog),
        )
        prepared.prepare(self._state)
        self._http = HttpServer(settings.port, Dispatcher(self._state).answer)
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
        if self._http is not None:
            self._http.stop()
        if self._state is not None:
            self._state.plugins.stop()
            guests = self._state.guests()
            stoppers = [threading.Thread(target=guest.shut_down) for guest in guests]
            for stopper in stoppers:
                stopper.start()
            for stopper in stoppers:
                stopper.join(2 * GUEST_STOP_TIMEOUT)
        if self._store is not None:
            self._store.close()
        self._xenstore.stop()
        if self._watchdog is not None:
            # Kills what a call that was still under way has started meanwhile.
            self._watchdog.close()
        if self._recorder is not None:
            self._recorder.close()
