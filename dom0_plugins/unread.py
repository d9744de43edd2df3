"""Replies that come when nobody waits for them any more.

A request whose agent may still be at it when the time is up ends with a mark, in the same transaction that takes
it back: its id joins `/local/domain/<domid>/xenward/unread`, where only dom0 can write. The next exchange with that
domain removes the replies to the ids in the list. No plugin waits for those: the one that did has just given up.
A reply that a running plugin waits for is never in the list, so nothing depends on who is faster.
"""

from typing import Collection, List

from agent_protocol.xenstore import Client, StoreError, Transaction

from .conversation import FRAMES, REPLIES, Store, is_uuid, read, vm_of

DIRECTORY = "xenward"
"""The plugin's own corner of a domain; the guest can read and not write it. It goes when the domain does."""

UNREAD = DIRECTORY + "/unread"

MAX_UNREAD = 32
"""Ids that are remembered for a domain, the newest: their looking up must not hold up an exchange."""

_ATTEMPTS = 3


def remember(transaction: Transaction, domain: str, identity: str) -> None:
    """Note that nobody will read the reply to this request."""
    ids = [known for known in _list(transaction, domain) if known != identity]
    _store(transaction, domain, ids + [identity])


def clear(store: Client, domain: str, vm: str, new: Collection[str]) -> None:
    """Remove the replies that nobody reads, and forget about those.

    new: ids that are about to be used; they are forgotten in any case. Where the guest or another plugin interferes,
    some remain for the next time.
    """
    if read(store, _path(domain, UNREAD)) is None:
        return
    for _ in range(_ATTEMPTS):
        transaction = store.transaction()
        try:
            if vm_of(transaction, domain) == vm:
                ids = _list(transaction, domain)
                left = [identity for identity in ids if not _clear_one(transaction, domain, identity)]
                left = [identity for identity in left if identity not in new]
                if left != ids:
                    _store(transaction, domain, left)
        except StoreError:
            # None of this is urgent, and nobody's request may suffer from it.
            transaction.abort()
            return
        if transaction.commit():
            return


def _clear_one(transaction: Transaction, domain: str, identity: str) -> bool:
    """Whether the reply was there."""
    reply = _path(domain, REPLIES, identity)
    if not transaction.exists(reply):
        return False
    transaction.remove(reply)
    frames = _path(domain, FRAMES, identity)
    if transaction.exists(frames):
        transaction.remove(frames)
    return True


def _list(store: Store, domain: str) -> List[str]:
    text = (read(store, _path(domain, UNREAD)) or b"").decode("ascii", "replace")
    return [identity for identity in text.split() if is_uuid(identity)]


def _store(transaction: Transaction, domain: str, ids: List[str]) -> None:
    if ids:
        transaction.write(_path(domain, UNREAD), " ".join(ids[-MAX_UNREAD:]).encode("ascii"))
    else:
        transaction.remove(_path(domain, DIRECTORY))


def _path(*elements: str) -> str:
    return "/".join(elements)
