"""What the agent needs of a connection to XenStore, however a guest reaches it."""

from __future__ import annotations

from typing import Protocol

from agent_protocol.xenstore import WatchEvent


class Store(Protocol):
    """A connection to the guest's store; agent_protocol.xenstore.Client is one.

    Paths are relative to the guest's own domain. All raise the errors of agent_protocol.xenstore: StoreError with the
    errno's name as `code` when the store refuses, StoreTimeout when it did not answer in time, StoreClosed when there
    is no connection any more; and wire.WireError for a path that can be none.

    watch, unwatch, remove and close may be called from another thread while one waits in next_event.
    """

    def read(self, path: str) -> bytes:
        """The value of a node. StoreError ENOENT when it is missing, EACCES when it may not be read."""

    def write(self, path: str, value: bytes) -> None:
        """Set a node's value, creating it and its parents. StoreError with the quota's code when it is too large."""

    def remove(self, path: str) -> None:
        """Remove a node and everything below it. StoreError ENOENT when it is missing, which not every store tells."""

    def directory(self, path: str) -> list[str]:
        """The names of a node's children, in any order. StoreError ENOENT when the node is missing."""

    def watch(self, path: str, token: str) -> None:
        """Ask for an event at each change of `path` or below it; one comes at once. StoreError EEXIST when doubled."""

    def unwatch(self, path: str, token: str) -> None:
        """End a watch. Events that wait already may still be delivered. StoreError ENOENT when there is none."""

    def next_event(self, timeout: float | None) -> WatchEvent | None:
        """The oldest waiting event, or None after `timeout` seconds (None: wait for ever, without waking up)."""

    def close(self) -> None:
        """Close the connection. Threads that wait on it end with StoreClosed. Closing twice does nothing."""
