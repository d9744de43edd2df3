"""A whole Xen host for tests: dom0 with a toolstack and a real XenStore, and guests with real kernels and agents."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal

from agent_protocol.xenstore import Client, connect
from tools.simulator.watchdog import Watchdog

from . import images, machine
from .archive import Archive
from .control import Door
from .host import XenHost
from .proxy import StoreProxy

STORE_SECONDS = 20.0
"""For an operation of XenStore: the machine is busy when guests boot."""

_DYING_SECONDS = 2.0
"""How long a machine whose dom0 does not answer is watched, in case it is dying."""

_SOCKET = "xenstored"
_DOOR = "door.json"

Daemon = Literal["xenstored", "oxenstored"]


class XenLab:
    """One host. start() once, then stop() once; or `with XenLab(directory) as lab:`.

    directory: for its socket and files; 90 bytes of path at most. daemon: which XenStore daemon dom0 runs.
    host: what can be done with it, once started. When the machine has died, errors there have its last words.
    """

    def __init__(self, directory: Path, daemon: Daemon = "xenstored") -> None:
        self.directory = directory
        self.socket = directory / _SOCKET
        self._daemon = daemon
        self._watchdog: Watchdog | None = None
        self._machine: machine.Machine | None = None
        self._door: Door | None = None
        self._proxy: StoreProxy | None = None
        self._store: Client | None = None
        self._host: XenHost | None = None

    def __enter__(self) -> XenLab:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Bring it up, in about ten seconds; the first time ever takes half a minute more.

        LabError when that fails; then nothing is left running.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        parts = images.build()
        token = secrets.token_urlsafe(24)
        self._watchdog = Watchdog()
        with tempfile.TemporaryDirectory(dir=self.directory) as temporary:
            own = Path(temporary) / "own.cpio"
            with Archive(own) as archive:
                # In a file: the arguments of a process can be read by everybody.
                archive.file("layer/lab/token", token.encode("ascii"), 0o600)
                archive.file("layer/lab/parameters", f"STORE={self._daemon}\n".encode("ascii"))
            initramfs = Path(temporary) / "initramfs"
            initramfs.touch(0o600)
            with initramfs.open("wb") as whole:
                for part in (*parts.dom0, own):
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, whole)
            self._machine = machine.start(parts, initramfs, self._watchdog)
        self._door = Door(self._machine.port, token)
        self._proxy = StoreProxy(self.socket, self._door)
        self._store = connect(str(self.socket), timeout=STORE_SECONDS)
        self._host = XenHost(self._door, self._store, self._explain)
        door = self.directory / _DOOR
        door.touch(0o600)
        door.write_text(json.dumps({"port": self._machine.port, "token": token}))

    def stop(self) -> None:
        """Switch everything off. Does nothing when it does not run."""
        if self._store is not None:
            self._store.close()
        if self._proxy is not None:
            self._proxy.stop()
        if self._door is not None:
            self._door.close()
        if self._machine is not None:
            self._machine.stop()
        if self._watchdog is not None:
            self._watchdog.close()
        self._host = self._store = self._proxy = self._door = self._machine = self._watchdog = None

    @property
    def host(self) -> XenHost:
        """Commands to it."""
        assert self._host is not None
        return self._host

    @property
    def qemu_pid(self) -> int:
        """The process id of the emulator."""
        assert self._machine is not None
        return self._machine.pid

    def _explain(self) -> str:
        return self._machine.last_words() if self._machine is not None and self._machine.ended(_DYING_SECONDS) else ""


@contextlib.contextmanager
def attached(directory: Path) -> Iterator[XenHost]:
    """The host that another process, run by the same user, has started with this directory."""
    known = json.loads((directory / _DOOR).read_text())
    door = Door(known["port"], known["token"])
    try:
        with connect(str(directory / _SOCKET), timeout=STORE_SECONDS) as store:
            yield XenHost(door, store)
    finally:
        door.close()
