"""Tells whoever listens which instances have changed, from XenServer's stream of events."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..connection.batches import Row
from ..connection.cache import Change, View, instances_of
from ..connection.events import Events

LOG = logging.getLogger(__name__)


class Listener:
    """One who listens. changed: called with the uuid of each instance of which other things are told than before."""

    def __init__(self, events: Events, changed: Callable[[str], None]) -> None:
        self._events = events
        self._changed = changed
        events.subscribe(self._tell_change, self._tell_all)

    def _tell_change(self, change: Change) -> None:
        if change.cls == "VM" and _told(change.before) != _told(change.after):
            for uuid in sorted(_instances(change.before) | _instances(change.after)):
                self._tell(uuid)
        elif change.cls == "host" and _name(change.before) != _name(change.after):
            # The node of all guests that are there bears another name.
            self._tell_all(self._events.latest)

    def _tell_all(self, view: View) -> None:
        for uuid in sorted(view.instances):
            self._tell(uuid)

    def _tell(self, uuid: str) -> None:
        try:
            self._changed(uuid)
        except Exception as error:
            LOG.error("who listens for changes of instance %s failed with %s", uuid, type(error).__name__)


def _told(row: Row | None) -> tuple[object, ...] | None:
    """What get_info makes of a VM."""
    return None if row is None else (row["uuid"], row["power_state"], row["resident_on"], _instances(row))


def _instances(row: Row | None) -> set[str]:
    return set() if row is None else instances_of(row)


def _name(row: Row | None) -> object:
    return None if row is None else row["hostname"]
