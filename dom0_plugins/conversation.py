"""What the plugin's functions share: where things stand in a domain, how a VM's domain is found, how one waits."""

import re
import time
from typing import Collection, Dict, List, Optional, Union

from agent_protocol.xenstore import Client, StoreError, Transaction

from .xapi import PluginFailure

# Paths of the conversation below /local/domain/<domid>, as agent_protocol.messages and .frames define them.
REQUESTS = "data/host"
REPLIES = "data/guest"
CLAIMS = "data/xenward/claims"
ADVERT = "data/xenward/agent"
FRAMES = "data/xenward/frames"

MAX_VMS = 1000
"""VMs that one call may be about."""

MAX_SECONDS = 3600.0

ATTEMPTS = 20
"""Times that a transaction is tried: a guest that keeps changing its own nodes must not hold up the others."""

INTRODUCED = "@introduceDomain"
RELEASED = "@releaseDomain"

_MAX_BURST = 1000
"""Events looked at in one go, so that the clock is looked at as well."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")

Store = Union[Client, Transaction]


def bad_request(message: str) -> PluginFailure:
    """The failure of a call whose arguments are not what they should be. `message` must not repeat them."""
    return PluginFailure("XENWARD_BAD_REQUEST", message)


def is_uuid(text: str) -> bool:
    """Whether `text` is a uuid in lower case, and so a harmless element of a path."""
    return _UUID.match(text) is not None


def parse_timeout(text: str) -> float:
    """The argument `timeout`, in seconds. PluginFailure when it is none."""
    try:
        timeout = float(text)
    except ValueError:
        timeout = -1.0
    if not 0 <= timeout <= MAX_SECONDS:
        raise bad_request("timeout must be a number of seconds from 0 to %d" % MAX_SECONDS)
    return timeout


def read(store: Store, path: str) -> Optional[bytes]:
    """The value of a node, None when it is missing."""
    try:
        return store.read(path)
    except StoreError as error:
        if error.code != "ENOENT":
            raise
        return None


def remove(store: Store, path: str) -> None:
    """Remove a node with everything below it, if it is there."""
    try:
        store.remove(path)
    except StoreError as error:
        if error.code != "ENOENT":
            raise


def vm_of(store: Store, domain: str) -> str:
    """The uuid of the VM that a domain belongs to; empty when there is no such domain.

    The node is `/vm/<uuid>`, and only dom0 can write it.
    """
    return (read(store, domain + "/vm") or b"").decode("ascii", "replace").rpartition("/")[2]


def find_domains(store: Client, vms: Collection[str]) -> Dict[str, str]:
    """The paths of the running domains of those VMs, by VM; those without one are left out."""
    domains: Dict[str, str] = {}
    for name in store.directory("/local/domain"):
        if len(domains) == len(vms):
            break
        domain = "/local/domain/" + name
        vm = vm_of(store, domain)
        if vm in vms:
            domains[vm] = domain
    return domains


def next_tokens(store: Client, until: float) -> List[str]:
    """The tokens of the watches that fired, each once; empty when none did by `until` (monotonic clock).

    All events that wait already are taken together: what a guest fires many times is looked at once.
    """
    tokens: Dict[str, None] = {}
    wait = max(0.0, until - time.monotonic())
    for _ in range(_MAX_BURST):
        event = store.next_event(wait)
        if event is None:
            break
        tokens[event.token] = None
        wait = 0.0
    return list(tokens)
