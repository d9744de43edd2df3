"""dom0 plugins: executables that host.call_plugin runs with an XML-RPC call as their only argument.

Source of layout and errors: xapi's ocaml/xapi/xapi_plugins.ml and ocaml/forkexecd.
"""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

from . import errors, xmlrpc
from .processes import Program
from .watchdog import Watchdog

PLUGIN_PATH = "/sbin:/usr/sbin:/bin:/usr/bin"
"""The PATH that xapi gives to a plugin."""

_PARSE_FAILURE = "failed to parse plugin output"


class Plugins:
    """The plugins in one directory. They run in parallel, as many as are called, for as long as they like.

    xenstore_socket: of dom0. A real plugin finds the daemon at the well-known path; libxenstore's own variable
        XENSTORED_PATH stands for that here, and is the only thing added to a plugin's environment.
    """

    def __init__(self, directory: Path, xenstore_socket: Path, watchdog: Watchdog) -> None:
        self._directory = directory
        self._environment = {"PATH": PLUGIN_PATH, "XENSTORED_PATH": str(xenstore_socket)}
        self._watchdog = watchdog
        self._guard = threading.Lock()
        self._running: set[Program] = set()

    def call(self, session: str, plugin: str, function: str, arguments: dict[str, str]) -> str:
        """Run a plugin's function and give back its value.

        ApiError with whatever code the plugin reports; XENAPI_MISSING_PLUGIN when there is no such directory entry;
        XENAPI_PLUGIN_FAILURE when it does not end or answer as it should; INTERNAL_ERROR for a value that is no string.
        """
        # A name is an entry of the directory or nothing, so it cannot lead anywhere else.
        if plugin not in (entry.name for entry in self._directory.iterdir()):
            raise errors.ApiError("XENAPI_MISSING_PLUGIN", plugin)
        output = self._run(str(self._directory / plugin), xmlrpc.encode_call(function, session, arguments))
        return _value(output)

    def stop(self) -> None:
        """Kill what still runs."""
        with self._guard:
            running = list(self._running)
        for program in running:
            program.stop(0)

    def _run(self, path: str, document: str) -> bytes:
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
            try:
                arguments = [path, document]
                program = Program(self._watchdog, arguments, self._environment, output, complaints, stop_ends=True)
            except OSError as error:
                # forkexecd's helper ends with 127 when the file or its interpreter is missing, with 126 otherwise
                # (not executable, no program, argument longer than Linux's 128 KiB). Neither number is reported.
                number = error.errno or errno.EIO
                raise _plugin_failure("non-zero exit", "", f"execve: {os.strerror(number)}") from None
            with self._guard:
                self._running.add(program)
            program.wait()
            with self._guard:
                self._running.discard(program)
            output.seek(0)
            complaints.seek(0)
            untrusted_output, untrusted_complaints = output.read(), complaints.read()
        if program.was_stopped:
            raise _plugin_failure("task stopped", _text(untrusted_output), _text(untrusted_complaints))
        if program.exit_code < 0:
            name = signal.Signals(-program.exit_code).name
            raise _plugin_failure(f"signal: {name}", _text(untrusted_output), _text(untrusted_complaints))
        if program.exit_code > 0:
            raise _plugin_failure("non-zero exit", _text(untrusted_output), _text(untrusted_complaints))
        return untrusted_output


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
