"""What is wrong with a simulated pool at the moment: the rest of the simulator asks here, and obeys."""

from __future__ import annotations

import re
import uuid as uuids
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from ..database import Database
from ..errors import ApiError, internal_error
from ..model import Model, Signature, Type
from .call_log import CallLog
from .errors import Dropped
from .event_tokens import EventTokens
from .rules import Arrival, Rules
from .storage import BrokenRepositories
from .transfers import Transfer
from .visits import Visit, hold

UNKNOWN = "unknown"
"""The name, in the log, of a call that there is not. What the client wrote there may be anything."""

_REFERENCE = re.compile(r"OpaqueRef:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.ASCII)
_NAMING = {
    "vdi": ("VDI",),
    "base": ("VDI",),
    "sr_id": ("SR",),
    "sr_uuid": ("SR",),
    "ref": ("VM", "console"),
    "uuid": ("VM", "console", "SR"),
    "vm_uuid": ("VM",),
    "task_id": ("task",),
}
"""The parameters of data requests that name objects, by reference or uuid, and of which classes."""


class Conditions:
    """Rules, the call log, and what else is not as it should be. Every method may be called by any thread."""

    def __init__(self, model: Model, database: Database) -> None:
        self._model = model
        self._database = database
        self.rules = Rules()
        self.log = CallLog()
        self.repositories = BrokenRepositories(database)
        self.tokens = EventTokens(database)

    def stop(self) -> None:
        """The simulator ends: let nobody wait any longer."""
        self.rules.stop()
        self.log.stop()

    def visit(self, signature: Signature | None, is_async: bool, untrusted_parameters: list[Any]) -> Visit:
        """A remote call arrives. signature: None for a call that there is not."""
        if self.rules.is_empty and not self.log.is_on:
            arrival = Arrival("call", UNKNOWN)
        else:
            arrival = self._call(signature, is_async, untrusted_parameters)
        return Visit(self.rules, self.log, arrival)

    def _call(self, signature: Signature | None, is_async: bool, untrusted_parameters: list[Any]) -> Arrival:
        if signature is None:
            return Arrival("call", UNKNOWN, is_async)
        values = untrusted_parameters[int(signature.needs_session) :]
        arguments = {parameter.name: value for parameter, value in zip(signature.parameters, values)}
        found: list[str] = []
        for parameter in signature.parameters:
            if parameter.name in arguments:
                found += self._references(parameter.type, arguments[parameter.name])
        if signature.needs_session:
            originator = self._originator(untrusted_parameters[0]) if untrusted_parameters else ""
        else:
            named = arguments.get("originator", "")
            originator = named if isinstance(named, str) else ""
        return Arrival("call", signature.name, is_async, originator, arguments, tuple(dict.fromkeys(found)))

    def _references(self, kind: Type, untrusted_value: Any) -> Iterator[str]:
        if kind.kind == "ref":
            is_reference = isinstance(untrusted_value, str) and _REFERENCE.match(untrusted_value)
            # A session's reference lets everybody in who knows it.
            if is_reference and kind.name != "session":
                yield untrusted_value
        elif kind.kind in ("set", "option") and kind.item is not None:
            for item in untrusted_value if isinstance(untrusted_value, list) else [untrusted_value]:
                yield from self._references(kind.item, item)
        elif isinstance(untrusted_value, dict):
            fields = self._model.classes[kind.name].fields if kind.kind == "record" else {}
            for name, value in untrusted_value.items():
                if kind.kind == "record" and name in fields:
                    yield from self._references(fields[name].type, value)
                elif kind.kind == "map" and kind.key is not None and kind.item is not None:
                    yield from self._references(kind.key, name)
                    yield from self._references(kind.item, value)

    def _originator(self, untrusted_session: Any) -> str:
        try:
            return str(self._database.snapshot("session", untrusted_session)["originator"])
        except (ApiError, TypeError):
            return ""

    def transfer(
        self, name: str, session: str, untrusted_parameters: Mapping[str, str], http: BaseHTTPRequestHandler
    ) -> Transfer:
        """A data request arrives. session: that it names, or an empty text."""
        references = []
        for parameter, classes in _NAMING.items():
            value = untrusted_parameters.get(parameter, "")
            for cls in classes:
                ref = self._reference(cls, value)
                if ref is not None:
                    references.append(ref)
                    break
        arrival = Arrival(
            "data",
            name,
            originator=self._originator(session),
            arguments=untrusted_parameters,
            references=tuple(dict.fromkeys(references)),
        )
        return Transfer(self.rules, self.log, arrival, http)

    def _reference(self, cls: str, untrusted_name: str) -> str | None:
        if self._database.exists(cls, untrusted_name):
            return untrusted_name
        try:
            uuids.UUID(untrusted_name)
            return self._database.by_uuid(cls, untrusted_name)
        except (ValueError, ApiError):
            return None

    def plugin(self, host: str, plugin: str, function: str) -> None:
        """A plugin's function is about to run on a host. Waits, or raises the ApiError that it ends in."""
        if not self.rules.is_empty:
            name = f"{plugin}.{function}"
            try:
                hold(self.rules, self.rules.match(Arrival("plugin", name, arguments={"host": host})), name)
            except Dropped:
                raise internal_error("Stdlib.Exit") from None

    def check(self, name: str, arguments: Mapping[str, Any]) -> None:
        """A call is about to be executed. ApiError when something that it needs is out of order."""
        self.repositories.check_call(name, arguments)
        self.tokens.check_call(name, arguments)
