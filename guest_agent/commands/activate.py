"""The activation of the system's licence by a key management server (KMS), which Windows alone has."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from .arguments import bad, json_object, optional_text
from .table import CLEAR, SEALED, Context, Result, command

MAX_HOST = 253
"""Characters of a DNS name: RFC 1035, section 3.1, without the final dot."""

_LABEL = r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?"
_NAME = re.compile(rf"(?=.{{1,{MAX_HOST}}}\Z){_LABEL}(\.{_LABEL})*\Z", re.ASCII)
_NUMBERS = re.compile(r"(.*\.)?[0-9]+\Z", re.ASCII)
_SERVER = re.compile(r"(?P<host>\[[0-9a-fA-F:.]{2,45}\]|[^\[\]:]+)(:(?P<port>[1-9][0-9]{0,4}))?\Z", re.ASCII)


@dataclass(frozen=True)
class Server:
    """A host name, IPv4 address, or IPv6 address in brackets, maybe with `:` and a port behind it.

    Refused (`bad_arguments`) otherwise: it ends among the arguments of a program.
    """

    text: str

    def __post_init__(self) -> None:
        parts = _SERVER.match(self.text)
        if parts is None or not _is_host(parts["host"]) or int(parts["port"] or 1) > 65535:
            raise bad("the server is a host name or an address (IPv6 in brackets), maybe with a colon and a port")


def _is_host(untrusted: str) -> bool:
    if untrusted.startswith("["):
        return _is_address(untrusted[1:-1], ipaddress.IPv6Address)
    # A name whose last part is a number would be taken for an address.
    if _NUMBERS.match(untrusted):
        return _is_address(untrusted, ipaddress.IPv4Address)
    return _NAME.match(untrusted) is not None


def _is_address(untrusted: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> bool:
    try:
        kind(untrusted)
    except ValueError:
        return False
    return True


def _parse_text(untrusted_value: str) -> Server | None:
    # Old hosts send the server alone; some of their values end in a line break.
    untrusted = untrusted_value.strip()
    return Server(untrusted) if untrusted else None


def _parse(untrusted_value: str) -> Server | None:
    server = optional_text(json_object(untrusted_value or "{}", [], ["server"]), "server")
    return None if server is None else Server(server)


@command("kmsactivate", tables=CLEAR, parse=_parse_text)
@command("kmsactivate", tables=SEALED, parse=_parse)
def kmsactivate(context: Context, server: Server | None) -> Result:
    """Activate by this server, or by the one that the system knows. The message is what the system says about it."""
    return Result(context.system.activate(None if server is None else server.text))
