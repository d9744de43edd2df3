"""What each request to the simulated XenStore means. Packets come in and go out; nothing here knows sockets."""

from __future__ import annotations

import re
from typing import Callable, Protocol

from agent_protocol import wire
from agent_protocol.wire import Operation, Packet
from tools.simulator.xenstore.errors import StoreError
from tools.simulator.xenstore.permissions import DOM0, parse
from tools.simulator.xenstore.transactions import MAX_TRANSACTIONS, Mutation, Transaction
from tools.simulator.xenstore.tree import Node, Tree
from tools.simulator.xenstore.watches import Watch, Watches

FIRST_RESERVED_DOMID = 0x7FF0
"""DOMID_FIRST_RESERVED: no guest has this domid or a higher one."""

MAX_PATH = 1024
"""In characters, of a node's path without a `/local/domain/<domid>/` at its front (EINVAL): oxenstored's rule. C
xenstored allows 2048."""

_ACKNOWLEDGED = b"OK\0"
_OF_DOMAIN = re.compile(r"^/local/domain/[0-9]+/")
_NUMBER = re.compile(rb"[0-9]{1,10}\Z")
_MAX_TRANSACTION_ID = 0xFFFFFFFF

_PRIVILEGED = frozenset(
    {
        Operation.CONTROL,
        Operation.INTRODUCE,
        Operation.RELEASE,
        Operation.IS_DOMAIN_INTRODUCED,
        Operation.RESUME,
        Operation.SET_TARGET,
    }
)
"""A guest is refused these, whether they are served or not."""

_OUTSIDE_TRANSACTIONS = frozenset({Operation.WATCH, Operation.UNWATCH})
"""These ignore the transaction id."""


class Domains(Protocol):
    """What requests need of whoever knows the domains."""

    def introduced(self, domid: int) -> bool:
        """Whether the domain has a connection to the store."""

    def add(self, domid: int) -> None:
        """Give the domain a connection. OSError when that is impossible."""

    def discard(self, domid: int) -> None:
        """Close the connections of the domain."""


class Session:
    """One client's connection: whose it is, its open transactions, and how to send to it."""

    def __init__(self, domid: int, send: Callable[[Packet], None]) -> None:
        self.domid = domid
        self.home = f"/local/domain/{domid}"
        self.send = send
        self.transactions: dict[int, Transaction] = {}
        self._last_transaction = 0

    def new_transaction_id(self) -> int:
        """An id that no open transaction of this connection has. Never 0, which means no transaction."""
        while True:
            self._last_transaction = self._last_transaction % _MAX_TRANSACTION_ID + 1
            if self._last_transaction not in self.transactions:
                return self._last_transaction


