"""Hostile inputs, drawn at random around what the protocols hold: broken, cut, mixed up, too large, or nearly right."""

from __future__ import annotations

import base64
import json
import os
import random
import struct
import time
from typing import Any

from agent_protocol.messages import MAX_VALUE

COMMANDS = ("version", "features", "keyinit", "password", "file_put", "injectfile", "file_inject", "ssh_keys", "sealed",
            "resetnetwork", "__class__", "agentupdate", "")  # fmt: skip

SCALARS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**63, 10**40, 0.5, 1e308, "", "0", "D0", "\0", "\n", "\ud800", "ü", "/", "..",
    "/etc/shadow", "/../../x", "=", "AAAA", "0" * 16, "f" * 64, "sealed", "succeeded", "x" * 1500, "[" * 900,
)  # fmt: skip

TEXTS = (b"", b"\0", b"{", b"[]", b"null", b"NaN", b'""', b"\xff\xfe{", b"[" * 1990, b'{"a":' * 300, b"1" * 1999,
         b'{"name":1}', b'{"name":"version"}', b'{"name":"version","name":"x"}', b'{"value":""}', b"\xef\xbb\xbf{}",
         b'{"name":"\\ud800","value":"\\udfff"}', b"x" * MAX_VALUE)  # fmt: skip

REQUESTS_SENT = 3000
SEALED_SENT = 2000
FRAMED_SENT = 250
PACKETS_TO_THE_STORE = 4000
PACKETS_TO_THE_AGENT = 2000
ADVERTS_READ = 3000
REPLIES_READ = 3000
BOXES_OPENED = 2000
FRAMES_JOINED = 2000
OPERATIONS = 2000

TOTAL = sum(
    (
        *(REQUESTS_SENT, SEALED_SENT, FRAMED_SENT, PACKETS_TO_THE_STORE, PACKETS_TO_THE_AGENT),
        *(ADVERTS_READ, REPLIES_READ, BOXES_OPENED, FRAMES_JOINED, OPERATIONS),
    )
)
assert TOTAL >= 20_000


class Hostile:
    """A source of hostile inputs. The same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def some_bytes(self, limit: int = 64) -> bytes:
        return self.random.randbytes(self.random.randrange(limit))

    def value(self, depth: int = 2) -> Any:
        """Something that JSON can spell."""
        kind = self.random.randrange(8 if depth else 6)
        if kind < 4:
            return self.random.choice(SCALARS)
        if kind < 6:
            return base64.b64encode(self.some_bytes(200)).decode()
        if kind == 6:
            return [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        return {str(self.random.choice(SCALARS)): self.value(depth - 1) for _ in range(self.random.randrange(4))}

    def mangled(self, data: bytes) -> bytes:
        """The data with one to three bytes changed, cut, doubled or swapped; never the data itself."""
        found = bytearray(data)
        for _ in range(self.random.randint(1, 3)):
            at = self.random.randrange(len(found) + 1)
            kind = self.random.randrange(5)
            if kind == 0:
                del found[at:]
            elif kind == 1:
                found[at:at] = self.some_bytes(8)
            elif kind == 2:
                del found[at : at + self.random.randint(1, 8)]
            elif found:
                found[at % len(found)] ^= 1 << self.random.randrange(8)
        return bytes(found) if bytes(found) != data else data + b"!"

    def altered(self, members: dict[str, Any]) -> bytes:
        """An object in JSON with one of its members gone, or of another value, or with a stranger among them."""
        changed = dict(members)
        name = self.random.choice(list(changed) or ["x"])
        kind = self.random.randrange(4)
        if kind == 0:
            changed.pop(name, None)
        elif kind == 1 and isinstance(changed.get(name), str):
            changed[name] = self.mangled(changed[name].encode()).decode("latin-1")
        else:
            changed[name] = self.value()
        return json.dumps(changed).encode()

    def request(self) -> bytes:
        """A request's node, of at most MAX_VALUE bytes."""
        kind = self.random.randrange(6)
        if kind == 0:
            return self.random.choice(TEXTS)
        if kind == 1:
            return self.some_bytes(MAX_VALUE)
        value = self.value()
        text = value if kind == 2 else json.dumps(value)
        members = {"name": self.random.choice(COMMANDS), "value": text}
        data = self.altered(members) if kind == 3 else json.dumps(members).encode()
        return (self.mangled(data) if kind == 4 else data)[:MAX_VALUE]

    def sealed_value(self, key_id: str, box: str) -> str:
        """The value of a request named sealed that comes close to this one."""
        kind = self.random.randrange(6)
        members: dict[str, Any] = {"v": 2, "key_id": key_id, "box": box}
        if kind == 0:
            return self.altered(members).decode()[:1800]
        if kind == 1:
            raw = base64.b64decode(box)
            members["box"] = base64.b64encode(self.mangled(raw)).decode()
        elif kind == 2:
            members["box"] = self.mangled(box.encode()).decode("latin-1")
        elif kind == 3:
            members["key_id"] = f"{self.random.getrandbits(64):016x}"
        elif kind == 4:
            return json.dumps(self.value())[:1800]
        else:
            announced = {"count": self.number(), "size": self.number(), "sha256": "0" * 64}
            return self.altered({**members, "frames": announced}).decode()[:1800]
        return json.dumps(members)

    def number(self) -> int:
        return self.random.choice((0, 1, 2, -1, 1900, 1901, 2**31, 2**64))

    def packet(self, paths: tuple[str, ...]) -> bytes:
        """A XenStore packet, which breaks some rule or other or is only strange."""
        operation = self.random.choice((*range(20), 21, 99, 0xFFFFFFFF))
        parts = [self.random.choice(paths).encode(), self.some_bytes(32), b"token", b"n0", b"r7", b""]
        payload = b"\0".join(self.random.choice(parts) for _ in range(self.random.randrange(4)))
        if self.random.random() < 0.2:
            payload = self.some_bytes(4096)
        length = len(payload) if self.random.random() < 0.9 else self.random.choice((0, 1, 4097, 0xFFFFFFFF))
        transaction = 0 if self.random.random() < 0.8 else self.random.getrandbits(32)
        return struct.pack("<IIII", operation, self.random.getrandbits(32), transaction, length) + payload


def from_environment() -> Hostile:
    """A new source at each run; XENWARD_TEST_SEED brings back an earlier one."""
    seed = int(os.environ.get("XENWARD_TEST_SEED", "0")) or int(time.time())
    print(f"XENWARD_TEST_SEED={seed}")
    return Hostile(seed)
