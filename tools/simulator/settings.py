"""What can be set about a simulated XenServer."""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path

AGENT_COMMAND = (sys.executable, "-m", "guest_agent", "--root", "{root}", "--store", "{store}")
"""The agent of this project, run by the interpreter that runs the simulator."""

GUEST_STOP_TIMEOUT = 5.0
"""Seconds that a guest's processes have to end by themselves when the guest shuts down; then they are killed."""


@dataclass(frozen=True)
class Settings:
    """Everything that distinguishes one simulated XenServer from another.

    state: an existing directory for guests, sockets, plugins and logs.
    port: of 127.0.0.1; 0 for any that is free.
    username, password: what session.login_with_password accepts.
    plugins: the dom0 plugins, by default below `state`.
    login_failure_delay: seconds that a wrong password is answered late. A real host takes 5.
    agent_command: the guest's only process, empty for guests without one. In its arguments `{root}` becomes the guest's
        root directory, `{socket}` the path of its XenStore socket and `{store}` the same as an address, `unix:PATH`.
    record_xenstore: a file for one JSON line per XenStore packet, or None.
    """

    state: Path
    port: int = 0
    username: str = "root"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(18), repr=False)
    host_name: str = "simulated-1"
    plugins: Path | None = None
    login_failure_delay: float = 5.0
    agent_command: tuple[str, ...] = AGENT_COMMAND
    record_xenstore: Path | None = None

    @property
    def plugin_directory(self) -> Path:
        """Where host.call_plugin looks."""
        return self.plugins or self.state / "plugins"
