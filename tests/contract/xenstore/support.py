"""What the tests of XenStore's semantics share."""

from __future__ import annotations

import os
import socket
import struct
from typing import Callable

import pytest

from agent_protocol.xenstore import Client, StoreError, WatchEvent
from tests.agent_protocol.store import DEADLINE
from tools.simulator.xenstore.server import StoreServer

VM = "c0ffee00-0000-4000-8000-000000000001"

HOME = "/local/domain/3"
SIBLING = "/local/domain/4"


def code(action: Callable[..., object], *arguments: object) -> str:
    """The errno name with which the daemon refuses."""
    with pytest.raises(StoreError) as refused:
        action(*arguments)
    return refused.value.code


def events(client: Client) -> list[WatchEvent]:
    """What has arrived up to now. A daemon serves everybody in one thread, so a round trip is enough to know."""
    try:
        client.read("/tool")
    except StoreError:
        pass
    found = []
    while (event := client.next_event(0)) is not None:
        found.append(event)
    return found


def raw(server: StoreServer, operation: int, payload: bytes) -> tuple[int, bytes]:
    """Type and payload of the answer to one packet on a connection of its own. ConnectionError when there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(DEADLINE)
        peer.connect(os.fspath(server.socket))
        peer.sendall(struct.pack("<IIII", operation, 1, 0, len(payload)) + payload)
        data = b""
        while len(data) < 16 or len(data) < 16 + struct.unpack("<IIII", data[:16])[3]:
            part = peer.recv(65536)
            if not part:
                raise ConnectionError("no answer")
            data += part
        return struct.unpack("<IIII", data[:16])[0], data[16:]
