"""All of xenward over real Xen: real domains, a real XenStore, agents in real kernels with a real /etc/shadow."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.labs.xen.host import XenHost
from tools.labs.xen.lab import attached
from tools.simulator.process import SimulatorProcess

from .house import Done, House
from .inside import RealInside, password_opens

START_SECONDS = 420.0
"""For the simulator: packages that have to be fetched, images that have to be made, and the machine's boot."""

COMMAND_SECONDS = 240.0
"""For a command. A guest takes 20 s until its agent serves, and twice that on a machine that has other things to do."""


@dataclass
class RealHouse(House):
    """A house over real Xen. `host`: what is below its simulated API."""

    host: XenHost | None = None

    def end(self, process: subprocess.Popen[str]) -> Done:
        """As in House, with the patience that emulation needs."""
        output, errors = process.communicate(timeout=COMMAND_SECONDS)
        return Done(process.returncode, json.loads(output) if output.strip() else None, errors)

    @property
    def xen(self) -> XenHost:
        """What is below the API."""
        assert self.host is not None
        return self.host

    def domid(self, instance: str) -> int:
        """Of the instance's domain."""
        return int(self.vm(instance)["domid"])

    def inside(self, instance: str) -> RealInside:
        """The instance's guest."""
        return RealInside(self.xen, lambda: self.domid(instance))

    def opens(self, instance: str, password: str) -> bool:
        """As in House, in the guest's own /etc/shadow."""
        return password_opens(self.inside(instance), "root", password)


@contextlib.contextmanager
def real_house(directory: Path, *arguments: str) -> Iterator[RealHouse]:
    """A house over a Xen of its own. arguments: further ones for the simulated XenServer."""
    options = ["--login-failure-delay", "0", "--hypervisor", "xen", *arguments]
    with SimulatorProcess(options, START_SECONDS) as simulator, attached(simulator.state / "xen") as host:
        it = RealHouse(directory, simulator, host=host)
        it.configure(agent={"timeout": "60", "boot_timeout": "200"})
        yield it
