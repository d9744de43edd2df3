"""What is told of an exception: where it came from and of what kind it is. No values of variables, no lines of source.

The text of an error that nobody foresaw may hold anything, an argument, a row or a URL, so it is told of those kinds
only whose texts are known to be harmless.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any

from agent_protocol.outcomes import Unsuccessful

MAX_FRAMES = 40
"""Frames that are told of one exception, those nearest to where it was raised."""

MAX_ERRORS = 8
"""Exceptions that are told of one chain."""


def told(error: BaseException | None, redact: Callable[[str], str]) -> list[dict[str, Any]]:
    """The exception, then what led to it: each with `type`, `message` (may be empty) and `frames`, innermost last."""
    errors: list[dict[str, Any]] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen and len(errors) < MAX_ERRORS:
        seen.add(id(error))
        errors.append({"type": _kind(error), "message": redact(_text(error)), "frames": _frames(error)})
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return errors


def _kind(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    if isinstance(error, Unsuccessful):
        return f"{error.message} ({error.code})"
    if isinstance(error, OSError) and isinstance(error.errno, int):
        return os.strerror(error.errno)
    return ""


def _frames(error: BaseException) -> list[str]:
    # Without lookup_lines the source is not read.
    frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-MAX_FRAMES:]]
