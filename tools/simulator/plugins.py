"""dom0 plugins: executables that host.call_plugin runs with an XML-RPC call as their only argument.

Source of layout and errors: xapi's ocaml/xapi/xapi_plugins.ml and ocaml/forkexecd.
"""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Protocol

from . import errors, xmlrpc
from .processes import Program
from .watchdog import Watchdog

PLUGIN_PATH = "/sbin:/usr/sbin:/bin:/usr/bin"
"""The PATH that xapi gives to a plugin."""

_PARSE_FAILURE = "failed to parse plugin output"


@dataclass(frozen=True)
class Ended:
    """How a plugin ended.

    exit_code: as subprocess says it, negative for a signal. was_stopped: it stopped itself, as by SIGSTOP.
    """

    exit_code: int
    output: bytes
    complaints: bytes
    was_stopped: bool = False


class Dom0(Protocol):
    """Where plugins are and run. SimulatedDom0 says what each method does."""

    def names(self) -> Collection[str]: ...

    def run(self, plugin: str, document: str) -> Ended: ...

    def stop(self) -> None: ...


class Plugins:
    """The plugins of a host. They run in parallel, as many as are called, for as long as they like.

    before: asked before each run, with the names of plugin and function; it may wait, or raise an ApiError instead.
    """

    def __init__(self, dom0: Dom0) -> None:
        self._dom0 = dom0
        self.before: Callable[[str, str], None] = lambda *names: None  # noqa: ARG005

    def call(self, session: str, plugin: str, function: str, arguments: dict[str, str]) -> str:
        """Run a plugin's function and give back its value.

        ApiError with whatever code the plugin reports; XENAPI_MISSING_PLUGIN when there is no such directory entry;
        XENAPI_PLUGIN_FAILURE when it does not end or answer as it should; INTERNAL_ERROR for a value that is no string.
        """
        # A name is an entry of the directory or nothing, so it cannot lead anywhere else.
        if plugin not in self._dom0.names():
            raise errors.ApiError("XENAPI_MISSING_PLUGIN", plugin)
        self.before(plugin, function)
        try:
            ended = self._dom0.run(plugin, xmlrpc.encode_call(function, session, arguments))
        except OSError as error:
            # forkexecd's helper ends with 127 when the file or its interpreter is missing, with 126 otherwise
            # (not executable, no program, argument longer than Linux's 128 KiB). Neither number is reported.
            number = error.errno or errno.EIO
            raise _plugin_failure("non-zero exit", "", f"execve: {os.strerror(number)}") from None
        untrusted_output, untrusted_complaints = ended.output, ended.complaints
        if ended.was_stopped:
            raise _plugin_failure("task stopped", _text(untrusted_output), _text(untrusted_complaints))
        if ended.exit_code < 0:
            name = signal.Signals(-ended.exit_code).name
            raise _plugin_failure(f"signal: {name}", _text(untrusted_output), _text(untrusted_complaints))
        if ended.exit_code > 0:
            raise _plugin_failure("non-zero exit", _text(untrusted_output), _text(untrusted_complaints))
        return _value(untrusted_output)

    def stop(self) -> None:
        """Kill what still runs."""
        self._dom0.stop()


class SimulatedDom0:
    """The plugins in a directory of this machine, which run on this machine.

    xenstore_socket: of dom0. A real plugin finds the daemon at the well-known path; libxenstore's own variable
        XENSTORED_PATH stands for that here.
    python: what stands for the Python packages and the API's socket of dom0 (local_api.py). As PYTHONPATH it is the
        other thing that is added to a plugin's environment; a plugin whose interpreter ignores it lacks both.
    """

    def __init__(self, directory: Path, xenstore_socket: Path, python: Path, watchdog: Watchdog) -> None:
        self._directory = directory
        self._environment = {
            "PATH": PLUGIN_PATH,
            "XENSTORED_PATH": str(xenstore_socket),
            "PYTHONPATH": str(python),
        }
        self._watchdog = watchdog
        self._guard = threading.Lock()
        self._running: set[Program] = set()

    def names(self) -> Collection[str]:
        """The entries of the directory."""
        return {entry.name for entry in self._directory.iterdir()}

    def run(self, plugin: str, document: str) -> Ended:
        """Run a plugin to its end, with a document as its only argument. OSError when it cannot be executed."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
            arguments = [str(self._directory / plugin), document]
            program = Program(self._watchdog, arguments, self._environment, output, complaints, stop_ends=True)
            with self._guard:
                self._running.add(program)
            program.wait()
            with self._guard:
                self._running.discard(program)
            output.seek(0)
            complaints.seek(0)
            return Ended(program.exit_code, output.read(), complaints.read(), program.was_stopped)

    def stop(self) -> None:
        """Kill what still runs."""
        with self._guard:
            running = list(self._running)
        for program in running:
            program.stop(0)


def _value(untrusted_output: bytes) -> str:
    try:
        result: Any = xmlrpc.decode_response(untrusted_output)
    except xmlrpc.DecodeError as error:
        raise _plugin_failure(_PARSE_FAILURE, _text(untrusted_output), str(error)) from None
    if isinstance(result, xmlrpc.Fault):
        raise _plugin_failure("fault", result.code, result.reason)
    if isinstance(result, dict):
        if result.get("Status") == "Success" and "Value" in result:
            if type(result["Value"]) is not str:
                raise errors.failure("string_of_rpc: plugin result")
            return result["Value"]
        description = _strings(result.get("ErrorDescription"))
        if result.get("Status") == "Failure" and description:
            raise errors.ApiError(*description)
    raise _plugin_failure("unexpected XMLRPC result", _text(untrusted_output))


def _strings(value: Any) -> list[str]:
    """The value, when it is an array of strings; an empty list otherwise."""
    return value if isinstance(value, list) and all(type(item) is str for item in value) else []


def _plugin_failure(*parameters: str) -> errors.ApiError:
    return errors.ApiError("XENAPI_PLUGIN_FAILURE", *parameters)


def _text(untrusted_output: bytes) -> str:
    return untrusted_output.decode("utf-8", "replace")
