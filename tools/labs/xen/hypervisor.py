"""Real Xen below the simulated API: VM.start is `xl create`, and plugins run in the real dom0."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from tools.labs.cache import LabError
from tools.simulator.domain import Domain, DomainTree
from tools.simulator.errors import internal_error
from tools.simulator.hypervisor import Hypervisor
from tools.simulator.plugins import PLUGIN_PATH, Ended, Plugins

from .lab import Daemon, XenLab

PLUGIN_SECONDS = 600.0
"""How long a plugin may run: longer than any request that a test makes."""


class LabDom0:
    """The plugins that the lab's images carry."""

    def __init__(self, lab: XenLab) -> None:
        self._lab = lab

    def names(self) -> Collection[str]:
        """The entries of xapi's directory in dom0."""
        return self._lab.host.plugin_names()

    def run(self, plugin: str, document: str) -> Ended:
        """Run a plugin in dom0. ApiError INTERNAL_ERROR when dom0 cannot run it, or is gone."""
        try:
            done = self._lab.host.plugin(plugin, document, PLUGIN_SECONDS, {"PATH": PLUGIN_PATH})
        except LabError as error:
            raise internal_error(str(error)) from None
        return Ended(done.status, done.output, done.errors)

    def stop(self) -> None:
        """Plugins that still run end with the lab."""


class XenHypervisor:
    """One lab. It satisfies tools.simulator.hypervisor.Hypervisor, which says what the methods do.

    directory, daemon: as of XenLab. OSError from start() when the lab cannot be brought up.
    """

    def __init__(self, directory: Path, daemon: Daemon) -> None:
        self.lab = XenLab(directory, daemon)
        self.plugins = Plugins(LabDom0(self.lab))

    @property
    def domains(self) -> DomainTree:
        """Nodes in the real store."""
        return self.lab.host.domains

    @property
    def socket(self) -> Path:
        """dom0's XenStore."""
        return self.lab.socket

    def start(self) -> None:
        """Build the images if they are not built, and boot."""
        try:
            self.lab.start()
        except LabError as error:
            raise OSError(str(error)) from error

    def stop(self, clean: bool = True) -> None:
        """Switch the machine off, with all guests, which never are asked."""
        del clean
        self.lab.stop()

    def create(self, domain: Domain, paused: bool) -> int:
        """Build a domain, lay out its nodes, and let it run unless it is to be paused."""
        return self.lab.host.create(domain, paused)

    def destroy(self, domid: int, vm_uuid: str, clean: bool) -> None:
        """End a domain. clean: its kernel is asked, and shuts the system down."""
        if clean:
            self.lab.host.shut_down(domid, vm_uuid)
        else:
            self.lab.host.destroy(domid, vm_uuid)

    def pause(self, domid: int, vm_uuid: str) -> None:
        """Stop its processors."""
        del vm_uuid
        self.lab.host.pause(domid)

    def unpause(self, domid: int, vm_uuid: str) -> None:
        """Let them run."""
        del vm_uuid
        self.lab.host.unpause(domid)

    def suspend(self, domid: int, vm_uuid: str) -> None:
        """End a domain, its memory kept in dom0."""
        self.lab.host.suspend(domid, vm_uuid)

    def resume(self, domain: Domain, paused: bool) -> int:
        """Build a new domain with the memory that is kept."""
        return self.lab.host.resume(domain, paused)

    def discard(self, vm_uuid: str) -> None:
        """Drop the memory that is kept."""
        self.lab.host.discard(vm_uuid)

    def migrate(self, domid: int, vm_uuid: str, domain: Domain, destination: Hypervisor) -> int:
        """Move a guest into a new domain. LabError unless the destination is this lab: there is no other one's."""
        del vm_uuid
        if destination is not self:
            raise LabError("a guest of the lab can be moved within its host only")
        return self.lab.host.migrate(domid, domain)

    def forget(self, vm_uuid: str) -> None:
        """Remove the guest's disk, and memory that is kept."""
        self.lab.host.forget(vm_uuid)
