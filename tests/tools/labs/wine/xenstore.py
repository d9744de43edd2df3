"""A Windows that is domain 5 of a XenStore, and scripts in it that use the driver's device."""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_protocol.xenstore import Client, connect
from tools.labs.wine import disk
from tools.labs.wine.machine import Machine
from tools.simulator.xenstore.server import XenStoreServer

from .support import python

DOMID = 5

_DEVICE = Path(__file__).with_name("device.py")


@dataclass
class Place:
    machine: Machine
    server: XenStoreServer
    link: Path

    def host(self) -> Client:
        """The store as dom0 sees it, with the guest's directory."""
        return connect(str(self.server.socket))

    def lay_out(self, nodes: dict[str, bytes], domid: int = DOMID) -> None:
        """Nodes of the guest, which it may read and write."""
        home = f"/local/domain/{domid}"
        with self.host() as store:
            for path, value in {"": b"", **nodes}.items():
                node = f"{home}/{path}".rstrip("/")
                store.write(node, value)
                store.set_permissions(node, [f"n{domid}"])

    def evaluate(self, expression: str, setup: str = "") -> Any:
        """The value of an expression in Windows, where `device` is an open device."""
        script = f"{_DEVICE.read_text()}\ndevice = Device()\n{setup}\nprint(ascii({expression}))\n"
        return ast.literal_eval(python(self.machine, script))


@contextmanager
def placed(image: Path) -> Iterator[Place]:
    """A machine with a copy of a disk, and the store that it is a guest of."""
    # Short: unix sockets allow 107 bytes.
    with tempfile.TemporaryDirectory(prefix="xw-") as directory:
        made = Path(directory, "disk")
        disk.copy(image, made)
        server = XenStoreServer(Path(directory, "xs"))
        server.start()
        try:
            # A link, as a simulated guest has: it can lead to another domain's socket.
            link = Path(directory, "xenbus")
            link.symlink_to(server.introduce(DOMID))
            with Machine(made, link) as machine:
                yield Place(machine, server, link)
        finally:
            server.stop()
