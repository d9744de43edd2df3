"""The plugin's functions `version` and `status`: what is installed on this host, and whether it can work."""

import json
import sys
from typing import Callable, Iterable

from agent_protocol.xenstore import Client, StoreClosed, StoreError, StoreTimeout

from . import __version__

PROTOCOL = 2
"""The newest version of the conversation with guests that this plugin carries (docs/protocol.md)."""


def version(functions: Iterable[str]) -> str:
    """A JSON object: `version` of the plugin, `protocol`, and the names of its `functions`. XenStore is not asked."""
    return json.dumps({"version": __version__, "protocol": PROTOCOL, "functions": sorted(functions)})


def status(open_store: Callable[[], Client], functions: Iterable[str]) -> str:
    """A JSON object: `version` of the plugin, `protocol`, `python`, the `functions`, and what `xenstore` answered.

    xenstore: `ok`, `closed` when nothing listens, `timeout` when it does not answer, or the errno name it answers
    with. A store that does not work is an answer here, never an error.
    """
    report = {
        "version": __version__,
        "protocol": PROTOCOL,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "xenstore": _try_store(open_store),
        "functions": sorted(functions),
    }
    return json.dumps(report)


def _try_store(open_store: Callable[[], Client]) -> str:
    try:
        with open_store() as store:
            # dom0's own node, which the toolstack made before any guest could start.
            store.read("/local/domain/0")
    except StoreClosed:
        return "closed"
    except StoreTimeout:
        return "timeout"
    except StoreError as error:
        return error.code
    return "ok"
