"""Answers of which only the first half is sent."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

from ..http import Protocol

_IS_TRUNCATED: ContextVar[bool] = ContextVar("_IS_TRUNCATED", default=False)


def truncate() -> None:
    """Let the answer to the call that this thread performs be cut in the middle."""
    _IS_TRUNCATED.set(True)


def truncating(protocols: Mapping[str, Protocol]) -> dict[str, Protocol]:
    """The same wire formats, with answers that are cut in the middle when a rule wants it."""
    return {path: _truncating(protocol) for path, protocol in protocols.items()}


def _truncating(protocol: Protocol) -> Protocol:
    def answer(untrusted_body: bytes) -> bytes:
        token = _IS_TRUNCATED.set(False)
        try:
            whole = protocol.answer(untrusted_body)
            return whole[: len(whole) // 2] if _IS_TRUNCATED.get() else whole
        finally:
            _IS_TRUNCATED.reset(token)

    return Protocol(protocol.content_type, answer)
