"""An instance's metadata as its guest reads it: `vm-data/user-metadata/<key>` in XenStore, each value as JSON.

Hosts of the existing clouds write it so. VM.xenstore_data keeps it over restarts, and XenServer writes it into the
running guest's XenStore when the whole map is set. The guest may write there, too: nothing is ever read from there, and
nothing secret belongs there, since everybody who may look at the pool can see it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence

from agent_protocol.outcomes import Refused

from ..connection.session import XenServer
from .vms import VM

PREFIX = "vm-data/user-metadata/"

MAX_KEY = 255
"""Characters in a key (Nova's limit)."""

MAX_VALUE = 2000
"""Bytes of a value as it is written: oxenstored takes at most 2048, also from dom0."""

MAX_KEYS = 128
"""Keys that one instance can have (Nova's default quota)."""

_OTHER = re.compile(r"[^A-Za-z0-9_@-]", re.ASCII)
"""What XenStore has no such character for, or what would be a folder."""

_LOCKS = tuple(threading.Lock() for _ in range(16))
"""What is read is written back: one thread at a time for a VM."""


def as_written(metadata: Mapping[str, str]) -> dict[str, str]:
    """What a VM that is made with this metadata has in xenstore_data. Refused (`bad_metadata`) as by change()."""
    _, written = _understood({key: ["+", value] for key, value in metadata.items()})
    if len(written) > MAX_KEYS:
        raise _bad(f"an instance has at most {MAX_KEYS} keys")
    return written


def change(server: XenServer, vm: VM, diff: Mapping[str, Sequence[str]]) -> None:
    """Change the metadata that a guest reads. diff: by key, `["+", value]` or `["-"]`.

    Characters that XenStore has not become `_` in a key. Refused (`bad_metadata`) when anything cannot be written; then
    nothing is.
    """
    removed, written = _understood(diff)
    with _LOCKS[hash(vm.uuid) % len(_LOCKS)]:
        before = {str(key): str(value) for key, value in server.call("VM.get_xenstore_data", vm.ref).items()}
        after = {key: value for key, value in before.items() if key not in removed} | written
        if sum(key.startswith(PREFIX) for key in after) > MAX_KEYS:
            raise _bad(f"an instance has at most {MAX_KEYS} keys")
        if after != before:
            server.call("VM.set_xenstore_data", vm.ref, after)


def _understood(diff: Mapping[str, Sequence[str]]) -> tuple[set[str], dict[str, str]]:
    removed: set[str] = set()
    written: dict[str, str] = {}
    for key, what in diff.items():
        if not 1 <= len(key) <= MAX_KEY:
            raise _bad(f"a key has 1 to {MAX_KEY} characters")
        location = PREFIX + _OTHER.sub("_", key)
        if location in removed or location in written:
            raise _bad(f"two of the keys are the same in XenStore: {location}")
        if list(what) == ["-"]:
            removed.add(location)
        elif len(what) == 2 and what[0] == "+" and isinstance(what[1], str):
            written[location] = json.dumps(what[1])
            if len(written[location]) > MAX_VALUE:
                raise _bad(f"a value has at most {MAX_VALUE} bytes as JSON")
        else:
            raise _bad('a change is ["+", value] or ["-"]')
    return removed, written


def _bad(reason: str) -> Refused:
    return Refused("bad_metadata", reason)
