"""What carries a simulated pool's domains: the simulator itself, or a real Xen behind the same methods."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from agent_protocol.xenstore import Client, connect

from .domain import Domain, DomainTree
from .guest import Guest
from .plugins import Plugins, SimulatedDom0
from .settings import GUEST_STOP_TIMEOUT, Settings
from .watchdog import Watchdog
from .xenstore.server import StoreServer

UNBUILT = -1
"""The domid of a Domain that no hypervisor has built."""

_STORE_TIMEOUT = 5.0


class Hypervisor(Protocol):
    """What the simulated API needs of what is below it. SimulatedHypervisor says what each method does.

    socket: of dom0's XenStore. domains: its nodes. plugins: of dom0. All three once it is started.
    """

    @property
    def socket(self) -> Path: ...

    @property
    def domains(self) -> DomainTree: ...

    @property
    def plugins(self) -> Plugins: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def create(self, domain: Domain, paused: bool) -> int: ...

    def destroy(self, domid: int, vm_uuid: str, clean: bool) -> None: ...

    def pause(self, domid: int, vm_uuid: str) -> None: ...

    def unpause(self, domid: int, vm_uuid: str) -> None: ...

    def forget(self, vm_uuid: str) -> None: ...


class SimulatedHypervisor:
    """Domains that are nodes in a XenStore, and guests that are a process each on a directory of its own."""

    domains: DomainTree
    plugins: Plugins

    def __init__(self, settings: Settings, xenstore: StoreServer, watchdog: Watchdog) -> None:
        self._settings = settings
        self._xenstore = xenstore
        self._watchdog = watchdog
        self._store: Client | None = None
        self._last_domid = 0
        self._guests: dict[str, Guest] = {}
        self._guard = threading.Lock()

    @property
    def socket(self) -> Path:
        """dom0's XenStore."""
        return self._xenstore.socket

    def start(self) -> None:
        """Start the daemon. OSError or ValueError when it has no place for its sockets."""
        (self._settings.state / "guests").mkdir(exist_ok=True)
        self._xenstore.start()
        self._store = connect(str(self.socket), timeout=_STORE_TIMEOUT)
        self.domains = DomainTree(self._store)
        directory = self._settings.plugin_directory
        self.plugins = Plugins(SimulatedDom0(directory, self.socket, self._watchdog))

    def stop(self) -> None:
        """End plugins, guests and the daemon, in this order. What has not been started is passed over."""
        if self._store is not None:
            self.plugins.stop()
            with self._guard:
                guests = list(self._guests.values())
            stoppers = [threading.Thread(target=guest.shut_down) for guest in guests]
            for stopper in stoppers:
                stopper.start()
            for stopper in stoppers:
                stopper.join(2 * GUEST_STOP_TIMEOUT)
            self._store.close()
        self._xenstore.stop()

    def create(self, domain: Domain, paused: bool) -> int:
        """Build a domain and let its guest run, unless it is to begin with unpause(); gives the domid.

        Whatever error is raised, nothing is left of the domain. The domid of `domain` is ignored.
        """
        with self._guard:
            # A domain id is never used twice.
            self._last_domid += 1
            domid = self._last_domid
        introduced = False
        try:
            self.domains.build(replace(domain, domid=domid))
            socket = self._xenstore.introduce(domid)
            introduced = True
            self._guest(domain.uuid).start(socket, paused)
        except Exception:
            self._remove(domid, domain.uuid, introduced)
            raise
        return domid

    def destroy(self, domid: int, vm_uuid: str, clean: bool) -> None:
        """End a domain. clean: in the guest's own way, or in the middle of what it does."""
        guest = self._guest(vm_uuid)
        if clean:
            guest.shut_down()
        else:
            guest.cut_power()
        self._remove(domid, vm_uuid, introduced=True)

    def pause(self, domid: int, vm_uuid: str) -> None:
        """Freeze the guest."""
        del domid
        self._guest(vm_uuid).pause()

    def unpause(self, domid: int, vm_uuid: str) -> None:
        """Let a frozen guest go on, or one begin that was created paused."""
        del domid
        self._guest(vm_uuid).unpause()

    def forget(self, vm_uuid: str) -> None:
        """The VM is gone for good: delete what its guest has on disk."""
        self._guest(vm_uuid).delete()
        with self._guard:
            del self._guests[vm_uuid]

    def _guest(self, vm_uuid: str) -> Guest:
        with self._guard:
            if vm_uuid not in self._guests:
                directory = self._settings.state / "guests" / vm_uuid
                self._guests[vm_uuid] = Guest(directory, self._settings.agent_command, self._watchdog)
            return self._guests[vm_uuid]

    def _remove(self, domid: int, vm_uuid: str, introduced: bool) -> None:
        # Nodes first: when the domain is gone, nobody may find a trace that claims it lives.
        self.domains.remove(domid, vm_uuid)
        if introduced:
            self._xenstore.release(domid)
