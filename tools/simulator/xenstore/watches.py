"""Watches of the simulated XenStore: who wants to hear of which path, and in which words."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

from agent_protocol import wire
from tools.simulator.xenstore.errors import StoreError
from tools.simulator.xenstore.permissions import DOM0, may_read
from tools.simulator.xenstore.tree import Change, split

MAX_WATCHES = 100
"""Watches of one guest, over all its connections: oxenstored's quota; C xenstored's is 128. One more is E2BIG, as C
xenstored says (oxenstored says EQUOTA, a name that clients do not know)."""

Client = TypeVar("Client", bound=Hashable)


class Watch(NamedTuple):
    """One registration. `base` is cut off the front of a path that is reported; empty for an absolute watch."""

    domid: int
    base: str
    token: bytes


class Watches(Generic[Client]):
    """All registrations of all clients. A client is whatever the events are to be handed to."""

    def __init__(self) -> None:
        self._by_path: dict[str, dict[tuple[Client, bytes], Watch]] = {}
        self._of_client: dict[Client, set[tuple[str, bytes]]] = {}
        self._count: dict[int, int] = {}

    def add(self, client: Client, path: str, watch: Watch) -> bytes:
        """Register, and return the payload of the first event, which is due at once.

        path: absolute, or one of wire.SPECIAL_WATCHES. StoreError EEXIST when the client has a watch with this path
        and token, E2BIG when a guest has MAX_WATCHES.
        """
        watches = self._by_path.get(path, {})
        if (client, watch.token) in watches:
            raise StoreError("EEXIST")
        if watch.domid != DOM0 and self._count.get(watch.domid, 0) >= MAX_WATCHES:
            raise StoreError("E2BIG")
        self._by_path.setdefault(path, watches)[client, watch.token] = watch
        self._of_client.setdefault(client, set()).add((path, watch.token))
        self._count[watch.domid] = self._count.get(watch.domid, 0) + 1
        return _payload(path, watch)

    def remove(self, client: Client, path: str, token: bytes) -> None:
        """Forget one registration. StoreError ENOENT when there is none."""
        watch = self._by_path.get(path, {}).pop((client, token), None)
        if watch is None:
            raise StoreError("ENOENT")
        if not self._by_path[path]:
            del self._by_path[path]
        self._of_client[client].discard((path, token))
        self._count[watch.domid] -= 1

    def drop(self, client: Client) -> None:
        """Forget all registrations of a client."""
        for path, token in list(self._of_client.get(client, ())):
            self.remove(client, path, token)
        self._of_client.pop(client, None)

    def fired(self, changes: Iterable[Change]) -> Iterator[tuple[Client, bytes]]:
        """The events that the changes cause, in order: for whom, and the payload.

        An event that does not fit a packet is left out, as C xenstored leaves it out.
        """
        for change in changes:
            for watched in (change.path,) if change.exact else _upwards(change.path):
                for (client, _), watch in self._by_path.get(watched, {}).items():
                    payload = _payload(change.path, watch)
                    seen = any(may_read(permissions, watch.domid) for permissions in change.visible_to)
                    if seen and len(payload) <= wire.MAX_PAYLOAD:
                        yield client, payload

    def announced(self, name: str) -> Iterator[tuple[Client, bytes]]:
        """The events for one of wire.SPECIAL_WATCHES. Only dom0 gets them."""
        for (client, _), watch in self._by_path.get(name, {}).items():
            if watch.domid == DOM0:
                yield client, _payload(name, watch)


def _payload(path: str, watch: Watch) -> bytes:
    reported = path[len(watch.base) + 1 :] if watch.base else path
    return wire.strings(reported, watch.token)


def _upwards(path: str) -> Iterator[str]:
    yield path
    while path != "/":
        path = split(path)[0]
        yield path
