"""Activating Windows by a key management server (KMS), through the script that Windows has for it."""

from __future__ import annotations

import ipaddress
import re

from agent_protocol.outcomes import Failed, Refused

from .api import CallError, Ended, Machine, Run
from .errors import failures

ACTIVATION_SECONDS = 60.0
"""How long each of the two steps may take. A server that does not answer costs Windows half a minute."""

_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\Z", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z", re.ASCII)


def parse_server(untrusted_server: str) -> str:
    """A server as slmgr.vbs takes it: a host name, an IPv4 address or an IPv6 address in brackets, and maybe a port.

    Refused (`bad_server`) otherwise: a slash in front, say, would be another option of the script's.
    """
    host, port = untrusted_server, None
    if untrusted_server.count(":") == 1 or "]:" in untrusted_server:
        host, _, port = untrusted_server.rpartition(":")
    if port is not None and not (_PORT.match(port) and int(port) < 65536):
        raise Refused("bad_server", "a port is a number from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise _bad_host() from None
        if "%" in host:
            raise _bad_host()
    elif not _HOST.match(host):
        raise _bad_host()
    return untrusted_server


def _bad_host() -> Refused:
    return Refused("bad_server", "a server is a host name, an IPv4 address or an IPv6 address in brackets")


def activate(machine: Machine, run: Run, untrusted_server: str | None) -> str:
    """Activate Windows; returns what the script says about it.

    untrusted_server: see parse_server; None for the server that is set already, or that the domain name system tells.
    Success means that Windows says afterwards that it is licensed: the script's words are in the system's language, and
    it ends without an error in some cases that are none. Refused (`bad_server`); Failed (`activation_failed`) with its
    words; Unknown (`program_timeout`).
    """
    server = None if untrusted_server is None else parse_server(untrusted_server)
    with failures():
        directory = machine.system_directory()
    if server is not None:
        _slmgr(run, directory, "/skms", server)
    ended = _slmgr(run, directory, "/ato")
    try:
        licensed = machine.licensed()
    except CallError as error:
        raise Failed("activation_failed", f"{ended.output}; but nobody can tell what it did: {error}") from None
    if not licensed:
        raise Failed("activation_failed", f"Windows is not activated: {ended.output}")
    return ended.output


def _slmgr(run: Run, directory: str, *arguments: str) -> Ended:
    # Without //B, which would keep the script's words from us as well as its questions; there is nobody to ask.
    command = [f"{directory}\\cscript.exe", "//Nologo", f"{directory}\\slmgr.vbs", *arguments]
    environment = {"SystemRoot": directory.rpartition("\\")[0], "PATH": directory}
    ended = run(command, environment, ACTIVATION_SECONDS)
    if ended.exit_code != 0:
        code = ended.exit_code & 0xFFFFFFFF
        raise Failed("activation_failed", f"slmgr.vbs {arguments[0]} ended with 0x{code:08x}: {ended.output}")
    return ended
