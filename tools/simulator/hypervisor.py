"""What carries a simulated pool's domains: the simulator itself, or a real Xen behind the same methods."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Callable, Protocol

from agent_protocol.xenstore import Client, connect

from .consoles import Consoles
from .domain import Domain, DomainTree
from .guest import Guest, Guests
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

    def stop(self, clean: bool = True) -> None: ...

    def create(self, domain: Domain, paused: bool) -> int: ...

    def destroy(self, domid: int, vm_uuid: str, clean: bool) -> None: ...

    def pause(self, domid: int, vm_uuid: str) -> None: ...

    def unpause(self, domid: int, vm_uuid: str) -> None: ...

    def suspend(self, domid: int, vm_uuid: str) -> None: ...

    def resume(self, domain: Domain, paused: bool) -> int: ...

    def discard(self, vm_uuid: str) -> None: ...

    def migrate(self, domid: int, vm_uuid: str, domain: Domain, destination: Hypervisor) -> int: ...

    def forget(self, vm_uuid: str) -> None: ...


class SimulatedHypervisor:
    """Domains that are nodes in a XenStore, and guests that are a process each on a directory of its own.

    python: for the plugins of its dom0, as of SimulatedDom0. consoles: what its guests write to their serial consoles.
    guests: those of the whole pool. A guest's memory is its process, which any host of the pool can go on with.

    start() and stop() any number of times, in turn: a host that was without power begins with an empty XenStore.
    """

    domains: DomainTree
    plugins: Plugins

    def __init__(
        self,
        settings: Settings,
        xenstore: StoreServer,
        python: Path,
        consoles: Consoles,
        watchdog: Watchdog,
        guests: Guests,
    ) -> None:
        self._settings = settings
        self._xenstore = xenstore
        self._python = python
        self._consoles = consoles
        self._watchdog = watchdog
        self._guests = guests
        self._store: Client | None = None
        self._last_domid = 0
        self._running: dict[int, str] = {}
        self._guard = threading.Lock()

    @property
    def socket(self) -> Path:
        """dom0's XenStore."""
        return self._xenstore.socket

    def start(self) -> None:
        """Start the daemon. OSError or ValueError when it has no place for its sockets."""
        self._xenstore.start()
        self._store = connect(str(self.socket), timeout=_STORE_TIMEOUT)
        self._last_domid = 0
        self._consoles.start(self._store)
        self.domains = DomainTree(self._store)
        directory = self._settings.plugin_directory
        self.plugins = Plugins(SimulatedDom0(directory, self.socket, self._python, self._watchdog))

    def stop(self, clean: bool = True) -> None:
        """End plugins, guests and the daemon, in this order. What has not been started is passed over.

        clean: whether guests may end by themselves.
        """
        store, self._store = self._store, None
        if store is not None:
            self.plugins.stop()
            with self._guard:
                guests = [self._guests.of(vm_uuid) for vm_uuid in self._running.values()]
                self._running.clear()
            stoppers = [threading.Thread(target=guest.shut_down if clean else guest.cut_power) for guest in guests]
            for stopper in stoppers:
                stopper.start()
            for stopper in stoppers:
                stopper.join(2 * GUEST_STOP_TIMEOUT)
            store.close()
        self._xenstore.stop()

    def create(self, domain: Domain, paused: bool) -> int:
        """Build a domain and let its guest run, unless it is to begin with unpause(); gives the domid.

        Whatever error is raised, nothing is left of the domain. The domid of `domain` is ignored.
        """
        return self._build(domain, "boots", lambda guest, socket: guest.start(socket, paused))

    def destroy(self, domid: int, vm_uuid: str, clean: bool) -> None:
        """End a domain. clean: in the guest's own way, or in the middle of what it does."""
        guest = self._guests.of(vm_uuid)
        if clean:
            guest.shut_down()
        else:
            guest.cut_power()
        self._remove(domid, vm_uuid, introduced=True)

    def pause(self, domid: int, vm_uuid: str) -> None:
        """Freeze the guest."""
        del domid
        self._guests.of(vm_uuid).pause()

    def unpause(self, domid: int, vm_uuid: str) -> None:
        """Let a frozen guest go on, or one begin that was created paused."""
        del domid
        self._guests.of(vm_uuid).unpause()

    def suspend(self, domid: int, vm_uuid: str) -> None:
        """End a domain, and keep its guest's memory until resume() or discard()."""
        self._guests.of(vm_uuid).keep()
        self._remove(domid, vm_uuid, introduced=True)

    def resume(self, domain: Domain, paused: bool) -> int:
        """Build a domain around the memory that suspend() has kept, on this host or another; gives the domid.

        Memory that is not there any more, as after a restart of the simulator, is that of a guest that boots. After an
        error nothing is left of the domain, and the memory is kept. The domid of `domain` is ignored.
        """
        return self._build(domain, "goes on", lambda guest, socket: guest.go_on(socket, paused))

    def discard(self, vm_uuid: str) -> None:
        """Drop what suspend() has kept, if it has."""
        self._guests.of(vm_uuid).cut_power()

    def migrate(self, domid: int, vm_uuid: str, domain: Domain, destination: Hypervisor) -> int:
        """Move a running domain's guest into a new one on another host, or on this one; gives its domid there.

        domain: the new one, whose domid is ignored. destination: of the same pool. After an error the guest goes on
        where it was, and nothing is left at the destination.
        """
        guest = self._guests.of(vm_uuid)
        here = guest.keep()
        try:
            there = destination.resume(domain, paused=True)
        except BaseException:
            guest.go_on(here, paused=False)
            raise
        self._remove(domid, vm_uuid, introduced=True)
        destination.unpause(there, vm_uuid)
        return there

    def forget(self, vm_uuid: str) -> None:
        """The VM is gone for good: delete what its guest has on disk."""
        self._guests.forget(vm_uuid)

    def _build(self, domain: Domain, what: str, run: Callable[[Guest, Path], None]) -> int:
        with self._guard:
            # A domain id is never used twice.
            self._last_domid += 1
            domid = self._last_domid
        introduced = False
        try:
            self.domains.build(replace(domain, domid=domid))
            socket = self._xenstore.introduce(domid)
            introduced = True
            self._consoles.write(domid, f"Simulated guest {domain.uuid} {what}.")
            run(self._guests.of(domain.uuid), socket)
        except Exception:
            self._remove(domid, domain.uuid, introduced)
            raise
        with self._guard:
            self._running[domid] = domain.uuid
        return domid

    def _remove(self, domid: int, vm_uuid: str, introduced: bool) -> None:
        with self._guard:
            self._running.pop(domid, None)
        # Nodes first: when the domain is gone, nobody may find a trace that claims it lives.
        self.domains.remove(domid, vm_uuid)
        self._consoles.remove(domid)
        if introduced:
            self._xenstore.release(domid)
