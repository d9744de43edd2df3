"""The plugin's function `exchange`: carry requests to guests' agents, wait for the replies, tell what became of each.

Requests for many guests share one call, one connection and one wait. A domain is found by its VM's uuid in
`/local/domain/<domid>/vm`, which only dom0 can write, so a request never reaches another VM after a reboot. The
wait is on watches: nothing polls. What was read is deleted. What happens to one request stands in delivery.py.
"""

import json
import time
from typing import Any, Callable, Dict, List, Mapping

from agent_protocol.xenstore import Client, StoreError, XenStoreError

from . import unread
from .conversation import INTRODUCED, MAX_VMS, RELEASED, bad_request, find_domains, is_uuid, next_tokens, parse_timeout
from .delivery import Delivery
from .frames import Slice, share_of

MAX_REQUESTS = MAX_VMS
MAX_VALUE = 2000
"""Bytes in a request: oxenstored takes no more than 2048 in one node, even from dom0."""


def exchange(arguments: Mapping[str, str], store: Client) -> str:
    """Arguments: `requests`, a JSON array of {"vm": uuid, "id": uuid, "value": text}, and `timeout` in seconds.

    A request whose value announces frames brings them as "frames": {"first": number of the first one, "values":
    texts, "last": whether these are all that remain}. Too many for one call come in several, each with the whole
    entry and the frames that follow; each call but the one with the last frames ends with `continue`.

    Returns a JSON array of {"id", "delivery", …} in the order of the requests; `delivery` is one of delivery's
    words. Raises PluginFailure XENWARD_BAD_REQUEST when the arguments are not of that form; nothing is written then.
    """
    deliveries = _parse_requests(arguments.get("requests", ""))
    deadline = time.monotonic() + parse_timeout(arguments.get("timeout", ""))
    _Exchange(store, deliveries).run(deadline)
    return json.dumps([delivery.result for delivery in deliveries])


def _parse_requests(text: str) -> List[Delivery]:
    try:
        entries: Any = json.loads(text)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list) or len(entries) > MAX_REQUESTS:
        raise bad_request("requests must be a JSON array of at most %d" % MAX_REQUESTS)
    deliveries = [_parse_request(entry, share_of(len(entries))) for entry in entries]
    if len({delivery.identity for delivery in deliveries}) != len(deliveries):
        raise bad_request("two requests have the same id")
    return deliveries


def _parse_request(entry: Any, reply_limit: int) -> Delivery:
    if not isinstance(entry, dict):
        raise bad_request("a request must be a JSON object")
    vm, identity, value = entry.get("vm"), entry.get("id"), entry.get("value")
    if not isinstance(vm, str) or not is_uuid(vm) or not isinstance(identity, str) or not is_uuid(identity):
        raise bad_request("vm and id of a request must be uuids")
    if not isinstance(value, str) or not _fits(value):
        raise bad_request("value of a request must be a string of at most %d bytes" % MAX_VALUE)
    part = Slice.parse(entry["frames"]) if "frames" in entry else None
    return Delivery(vm, identity, value, part, reply_limit)


def _fits(value: str) -> bool:
    try:
        return len(value.encode("utf-8")) <= MAX_VALUE
    except UnicodeEncodeError:
        # Half of a surrogate pair: JSON can spell it, no bytes stand for it.
        return False


class _Exchange:
    def __init__(self, store: Client, deliveries: List[Delivery]) -> None:
        self._store = store
        self._waiting = {delivery.identity: delivery for delivery in deliveries}

    def run(self, deadline: float) -> None:
        """Finish every delivery, at the latest shortly after `deadline` (monotonic clock)."""
        try:
            self._wait(deadline)
            for delivery in list(self._waiting.values()):
                self._attend(delivery, delivery.withdraw)
        except XenStoreError:
            for delivery in self._waiting.values():
                delivery.lose()

    def _wait(self, deadline: float) -> None:
        for name in (INTRODUCED, RELEASED):
            self._store.watch(name, name)
        self._deliver()
        # A guest can cause events faster than they are looked at: the clock ends this, not the lack of events.
        while self._waiting and time.monotonic() < deadline:
            for token in next_tokens(self._store, self._next_moment(deadline)):
                if token == INTRODUCED:
                    self._deliver()
                elif token == RELEASED:
                    for delivery in list(self._waiting.values()):
                        self._attend(delivery, delivery.proceed)
                elif token in self._waiting:
                    self._attend(self._waiting[token], self._waiting[token].proceed)
            self._expire()

    def _next_moment(self, deadline: float) -> float:
        """When to look at the clock again: at the deadline, or when a delivery is over before that."""
        moments = [delivery.until for delivery in self._waiting.values()]
        return min([deadline] + [moment for moment in moments if moment is not None])

    def _expire(self) -> None:
        now = time.monotonic()
        for delivery in list(self._waiting.values()):
            if delivery.until is not None and delivery.until <= now:
                self._attend(delivery, delivery.withdraw)

    def _attend(self, delivery: Delivery, step: Callable[[Client], None]) -> None:
        try:
            step(self._store)
        except StoreError:
            # The daemon refused something about this one's nodes; that is no reason to give up on the others.
            delivery.lose()
        if delivery.result is not None:
            self._waiting.pop(delivery.identity, None)

    def _deliver(self) -> None:
        """Write the requests whose VM has a domain by now."""
        undelivered: Dict[str, List[str]] = {}
        for delivery in self._waiting.values():
            if delivery.domain is None:
                undelivered.setdefault(delivery.vm, []).append(delivery.identity)
        if not undelivered:
            return
        domains = find_domains(self._store, undelivered)
        for vm, domain in domains.items():
            unread.clear(self._store, domain, vm, undelivered[vm])
        for delivery in list(self._waiting.values()):
            if delivery.domain is not None:
                continue
            if delivery.vm in domains:
                self._start(delivery, domains[delivery.vm])
            elif delivery.resumed:
                delivery.miss()
                del self._waiting[delivery.identity]

    def _start(self, delivery: Delivery, domain: str) -> None:
        self._attend(delivery, lambda store: delivery.start(store, domain))
