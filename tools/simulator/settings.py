"""What can be set about a simulated XenServer."""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .tasks import COMPLETED_TIMEOUT

AGENT_COMMAND = (sys.executable, "-m", "guest_agent", "--root", "{root}", "--store", "{store}")
"""The agent of this project, run by the interpreter that runs the simulator."""

XenStore = Literal["simulated", "xenstored", "oxenstored"]
"""Which daemon keeps the nodes: the simulated one, or one of Debian's real ones (tools/labs/xenstored)."""

HypervisorKind = Literal["simulated", "xen"]
"""What carries the domains: the simulator itself, or a real Xen in an emulated computer (tools/labs/xen)."""

GUEST_STOP_TIMEOUT = 5.0
"""Seconds that a guest's processes have to end by themselves when the guest shuts down; then they are killed."""


MAX_HOSTS = 16
"""How many hosts a simulated pool can have."""

MAX_GUESTS = 100
"""How many guests can run from the start. A host has memory for twice as many."""


@dataclass(frozen=True)
class Settings:
    """Everything that distinguishes one simulated XenServer from another.

    state: an existing directory for guests, sockets, plugins and logs. is_kept: whether the pool is kept there, and
        another simulator finds it again (persistence.py); then number and names of the hosts are as they were. Not
        under "xen".
    port: of 127.0.0.1, for the first host; 0 for any that is free. Further hosts take any that are free.
    tls: serve HTTPS at `port`, with a certificate of the host's own (tls.py), and plain HTTP at any port that is free.
    username, password: what session.login_with_password accepts.
    plugins: the dom0 plugins, by default below `state`.
    login_failure_delay: seconds that a wrong password is answered late. A real host takes 5.
    completed_task_timeout: seconds that a task is kept when it has ended.
    agent_command: the guest's only process, empty for guests without one. In its arguments `{root}` becomes the guest's
        root directory, `{socket}` the path of its XenStore socket and `{store}` the same as an address, `unix:PATH`.
    record_xenstore: a file for one JSON line per XenStore packet, or None. Only with the simulated daemon.
    xenstore: the daemon. Under a real Xen it is a real one: xenstored, unless oxenstored is asked for.
    host_name: of the first host. hosts: how many there are; the first one begins as the pool's coordinator.
    guests: how many run from the start (initial_guests.py). Not under "xen".
    hypervisor: under "xen", there is one host; plugins, agents and their directories are those of its own dom0 and
        guests, and what is said here about them, and record_xenstore, does not count.
    ValueError for a number of hosts or guests that cannot be.
    """

    state: Path
    port: int = 0
    tls: bool = False
    username: str = "root"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(18), repr=False)
    host_name: str = "simulated-1"
    plugins: Path | None = None
    login_failure_delay: float = 5.0
    completed_task_timeout: float = COMPLETED_TIMEOUT
    agent_command: tuple[str, ...] = AGENT_COMMAND
    record_xenstore: Path | None = None
    xenstore: XenStore = "simulated"
    hypervisor: HypervisorKind = "simulated"
    hosts: int = 1
    guests: int = 0
    is_kept: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.hosts <= MAX_HOSTS:
            raise ValueError(f"a simulated pool has 1 to {MAX_HOSTS} hosts")
        if self.hosts > 1 and self.hypervisor != "simulated":
            raise ValueError("a pool of several hosts needs the simulated hypervisor")
        if not 0 <= self.guests <= MAX_GUESTS:
            raise ValueError(f"at most {MAX_GUESTS} guests can run from the start")
        if self.guests and self.hypervisor != "simulated":
            raise ValueError("guests that run from the start need the simulated hypervisor")

    def name_of(self, number: int) -> str:
        """The name of a host: `simulated-2` is the second one when the first is `simulated-1`."""
        return self.host_name if number == 1 else f"{self.host_name.removesuffix('-1')}-{number}"

    @property
    def plugin_directory(self) -> Path:
        """Where host.call_plugin looks."""
        return self.plugins or self.state / "plugins"
