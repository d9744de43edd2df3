"""The XenStore wire format: packets, paths and their limits. Nothing here does input or output.

Client, simulated daemon and dom0 plugin share this file, so it keeps to the standard library and to Python 3.6.
Source of layout and numbers: Xen's public header io/xs_wire.h and docs/misc/xenstore.txt.
"""

import enum
import re
import struct
from typing import List, NamedTuple, Tuple, Union

HEADER = struct.Struct("<IIII")
"""type, request id, transaction id, payload length: four little-endian 32-bit numbers."""

MAX_PAYLOAD = 4096
"""XENSTORE_PAYLOAD_MAX, in bytes. A daemon cuts off the client that exceeds it."""

MAX_REPLY = 1 << 20
"""In bytes. oxenstored sends dom0 a list of names in one packet, however long it is: a guest's directory can have a
thousand names of a thousand characters."""

MAX_ABSOLUTE_PATH = 3072
"""XENSTORE_ABS_PATH_MAX, in bytes."""

MAX_RELATIVE_PATH = 2048
"""XENSTORE_REL_PATH_MAX, in bytes."""

SPECIAL_WATCHES = ("@introduceDomain", "@releaseDomain")
"""Names that can be watched but are no nodes: a domain appeared, a domain disappeared or shut down."""

_ELEMENT = re.compile(r"[A-Za-z0-9\-_@]+\Z")


class Operation(enum.IntEnum):
    """The `type` of a packet (enum xsd_sockmsg_type)."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    # 20 was taken back: it is nobody's.
    RESET_WATCHES = 21
    DIRECTORY_PART = 22


class WireError(ValueError):
    """Raised when a packet or a path breaks a rule of the protocol, before anything is sent."""


class Header(NamedTuple):
    """The first 16 bytes of a packet. `operation` is a plain number: the other side may send any."""

    operation: int
    request_id: int
    transaction_id: int
    length: int


class Packet(NamedTuple):
    """One message, in either direction."""

    operation: int
    request_id: int
    transaction_id: int
    payload: bytes


def encode(packet: Packet) -> bytes:
    """The bytes of a packet. WireError when its payload is larger than MAX_PAYLOAD."""
    if len(packet.payload) > MAX_PAYLOAD:
        raise WireError("payload of %d bytes exceeds %d" % (len(packet.payload), MAX_PAYLOAD))
    header = HEADER.pack(packet.operation, packet.request_id, packet.transaction_id, len(packet.payload))
    return header + packet.payload


def decode_header(data: bytes, limit: int = MAX_PAYLOAD) -> Header:
    """The header in the first 16 bytes of `data`. WireError when it announces more than `limit` bytes of payload."""
    header = Header(*HEADER.unpack(data[: HEADER.size]))
    if header.length > limit:
        raise WireError("announced payload of %d bytes exceeds %d" % (header.length, limit))
    return header


def check_path(path: str) -> str:
    """`path` itself, when it is a legal node path: absolute, or relative to the caller's own domain.

    Elements are not empty and hold ASCII letters, digits, `-`, `_` and `@` only. The root is `/`. WireError
    otherwise.
    """
    if path == "/":
        return path
    limit = MAX_ABSOLUTE_PATH if path.startswith("/") else MAX_RELATIVE_PATH
    if len(path) > limit:
        raise WireError("path of %d characters exceeds %d" % (len(path), limit))
    for element in path[1:].split("/") if path.startswith("/") else path.split("/"):
        if not _ELEMENT.match(element):
            raise WireError("illegal path element %r" % element)
    return path


def check_watch(path: str) -> str:
    """`path` itself, when it can be watched: a node path or one of SPECIAL_WATCHES. WireError otherwise."""
    return path if path in SPECIAL_WATCHES else check_path(path)


def strings(*values: Union[str, bytes]) -> bytes:
    """Each value followed by NUL, the form in which paths and tokens travel. WireError when one contains NUL."""
    encoded = [value.encode("utf-8") if isinstance(value, str) else value for value in values]
    if any(b"\0" in value for value in encoded):
        raise WireError("a string on the wire cannot contain NUL")
    return b"".join(value + b"\0" for value in encoded)


def split_strings(payload: bytes) -> List[bytes]:
    """The NUL-separated parts of a payload; a final NUL is optional, an empty payload has no parts."""
    if not payload:
        return []
    parts = payload.split(b"\0")
    return parts[:-1] if parts[-1] == b"" else parts


def split_path_value(payload: bytes) -> Tuple[bytes, bytes]:
    """Path and value of a WRITE. WireError when the NUL between them is missing."""
    path, separator, value = payload.partition(b"\0")
    if not separator:
        raise WireError("no NUL after the path")
    return path, value
