"""From the bytes of a request to the bytes of its answer.

A request is checked in this order: is there such a call; are there as many parameters as it takes; is the session
valid; has each parameter its type. Only then the call's handler runs.
"""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any

from . import errors, xmlrpc
from .calls import HANDLERS
from .generic import Call, generic_calls
from .state import Context, State
from .values import coerce, now

LOG = logging.getLogger("xenward.simulator.api")

_LOGGED_NAME = 80
"""How many characters of an unknown method's name are logged: it may be anything."""


class Dispatcher:
    """Answers the calls of all clients, in as many threads as there are requests."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._calls = generic_calls(state.model)
        for name, handler in HANDLERS.items():
            self._calls[name] = Call(state.model.signatures[name], handler)
        # Each name may also be written with an underscore for its dot.
        self._names = {spelling: name for name in self._calls for spelling in (name, name.replace(".", "_", 1))}

    def answer(self, untrusted_body: bytes) -> bytes:
        """The response to a request. xmlrpc.DecodeError when the request cannot be read."""
        started = time.monotonic()
        request = xmlrpc.decode_call(untrusted_body)
        name = self._names.get(request.name, "")
        outcome = "SUCCESS"
        try:
            call = self._resolve(request, name)
            result = self._perform(call, request.parameters)
            return xmlrpc.encode_success(self._state.model, call.signature.result, result)
        except errors.ApiError as error:
            outcome = error.code
            return xmlrpc.encode_failure(error.description)
        except Exception as error:
            # Neither caller nor log learn more than the kind of exception and its place: the text may hold a value.
            frames = "".join(traceback.format_tb(error.__traceback__))
            LOG.error("%s failed with %s\n%s", name, type(error).__name__, frames)
            outcome = "INTERNAL_ERROR"
            return xmlrpc.encode_failure(errors.internal_error(type(error).__name__).description)
        finally:
            duration = time.monotonic() - started
            LOG.info("%s %.1f ms %s", name or repr(request.name[:_LOGGED_NAME]), 1000 * duration, outcome)

    def _resolve(self, request: xmlrpc.MethodCall, name: str) -> Call:
        if not name:
            # Without parameters xapi refuses at once; otherwise it looks for an extension of that name first, and
            # checks the session for that.
            if request.parameters:
                self._check_session(request.parameters[0])
            unknown = request.name
            raise errors.method_unknown(unknown[len("Async.") :] if unknown.startswith("Async.") else unknown)
        call = self._calls[name]
        parameters = call.signature.parameters
        received = len(request.parameters) - int(call.signature.needs_session)
        expected = sum(not parameter.has_default for parameter in parameters)
        # Surplus arguments of a call with optional ones are ignored, those of any other call are an error.
        if received < expected or (expected == len(parameters) and received > expected):
            raise errors.parameter_count_mismatch(name, expected, received)
        return call

    def _perform(self, call: Call, untrusted_parameters: list[Any]) -> Any:
        session = ""
        if call.signature.needs_session:
            session = self._check_session(untrusted_parameters[0])
            untrusted_parameters = untrusted_parameters[1:]
        arguments = []
        for position, parameter in enumerate(call.signature.parameters):
            if position < len(untrusted_parameters):
                arguments.append(coerce(self._state.model, parameter.type, untrusted_parameters[position]))
            else:
                arguments.append(parameter.default)
        return call.handler(Context(self._state, session), *arguments)

    def _check_session(self, untrusted_session: Any) -> str:
        if not isinstance(untrusted_session, str):
            raise errors.failure("ref_of_rpc: session")
        try:
            self._state.database.set("session", untrusted_session, last_active=now())
        except errors.ApiError:
            raise errors.session_invalid(untrusted_session) from None
        return untrusted_session