class Requests:
    """The store as its clients see it.

    A request is answered first, and the events that it caused follow, to its own sender too: oxenstored's order. C
    xenstored has it the other way round; the protocol promises neither.
    """

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self._tree = Tree()
        self._watches: Watches[Session] = Watches()
        self._sessions: set[Session] = set()
        self._events: list[tuple[Session, bytes]] = []
        self._handlers: dict[int, Callable[[Session, Packet], bytes]] = {
            Operation.DIRECTORY: self._directory,
            Operation.DIRECTORY_PART: self._directory_part,
            Operation.READ: self._read,
            Operation.GET_PERMS: self._get_perms,
            Operation.WATCH: self._watch,
            Operation.UNWATCH: self._unwatch,
            Operation.RESET_WATCHES: self._reset_watches,
            Operation.TRANSACTION_START: self._transaction_start,
            Operation.TRANSACTION_END: self._transaction_end,
            Operation.INTRODUCE: self._introduce,
            Operation.RELEASE: self._release,
            Operation.IS_DOMAIN_INTRODUCED: self._is_domain_introduced,
            Operation.GET_DOMAIN_PATH: self._get_domain_path,
            Operation.WRITE: self._write,
            Operation.MKDIR: self._mkdir,
            Operation.RM: self._rm,
            Operation.SET_PERMS: self._set_perms,
        }

    def open(self, domid: int, send: Callable[[Packet], None]) -> Session:
        """A new connection of the domain."""
        session = Session(domid, send)
        self._sessions.add(session)
        return session

    def close(self, session: Session) -> None:
        """Forget a connection, its watches and its transactions."""
        self._sessions.discard(session)
        self._watches.drop(session)
        session.transactions.clear()

    def answer(self, session: Session, untrusted_request: Packet) -> None:
        """Send exactly one reply to `session`, then to everybody the events that the request caused."""
        request = untrusted_request
        operation = request.operation
        try:
            payload = self._handle(session, request)
        except StoreError as error:
            operation, payload = Operation.ERROR, wire.strings(error.errno)
        session.send(Packet(operation, request.request_id, request.transaction_id, payload))
        self._deliver()

    def announce(self, name: str) -> None:
        """Fire the watches on one of wire.SPECIAL_WATCHES, for a cause outside any request."""
        self._events.extend(self._watches.announced(name))
        self._deliver()

    def released(self, domid: int) -> None:
        """The domain is gone, and its connections are closed: what it owned goes too, and @releaseDomain fires."""
        self._release_nodes(domid)
        self._deliver()

    def _release_nodes(self, domid: int) -> None:
        self._events.extend(self._watches.fired(self._tree.remove_owned(domid)))
        self._events.extend(self._watches.announced("@releaseDomain"))

    def _deliver(self) -> None:
        events, self._events = self._events, []
        for session, payload in events:
            session.send(Packet(Operation.WATCH_EVENT, 0, 0, payload))

    def _handle(self, session: Session, request: Packet) -> bytes:
        if request.operation in _PRIVILEGED and session.domid != DOM0:
            raise StoreError("EACCES")
        handler = self._handlers.get(request.operation)
        if handler is None:
            raise StoreError("ENOSYS")
        if request.transaction_id and request.operation not in _OUTSIDE_TRANSACTIONS:
            transaction = _transaction(session, request)
            if request.operation != Operation.TRANSACTION_END:
                transaction.count_request()
        payload = handler(session, request)
        if len(payload) > wire.MAX_PAYLOAD:
            raise StoreError("E2BIG")
        return payload

    # Reading

    def _read(self, session: Session, request: Packet) -> bytes:
        return self._readable(session, request, *_strings(request.payload, 1)).value

    def _directory(self, session: Session, request: Packet) -> bytes:
        return wire.strings(*self._readable(session, request, *_strings(request.payload, 1)).children)

    def _directory_part(self, session: Session, request: Packet) -> bytes:
        """The child names from a byte offset on, as many as fit, after the generation; an empty name ends the list."""
        untrusted_path, untrusted_offset = _strings(request.payload, 2)
        node = self._readable(session, request, untrusted_path)
        remaining = wire.strings(*node.children)[_number(untrusted_offset) :]
        generation = wire.strings(str(node.generation))
        room = wire.MAX_PAYLOAD - len(generation) - 1
        if len(remaining) <= room:
            return generation + remaining + b"\0"
        return generation + remaining[: remaining.rindex(b"\0", 0, room) + 1]

    def _get_perms(self, session: Session, request: Packet) -> bytes:
        node = self._readable(session, request, *_strings(request.payload, 1))
        return wire.strings(*(f"{permission.access}{permission.domid}" for permission in node.permissions))

    def _readable(self, session: Session, request: Packet, untrusted_path: bytes) -> Node:
        path = _path(session, untrusted_path)
        transaction_id = request.transaction_id
        tree = session.transactions[transaction_id].view if transaction_id else self._tree
        return tree.readable(session.domid, path)

    # Changing

    def _write(self, session: Session, request: Packet) -> bytes:
        try:
            untrusted_path, value = wire.split_path_value(request.payload)
        except wire.WireError:
            raise StoreError("EINVAL") from None
        path = _path(session, untrusted_path)
        return self._mutate(session, request, lambda tree: tree.write(session.domid, path, value))

    def _mkdir(self, session: Session, request: Packet) -> bytes:
        path = _path(session, *_strings(request.payload, 1))
        return self._mutate(session, request, lambda tree: tree.make_directory(session.domid, path))

    def _rm(self, session: Session, request: Packet) -> bytes:
        path = _path(session, *_strings(request.payload, 1))
        return self._mutate(session, request, lambda tree: tree.remove(session.domid, path))

    def _set_perms(self, session: Session, request: Packet) -> bytes:
        untrusted_path, *untrusted_permissions = _strings(request.payload)
        path = _path(session, untrusted_path)
        permissions = tuple(parse(permission) for permission in untrusted_permissions)
        return self._mutate(session, request, lambda tree: tree.set_permissions(session.domid, path, permissions))

    def _mutate(self, session: Session, request: Packet, mutation: Mutation) -> bytes:
        if request.transaction_id:
            session.transactions[request.transaction_id].mutate(mutation)
        else:
            self._events.extend(self._watches.fired(mutation(self._tree)))
        return _ACKNOWLEDGED

    # Watches

    def _watch(self, session: Session, request: Packet) -> bytes:
        untrusted_path, token = _strings(request.payload, 2)
        path = _watched(session, untrusted_path)
        relative = not untrusted_path.startswith((b"/", b"@"))
        watch = Watch(session.domid, session.home if relative else "", token)
        self._events.append((session, self._watches.add(session, path, watch)))
        return _ACKNOWLEDGED

    def _unwatch(self, session: Session, request: Packet) -> bytes:
        untrusted_path, token = _strings(request.payload, 2)
        self._watches.remove(session, _watched(session, untrusted_path), token)
        return _ACKNOWLEDGED

    def _reset_watches(self, session: Session, _request: Packet) -> bytes:
        self._watches.drop(session)
        session.transactions.clear()
        return _ACKNOWLEDGED

    # Transactions

    def _transaction_start(self, session: Session, request: Packet) -> bytes:
        if request.transaction_id:
            raise StoreError("EBUSY")
        if session.domid != DOM0 and self._open_transactions(session.domid) >= MAX_TRANSACTIONS:
            raise StoreError("ENOSPC")
        transaction_id = session.new_transaction_id()
        session.transactions[transaction_id] = Transaction(self._tree, session.domid)
        return wire.strings(str(transaction_id))

    def _transaction_end(self, session: Session, request: Packet) -> bytes:
        (verdict,) = _strings(request.payload, 1)
        if verdict not in (b"T", b"F"):
            raise StoreError("EINVAL")
        transaction = _transaction(session, request)
        del session.transactions[request.transaction_id]
        if verdict == b"T":
            self._events.extend(self._watches.fired(transaction.commit()))
        return _ACKNOWLEDGED

    def _open_transactions(self, domid: int) -> int:
        return sum(len(session.transactions) for session in self._sessions if session.domid == domid)

    # Domains

    def _introduce(self, _session: Session, request: Packet) -> bytes:
        """Payload: domid, frame number, event channel. The last two are the hypervisor's; here a socket stands in."""
        untrusted_domid, untrusted_frame, untrusted_port = _strings(request.payload, 3)
        domid = _guest(untrusted_domid)
        _number(untrusted_frame)
        _number(untrusted_port)
        if not self._domains.introduced(domid):
            try:
                self._domains.add(domid)
            except OSError:
                raise StoreError("EIO") from None
            self._events.extend(self._watches.announced("@introduceDomain"))
        return _ACKNOWLEDGED

    def _release(self, _session: Session, request: Packet) -> bytes:
        domid = _guest(*_strings(request.payload, 1))
        if not self._domains.introduced(domid):
            raise StoreError("ENOENT")
        self._domains.discard(domid)
        self._release_nodes(domid)
        return _ACKNOWLEDGED

    def _is_domain_introduced(self, _session: Session, request: Packet) -> bytes:
        domid = _number(*_strings(request.payload, 1))
        return wire.strings("T" if domid == DOM0 or self._domains.introduced(domid) else "F")

    def _get_domain_path(self, _session: Session, request: Packet) -> bytes:
        return wire.strings(f"/local/domain/{_number(*_strings(request.payload, 1))}")


