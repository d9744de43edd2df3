"""The hand-shake with the dom0 plugin: which one is on a host, asked once for as long as the host is connected."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass
from typing import Any

from agent_protocol.outcomes import Outcome, Unreachable, Unsuccessful, Unsupported

from ...errors import XenServerFailure
from ...fencing import LeaseLost
from ..connection.cache import Change
from ..connection.session import XenServer

LOG = logging.getLogger(__name__)

NAME = "xenward"

PROTOCOL = 2
"""The conversation with guests that the plugin must be able to carry (docs/protocol.md). Newer plugins can."""

FUNCTIONS = frozenset({"adverts", "console_log", "exchange"})
"""What the driver calls."""

_TIMEOUT = 20.0
"""Seconds; the plugin asks nobody for this."""

_REMEDY = "`xenward host install-plugin` installs it"


@dataclass(frozen=True)
class PluginVersion:
    """What a plugin tells of itself. protocol: a whole number."""

    version: str
    protocol: int
    functions: frozenset[str]

    @classmethod
    def parse(cls, untrusted_answer: Any) -> PluginVersion:
        """From its answer; Unreachable when it cannot be read."""
        try:
            told = json.loads(untrusted_answer)
            version, protocol, functions = told["version"], told["protocol"], told["functions"]
            if type(protocol) is not int or not isinstance(version, str) or not isinstance(functions, list):
                raise ValueError
            return cls("".join(filter(str.isprintable, version))[:64], protocol, frozenset(map(str, functions)))
        except (KeyError, TypeError, ValueError, RecursionError):
            raise Unreachable("bad_plugin_answer", "the dom0 plugin does not tell its version") from None

    def require(self) -> None:
        """Unsupported when the driver cannot work with it."""
        if self.protocol < PROTOCOL or not self.functions >= FUNCTIONS:
            raise too_old(self.version)


def missing() -> Unsupported:
    """The error for a host without the plugin."""
    return Unsupported("plugin_missing", f"the dom0 plugin {NAME!r} is not installed on the host; {_REMEDY}")


def too_old(version: str = "") -> Unsupported:
    """The error for a host whose plugin lacks something. version: as it tells, empty when it does not even do that."""
    named = f" ({version})" if version else ""
    return Unsupported("plugin_too_old", f"the dom0 plugin {NAME!r} on the host is too old{named}; {_REMEDY}")


class PluginVersions:
    """The plugins of a pool's hosts, which are named by their references. Serves many threads."""

    def __init__(self, server: XenServer) -> None:
        self._server = server
        self._guard = threading.Lock()
        self._good: set[str] = set()
        self._is_subscribed = False

    def ask(self, host: str) -> PluginVersion:
        """What a host's plugin tells now; Unsupported when it is missing or tells nothing, whatever its version is.

        What else goes wrong is Unreachable: nothing was ordered.
        """
        self.forget(host)
        try:
            answer = self._server.call("host.call_plugin", host, NAME, "version", {}, timeout=_TIMEOUT)
        except XenServerFailure as failure:
            code = failure.details[0]
            if code == "XENAPI_MISSING_PLUGIN":
                raise missing() from None
            if code == "UNKNOWN_XENAPI_PLUGIN_FUNCTION":
                raise too_old() from None
            if code == "XENAPI_PLUGIN_FAILURE":
                raise Unreachable("plugin_died", "the host's dom0 plugin does not work") from None
            raise _nothing_ordered(failure) from None
        except Unsuccessful as error:
            raise _nothing_ordered(error) from None
        return PluginVersion.parse(answer)

    def require(self, host: str) -> None:
        """Make sure that a host's plugin is good enough: Unsupported when not, Unreachable when it does not answer."""
        with self._guard:
            if host in self._good:
                return
        self._subscribe()
        self.ask(host).require()
        with self._guard:
            self._good.add(host)

    def forget(self, host: str) -> None:
        """Ask again before the next use."""
        with self._guard:
            self._good.discard(host)

    def greet(self) -> None:
        """Ask all hosts that are up, and log which cannot be used; the others can."""
        for ref, record in self._server.events.records("host").items():
            if self._server.events.record("host_metrics", record["metrics"])["live"]:
                try:
                    self.require(ref)
                except Unsuccessful as error:
                    LOG.error("host %s: %s", record["hostname"], error)

    def _subscribe(self) -> None:
        with self._guard:
            is_subscribed, self._is_subscribed = self._is_subscribed, True
        if not is_subscribed:
            self._server.events.subscribe(self._changed)

    def _changed(self, change: Change) -> None:
        gone = change.cls == "host" and change.after is None
        down = change.cls == "host_metrics" and (change.after is None or not change.after["live"])
        if gone or down:
            # Whichever it is: the others are asked once more, which costs a call each.
            with self._guard:
                self._good.clear()


def _nothing_ordered(error: Unsuccessful) -> Unsuccessful:
    if error.outcome is Outcome.UNKNOWN and not isinstance(error, LeaseLost):
        return Unreachable(error.code, f"the host's dom0 plugin was not heard of: {error.message}")
    return error
