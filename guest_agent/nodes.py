"""The agent's view of XenStore: the nodes of the conversation, and the events that tell of their changes."""

from __future__ import annotations

import collections

from agent_protocol.frames import FRAMES
from agent_protocol.messages import CLAIMS, REPLIES, REQUESTS
from agent_protocol.strict import UUID
from agent_protocol.xenstore import StoreError

from .store import Store

VM = "vm"
"""The node of the own domain that names its VM, as `/vm/<uuid>`; only dom0 can write it."""


class Nodes:
    """The store, with a missing node as an ordinary answer. Other StoreErrors come as they are."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def children(self, path: str) -> list[str]:
        """The names below a node; none when it is missing."""
        try:
            return self._store.directory(path)
        except StoreError as error:
            if error.code != "ENOENT":
                raise
            return []

    def read(self, path: str) -> bytes | None:
        """A node's value, None when it is missing."""
        try:
            return self._store.read(path)
        except StoreError as error:
            if error.code != "ENOENT":
                raise
            return None

    def write(self, path: str, value: bytes) -> None:
        """Set a node's value."""
        self._store.write(path, value)

    def remove(self, path: str) -> None:
        """Remove a node and everything below it, if it is there."""
        try:
            self._store.remove(path)
        except StoreError as error:
            if error.code != "ENOENT":
                raise

    def vm(self) -> str | None:
        """The uuid of the VM that this is; None when the store does not tell."""
        try:
            untrusted = (self.read(VM) or b"").decode("ascii", "replace")
        except StoreError:
            return None
        prefix, _, uuid = untrusted.rpartition("/")
        return uuid if prefix == "/vm" and UUID.match(uuid) else None


class Events:
    """The tokens of the watches that fired. None is lost while the agent waits for something particular."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._postponed: collections.OrderedDict[str, None] = collections.OrderedDict()

    def next(self, timeout: float | None) -> str | None:
        """The next token, None after `timeout` seconds (None: wait for ever)."""
        if self._postponed:
            return self._postponed.popitem(last=False)[0]
        event = self._store.next_event(timeout)
        return None if event is None else event.token

    def next_while_busy(self, timeout: float) -> str | None:
        """As next, for who is in the middle of something: all tokens but FRAMES will come again from next."""
        event = self._store.next_event(timeout)
        if event is None:
            return None
        if event.token != FRAMES:
            self._postponed[event.token] = None
        return event.token


def request_path(request_id: str) -> str:
    """Where the host writes the request."""
    return f"{REQUESTS}/{request_id}"


def reply_path(request_id: str) -> str:
    """Where the agent writes the reply to it."""
    return f"{REPLIES}/{request_id}"


def claim_path(request_id: str) -> str:
    """Where the agent marks that it works on it."""
    return f"{CLAIMS}/{request_id}"


def frames_path(request_id: str) -> str:
    """Where the frames of the request or of its reply stand."""
    return f"{FRAMES}/{request_id}"
