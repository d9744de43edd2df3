"""The host's side of the sealed conversation, frames and all."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_protocol.adverts import SealedAdvert, SealingKey, verify_advert
from agent_protocol.frames import FRAMES, MAX_ALIVE, Joiner
from agent_protocol.messages import ADVERT, REPLIES, new_request_id
from agent_protocol.sealed import (
    EncodedMessage,
    Receipt,
    SealedBox,
    SealedResult,
    encode_sealed_request,
    open_reply,
    parse_sealed_reply,
    seal_request,
    verify_receipt,
)

from .conftest import VM, Host

FRAMES_ALLOWED = 32
"""Frames that may stand in the store at any moment, by the protocol."""


@dataclass
class Asked:
    """A request under way."""

    request_id: str
    box: SealedBox
    message: EncodedMessage = field(repr=False)


class SealedHost:
    """Asks the agent whose advert stands in the store. key: for the next request; each receipt brings another."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.wait_for_agent()
        advert = self.advert()
        self.identity = advert.identity
        self.key = advert.key
        self.most_alive = 0

    def advert(self) -> SealedAdvert:
        return verify_advert(self.host.read(ADVERT) or b"", VM)

    def seal(
        self,
        name: str,
        members: dict[str, Any] | str = "",
        *,
        key: SealingKey | None = None,
        expires: float | None = None,
        request_id: str | None = None,
    ) -> Asked:
        request_id = request_id or new_request_id()
        value = members if isinstance(members, str) else json.dumps(members)
        expires = time.time() + 60 if expires is None else expires
        box = seal_request(key or self.key, VM, request_id, name, value, expires=int(expires))
        return Asked(request_id, box, encode_sealed_request(box))

    def send(self, asked: Asked) -> None:
        """Write the request, and all its frames while the agent takes them."""
        self.host.send_bytes(asked.message.node, asked.request_id)
        self.write_frames(asked.request_id, asked.message.frames)

    def alive(self, request_id: str) -> list[str]:
        found = self.host.children(f"{FRAMES}/{request_id}")
        self.most_alive = max(self.most_alive, len(found))
        return found

    def write_frames(self, request_id: str, frames: Sequence[str]) -> None:
        for number, frame in enumerate(frames):
            if number % MAX_ALIVE == 0:
                self.host.wait(lambda: not self.alive(request_id) or self.replied(request_id), "the frames to be taken")
                if self.replied(request_id):
                    return
            self.host.write(f"{FRAMES}/{request_id}/{number}", frame.encode())

    def replied(self, request_id: str) -> bool:
        return self.host.read(f"{REPLIES}/{request_id}") is not None

    def finish(self, asked: Asked) -> tuple[Receipt, SealedResult]:
        """The verified reply, once everything is cleared away."""
        self.host.wait(lambda: self.replied(asked.request_id), "a reply")
        value = self.host.read(f"{REPLIES}/{asked.request_id}") or b""
        reply = parse_sealed_reply(value)
        receipt = verify_receipt(reply, self.identity, VM, asked.request_id)
        box = reply.box
        if reply.frames is not None:
            joiner = Joiner(reply.frames)
            while not joiner.complete:
                box = self.take_frame(asked.request_id, joiner)
        assert json.loads(value)["outcome"] == str(receipt.outcome)
        self.host.reply(asked.request_id)
        self.key = receipt.next_key
        return receipt, open_reply(receipt, asked.box.reply_key, VM, asked.request_id, box)

    def take_frame(self, request_id: str, joiner: Joiner) -> str | None:
        """The next frame of a reply; the whole text after the last one."""
        path = f"{FRAMES}/{request_id}/{joiner.next_index}"
        self.host.wait(lambda: self.host.read(path) is not None, "a frame")
        self.alive(request_id)
        joiner.feed((self.host.read(path) or b"").decode())
        self.host.remove(path)
        return joiner.text() if joiner.complete else None

    def ask(self, name: str, members: dict[str, Any] | str = "", **options: Any) -> SealedResult:
        asked = self.seal(name, members, **options)
        self.send(asked)
        return self.finish(asked)[1]