def _transaction(session: Session, request: Packet) -> Transaction:
    transaction = session.transactions.get(request.transaction_id)
    if transaction is None:
        raise StoreError("ENOENT")
    return transaction


def _strings(untrusted_payload: bytes, count: int | None = None) -> list[bytes]:
    """The NUL-terminated strings of a payload: exactly `count`, or at least one. StoreError EINVAL."""
    parts = untrusted_payload.split(b"\0")
    if parts.pop() or not parts or (count is not None and len(parts) != count):
        raise StoreError("EINVAL")
    return parts


def _path(session: Session, untrusted_path: bytes) -> str:
    """The absolute form of a node's path. StoreError EINVAL."""
    try:
        path = wire.check_path(untrusted_path.decode("ascii"))
        # A name that starts with @ is no relative path: it could only be watched.
        if path.startswith("@"):
            raise StoreError("EINVAL")
        path = path if path.startswith("/") else wire.check_path(f"{session.home}/{path}")
        if len(_OF_DOMAIN.sub("", path, count=1)) > MAX_PATH:
            raise StoreError("EINVAL")
        return path
    except (UnicodeDecodeError, wire.WireError):
        raise StoreError("EINVAL") from None


def _watched(session: Session, untrusted_path: bytes) -> str:
    special = next((name for name in wire.SPECIAL_WATCHES if name.encode() == untrusted_path), None)
    return special or _path(session, untrusted_path)


def _number(untrusted_number: bytes) -> int:
    if not _NUMBER.match(untrusted_number):
        raise StoreError("EINVAL")
    return int(untrusted_number)


def _guest(untrusted_domid: bytes) -> int:
    domid = _number(untrusted_domid)
    if not 0 < domid < FIRST_RESERVED_DOMID:
        raise StoreError("EINVAL")
    return domid
