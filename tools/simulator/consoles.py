"""What simulated guests write to their serial consoles, and where a host's dom0 keeps it: a file for each domain.

Guests have no kernel whose messages could be shown, so there is one line for each time that one boots or goes on. dom0
tells where the files are in the XenStore node that XenServer's own daemons read.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from agent_protocol.xenstore import Client

NODE = "/local/logconsole/@"
"""In its value, `%d` stands for the domid. Source: device.ml of xenopsd."""


class Consoles:
    """The logs of one host's guests in a directory, which is made at need and begins empty."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def start(self, store: Client) -> None:
        """Forget what is left of an earlier life of the host, whose domids come again. store: dom0's."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for log in self._directory.iterdir():
            log.unlink()
        store.write(NODE, str(self._directory / "console.%d").encode())

    def write(self, domid: int, line: str) -> None:
        """Add a line to a domain's log, which ends as those of serial lines do."""
        with (self._directory / f"console.{domid}").open("ab") as log:
            log.write(f"{line}\r\n".encode())

    def remove(self, domid: int) -> None:
        """The domain is gone, and nobody can ask for its log any more."""
        with contextlib.suppress(FileNotFoundError):
            (self._directory / f"console.{domid}").unlink()
