"""dom0's watch on what running guests write: it keeps VM_guest_metrics and VM.xenstore_data as the guests want them.

Source: ocaml/xenopsd/xc/xenops_server_xen.ml for the nodes that are watched. The agent's own channels below `data` are
not among them, so a conversation there costs nothing here and never reaches the database.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from agent_protocol.xenstore import StoreClosed, StoreError, XenStoreError, connect

from . import power
from .database import Database
from .guest_metrics import derive, has_drivers, read_guest, read_published
from .values import now

LOG = logging.getLogger("xenward.simulator.guests")

WATCHED = (
    "attr",
    "control",
    "data/cant_suspend_reason",
    "data/service",
    "data/ts",
    "data/updated",
    "device",
    "drivers",
    "feature",
    "vm-data",
    "xenserver/attr",
)
"""Below a domain's directory. `data/updated` is what agents write when they have written the rest of `data`."""

_TIMEOUT = 5.0


class GuestWatch:
    """Follows the guests that run, with a connection and a thread of its own, which end with the store.

    socket: dom0's XenStore. OSError when nothing listens there.
    """

    def __init__(self, database: Database, socket: Path) -> None:
        self._database = database
        self._store = connect(str(socket), timeout=_TIMEOUT)
        self._guard = threading.Lock()
        # One reads and writes down at a time: what was read earlier is never written later.
        self._refreshing = threading.Lock()
        self._followed: dict[int, str] = {}
        self._published: dict[int, dict[str, str]] = {}
        threading.Thread(target=self._run, name="guests", daemon=True).start()

    def follow(self, domid: int, vm: str) -> None:
        """A domain was built: watch it from now on. StoreError or StoreClosed when the store refuses."""
        published = read_published(self._store, domid)
        with self._guard:
            self._followed[domid] = vm
            self._published[domid] = published
        self._database.set("VM", vm, xenstore_data=published)
        for path in WATCHED:
            self._store.watch(f"/local/domain/{domid}/{path}", str(domid))

    def forget(self, domid: int) -> None:
        """The domain is about to end: what happens to its nodes now means nothing any more."""
        with self._guard:
            if self._followed.pop(domid, None) is None:
                return
            self._published.pop(domid, None)
        for path in WATCHED:
            try:
                self._store.unwatch(f"/local/domain/{domid}/{path}", str(domid))
            except (StoreError, StoreClosed):
                # The domain's nodes, and the watches on them, may be gone already.
                pass

    def _run(self) -> None:
        try:
            while True:
                event = self._store.next_event(None)
                domids = set()
                while event is not None:
                    domids.add(int(event.token))
                    event = self._store.next_event(0)
                for domid in sorted(domids):
                    self.refresh(domid)
        except StoreClosed:
            self._store.close()
        except XenStoreError as error:
            LOG.error("guests are no longer watched: %s", type(error).__name__)
            self._store.close()

    def refresh(self, domid: int) -> None:
        """Write down what the guest says now. A domain that nobody follows is passed over."""
        with self._refreshing:
            published = read_published(self._store, domid)
            drivers = has_drivers(self._store, domid)
            said = derive(read_guest(self._store, domid))
            fields = {"PV_drivers_detected": drivers, "PV_drivers_up_to_date": drivers, **said}
            self._record(domid, fields, published)

    def _record(self, domid: int, fields: dict[str, Any], published: dict[str, str]) -> None:
        database = self._database
        with self._guard, database.exclusively():
            vm = self._followed.get(domid)
            if vm is None or not database.exists("VM", vm):
                return
            if published != self._published[domid]:
                self._published[domid] = published
                database.set("VM", vm, xenstore_data=published)
            metrics = database.get("VM", vm, "guest_metrics")
            # Not recorded as running yet: whoever does that refreshes afterwards.
            if database.get("VM", vm, "domid") != domid or not database.exists("VM_guest_metrics", metrics):
                return
            record = database.snapshot("VM_guest_metrics", metrics)
            if any(record[name] != value for name, value in fields.items()):
                database.set("VM_guest_metrics", metrics, last_updated=now(), **fields)
                power.update_allowed_operations(database, vm)
