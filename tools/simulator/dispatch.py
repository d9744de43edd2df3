"""From a remote call to its result or its error, whichever wire format it came in.

A call is checked in this order: is there such a call; are there as many parameters as it takes; is the session
valid; has each parameter its type. Only then the call's handler runs.
"""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any, Callable, TypeVar

from . import errors, tasks, xmlrpc
from .calls import HANDLERS
from .calls.session import LOCAL_CALLS
from .faults.visits import Visit
from .generic import Call, generic_calls
from .machine import Host
from .rpc import MethodCall, Result, marshal
from .state import Context, State
from .values import coerce, now

LOG = logging.getLogger("xenward.simulator.api")

_Result = TypeVar("_Result")

ASYNC = "Async."
"""What stands before the name of a call that is answered with a task at once."""

_WITHOUT_TASKS = ("event", "task")
"""The classes whose calls have no task in the database (no_task_id_for in ocaml/idl/datamodel.ml)."""

_LOGGED_NAME = 80
"""How many characters of an unknown method's name are logged: it may be anything."""


class Dispatcher:
    """Answers the calls of all clients of a host, in as many threads as there are requests."""

    def __init__(self, state: State, host: Host) -> None:
        self._state = state
        self._host = host
        self._calls = generic_calls(state.model)
        for name, handler in HANDLERS.items():
            self._calls[name] = self._calls[name]._replace(handler=handler)
        # Each name may also be written with an underscore for its dot.
        self._names = {spelling: name for name in self._calls for spelling in (name, name.replace(".", "_", 1))}

    def answer(self, request: MethodCall) -> Result:
        """The result of a call. ApiError when it fails, and nothing else, unless it is to be disturbed (faults/)."""
        is_async = request.name.startswith(ASYNC)
        # Only with its dot has a call an asynchronous form.
        plain = request.name[len(ASYNC) :]
        name = (plain if plain in self._calls else "") if is_async else self._names.get(request.name, "")
        label = ASYNC + name if name and is_async else name

        signature = self._calls[name].signature if name else None
        visit = self._state.conditions.visit(signature, is_async, request.parameters)

        def perform() -> Result:
            if request.name == "system.listMethods" or request.name.startswith("system.isAlive:"):
                return self._system(request)
            return Result(self._perform(self._resolve(request, name), request.parameters, label, visit))

        return visit.answer(lambda: self._logged(label or repr(request.name[:_LOGGED_NAME]), perform))

    def _logged(self, label: str, work: Callable[[], _Result]) -> _Result:
        """What `work` gives. Every error becomes an ApiError, and a line says how it ended."""
        started = time.monotonic()
        outcome = "SUCCESS"
        try:
            return work()
        except errors.ApiError as error:
            outcome = error.code
            raise
        except Exception as error:
            # Neither caller nor log learn more than the kind of exception and its place: the text may hold a value.
            frames = "".join(traceback.format_tb(error.__traceback__))
            LOG.error("%s failed with %s\n%s", label, type(error).__name__, frames)
            outcome = "INTERNAL_ERROR"
            raise errors.internal_error(type(error).__name__) from error
        finally:
            duration = time.monotonic() - started
            LOG.info("%s %.1f ms %s", label, 1000 * duration, outcome)

    def _system(self, request: MethodCall) -> Result:
        """What is no call of any class and needs no session (ocaml/idl/ocaml_backend/gen_server.ml)."""
        if request.name == "system.listMethods":
            return Result(sorted(self._calls), bare=True)
        if not request.parameters:
            raise errors.failure("hd")
        return Result(request.parameters[0])

    def _resolve(self, request: MethodCall, name: str) -> Call:
        if not name:
            # Without parameters xapi refuses at once; otherwise it looks for an extension of that name first, and
            # checks the session for that.
            if request.parameters:
                self._check_session(request.parameters[0])
            unknown = request.name
            raise errors.method_unknown(unknown[len(ASYNC) :] if unknown.startswith(ASYNC) else unknown)
        call = self._calls[name]
        parameters = call.signature.parameters
        received = len(request.parameters) - int(call.signature.needs_session)
        expected = sum(not parameter.has_default for parameter in parameters)
        # Surplus arguments of a call with optional ones are ignored, those of any other call are an error.
        if received < expected or (expected == len(parameters) and received > expected):
            raise errors.parameter_count_mismatch(name, expected, received)
        return call

    def _perform(self, call: Call, untrusted_parameters: list[Any], label: str, visit: Visit) -> Any:
        """What the call's caller gets, as a tree: the call's result, or the task that will have it."""
        session = ""
        if call.signature.needs_session:
            session = self._check_session(untrusted_parameters[0], call.signature.name)
            untrusted_parameters = untrusted_parameters[1:]
        arguments = []
        for position, parameter in enumerate(call.signature.parameters):
            if position < len(untrusted_parameters):
                arguments.append(coerce(self._state.model, parameter.type, untrusted_parameters[position]))
            else:
                arguments.append(parameter.default)
        signature, pool = call.signature, self._state
        is_async = label != signature.name
        if is_async and not signature.has_async:
            raise errors.ApiError("Fault", f"No async mode for this operation (rpc: {signature.name})")
        has_task = signature.has_async and signature.name.partition(".")[0] not in _WITHOUT_TASKS
        context = Context(pool, session, self._host)

        def execute() -> Any:
            names = (parameter.name for parameter in signature.parameters)
            pool.conditions.check(signature.name, dict(zip(names, arguments)))
            return call.handler(context, *arguments)

        if not is_async:
            # One that comes and goes with the call.
            brief = pool.tasks.synchronously(session, label) if has_task else pool.tasks.performing(tasks.dummy(label))
            with brief:
                return marshal(pool.model, signature.result, execute())

        def work() -> str:
            return xmlrpc.encode_value(pool.model, signature.result, execute())

        task = pool.tasks.create(session, label) if has_task else tasks.dummy(label)
        pool.tasks.launch(task, visit.task(lambda: self._logged(label, work)))
        return task

    def _check_session(self, untrusted_session: Any, name: str = "") -> str:
        if not isinstance(untrusted_session, str):
            raise errors.failure("ref_of_rpc: session")
        try:
            self._state.database.set("session", untrusted_session, last_active=now())
        except errors.ApiError:
            if name not in LOCAL_CALLS or untrusted_session not in self._host.local_sessions:
                raise errors.session_invalid(untrusted_session) from None
        return untrusted_session
