"""The plugin's function `exchange`: carry requests to guests' agents, wait for the replies, tell what became of each.

Requests for many guests share one call, one connection and one wait. A domain is found by its VM's uuid in
`/local/domain/<domid>/vm`, which only dom0 can write, so a request never reaches another VM after a reboot. The
wait is on watches: nothing polls. What was read is deleted.

When time runs out the request is withdrawn. Agents of ours put a claim beside a request and look at the request
once more before they begin; so a request that is removed while no claim stands was not and will not be executed.
"""

import json
import re
import time
from typing import Any, Dict, List, Mapping, Optional, Union

from agent_protocol.xenstore import Client, StoreError, Transaction, XenStoreError

from .xapi import PluginFailure

MAX_REQUESTS = 1000
MAX_SECONDS = 3600.0
MAX_VALUE = 2000
"""Bytes in a request: oxenstored takes no more than 2048 in one node, even from dom0."""

ATTEMPTS = 20
"""Times that a transaction is tried: a guest that keeps changing its own nodes must not hold up the others."""

# Paths of the conversation below /local/domain/<domid>, as agent_protocol.messages defines them.
REQUESTS = "data/host"
REPLIES = "data/guest"
CLAIMS = "data/xenward/claims"
ADVERT = "data/xenward/agent"

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_INTRODUCED = "@introduceDomain"
_RELEASED = "@releaseDomain"

# What became of a request.
ANSWERED = "answered"
"""The agent replied; `value` is what it wrote."""
ABSENT = "absent"
"""No running domain of that VM appeared on this host: nothing was written."""
REJECTED = "rejected"
"""XenStore refused to take the request; `errno` says why."""
WITHDRAWN = "withdrawn"
"""An agent of ours is there but did not take it in time: it was not and will not be executed."""
TAKEN = "taken"
"""The agent took it and did not reply in time."""
UNANSWERED = "unanswered"
"""No reply, and no agent that tells whether it took the request."""
GONE = "gone"
"""The domain disappeared (reboot, migration, shutdown) after the request was written."""
LOST = "lost"
"""XenStore stopped answering after the request was written, or while it was."""


class _Delivery:
    """One request on its way."""

    def __init__(self, vm: str, identity: str, value: str) -> None:
        self.vm = vm
        self.identity = identity
        self.value = value
        self.domain: Optional[str] = None
        """Path of the domain that the request was written to."""
        self.result: Optional[Dict[str, str]] = None

    def path(self, directory: str) -> str:
        return "%s/%s/%s" % (self.domain, directory, self.identity)

    def watched(self) -> List[str]:
        """What to watch while waiting: the reply, and that the domain is still there.

        The second, because not every daemon tells watchers of a missing node that its parent went.
        """
        return [self.path(REPLIES), "%s/vm" % self.domain]

    def finish(self, delivery: str, **details: str) -> None:
        self.result = dict(details, id=self.identity, delivery=delivery)


def exchange(arguments: Mapping[str, str], store: Client) -> str:
    """Arguments: `requests`, a JSON array of {"vm": uuid, "id": uuid, "value": text}, and `timeout` in seconds.

    Returns a JSON array of {"id", "delivery", …} in the order of the requests; `delivery` is one of the words
    above. Raises PluginFailure XENWARD_BAD_REQUEST when the arguments are not of that form; nothing is written then.
    """
    deliveries = _parse_requests(arguments.get("requests", ""))
    deadline = time.monotonic() + _parse_timeout(arguments.get("timeout", ""))
    _Exchange(store, deliveries).run(deadline)
    return json.dumps([delivery.result for delivery in deliveries])


def _parse_timeout(text: str) -> float:
    try:
        timeout = float(text)
    except ValueError:
        timeout = -1.0
    if not 0 <= timeout <= MAX_SECONDS:
        raise PluginFailure("XENWARD_BAD_REQUEST", "timeout must be a number of seconds from 0 to %d" % MAX_SECONDS)
    return timeout


def _parse_requests(text: str) -> List[_Delivery]:
    try:
        entries: Any = json.loads(text)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list) or len(entries) > MAX_REQUESTS:
        raise PluginFailure("XENWARD_BAD_REQUEST", "requests must be a JSON array of at most %d" % MAX_REQUESTS)
    deliveries = [_parse_request(entry) for entry in entries]
    if len({delivery.identity for delivery in deliveries}) != len(deliveries):
        raise PluginFailure("XENWARD_BAD_REQUEST", "two requests have the same id")
    return deliveries


def _parse_request(entry: Any) -> _Delivery:
    if not isinstance(entry, dict):
        raise PluginFailure("XENWARD_BAD_REQUEST", "a request must be a JSON object")
    vm, identity, value = entry.get("vm"), entry.get("id"), entry.get("value")
    if not isinstance(vm, str) or not _UUID.match(vm) or not isinstance(identity, str) or not _UUID.match(identity):
        raise PluginFailure("XENWARD_BAD_REQUEST", "vm and id of a request must be uuids")
    if not isinstance(value, str) or not _fits(value):
        raise PluginFailure(
            "XENWARD_BAD_REQUEST", "value of a request must be a string of at most %d bytes" % MAX_VALUE
        )
    return _Delivery(vm, identity, value)


def _fits(value: str) -> bool:
    try:
        return len(value.encode("utf-8")) <= MAX_VALUE
    except UnicodeEncodeError:
        # Half of a surrogate pair: JSON can spell it, no bytes stand for it.
        return False


class _Exchange:
    def __init__(self, store: Client, deliveries: List[_Delivery]) -> None:
        self._store = store
        self._waiting = {delivery.identity: delivery for delivery in deliveries}

    def run(self, deadline: float) -> None:
        """Finish every delivery, at the latest shortly after `deadline` (monotonic clock)."""
        try:
            self._wait(deadline)
            for delivery in list(self._waiting.values()):
                self._withdraw(delivery)
        except XenStoreError:
            for delivery in list(self._waiting.values()):
                self._finish(delivery, ABSENT if delivery.domain is None else LOST)

    def _wait(self, deadline: float) -> None:
        for name in (_INTRODUCED, _RELEASED):
            self._store.watch(name, name)
        self._deliver()
        # A guest can cause events faster than they are looked at: the clock ends this, not the lack of events.
        while self._waiting and time.monotonic() < deadline:
            event = self._store.next_event(max(0.0, deadline - time.monotonic()))
            if event is None:
                return
            if event.token == _INTRODUCED:
                self._deliver()
            elif event.token == _RELEASED:
                for delivery in list(self._waiting.values()):
                    self._check(delivery)
            elif event.token in self._waiting:
                self._check(self._waiting[event.token])

    def _finish(self, delivery: _Delivery, word: str, **details: str) -> None:
        delivery.finish(word, **details)
        del self._waiting[delivery.identity]

    def _deliver(self) -> None:
        """Write the requests whose VM has a domain by now."""
        undelivered = {delivery.vm for delivery in self._waiting.values() if delivery.domain is None}
        if not undelivered:
            return
        domains: Dict[str, str] = {}
        for name in self._store.directory("/local/domain"):
            domain = "/local/domain/" + name
            vm = _vm_of(self._store, domain)
            if vm in undelivered:
                domains[vm] = domain
                if len(domains) == len(undelivered):
                    break
        for delivery in list(self._waiting.values()):
            if delivery.domain is None and delivery.vm in domains:
                self._write(delivery, domains[delivery.vm])

    def _write(self, delivery: _Delivery, domain: str) -> None:
        # In a transaction, so that the domain is still that VM's at the moment of the write.
        delivery.domain = domain
        try:
            for path in delivery.watched():
                self._store.watch(path, delivery.identity)
            for _ in range(ATTEMPTS):
                transaction = self._store.transaction()
                if _vm_of(transaction, domain) != delivery.vm:
                    transaction.abort()
                    self._unwatch(delivery)
                    delivery.domain = None
                    return
                try:
                    transaction.write(delivery.path(REQUESTS), delivery.value.encode("utf-8"))
                except StoreError:
                    transaction.abort()
                    raise
                if transaction.commit():
                    return
            self._finish(delivery, REJECTED, errno="EAGAIN")
        except StoreError as error:
            self._finish(delivery, REJECTED, errno=error.code)

    def _check(self, delivery: _Delivery) -> None:
        """Take the reply if it is there; notice if the domain is not."""
        if delivery.domain is None:
            return
        value = _read(self._store, delivery.path(REPLIES))
        if value is not None:
            self._take(delivery, value)
        elif _vm_of(self._store, delivery.domain) != delivery.vm:
            self._finish(delivery, GONE)

    def _take(self, delivery: _Delivery, value: bytes) -> None:
        # Finished first: what was read counts even if the store dies now.
        self._finish(delivery, ANSWERED, value=value.decode("utf-8", "replace"))
        self._unwatch(delivery)
        self._clear(delivery)

    def _unwatch(self, delivery: _Delivery) -> None:
        for path in delivery.watched():
            self._store.unwatch(path, delivery.identity)

    def _clear(self, delivery: _Delivery) -> None:
        for directory in (REPLIES, REQUESTS):
            try:
                self._store.remove(delivery.path(directory))
            except StoreError as error:
                if error.code != "ENOENT":
                    raise

    def _withdraw(self, delivery: _Delivery) -> None:
        """Time is up: take the request back, and tell from the same moment what its state was."""
        if delivery.domain is None:
            self._finish(delivery, ABSENT)
            return
        for _ in range(ATTEMPTS):
            transaction = self._store.transaction()
            if _vm_of(transaction, delivery.domain) != delivery.vm or transaction.exists(delivery.path(REPLIES)):
                transaction.abort()
                self._check(delivery)
                if delivery.result is not None:
                    return
                # The guest took its reply back in between.
                continue
            requested = transaction.exists(delivery.path(REQUESTS))
            claimed = transaction.exists(delivery.path(CLAIMS))
            promising = transaction.exists("%s/%s" % (delivery.domain, ADVERT))
            if requested:
                transaction.remove(delivery.path(REQUESTS))
            if transaction.commit():
                taken = claimed or not requested
                self._finish(delivery, TAKEN if taken else WITHDRAWN if promising else UNANSWERED)
                return
        # A guest that changes its nodes without end: whether it took the request cannot be told.
        self._finish(delivery, TAKEN)
        self._clear(delivery)


def _read(store: Union[Client, Transaction], path: str) -> Optional[bytes]:
    try:
        return store.read(path)
    except StoreError as error:
        if error.code != "ENOENT":
            raise
        return None


def _vm_of(store: Union[Client, Transaction], domain: str) -> str:
    """The uuid of the VM that a domain belongs to; empty when there is no such domain. The node is `/vm/<uuid>`."""
    return (_read(store, domain + "/vm") or b"").decode("ascii", "replace").rpartition("/")[2]
