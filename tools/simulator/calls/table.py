"""The table of calls that are written by hand. Signatures are not repeated there: they come from the datamodel."""

from __future__ import annotations

from typing import Callable, TypeVar

from ..generic import Handler

HANDLERS: dict[str, Handler] = {}
"""Name, such as `VM.start`, to implementation."""

_Function = TypeVar("_Function", bound=Handler)


def call(*names: str) -> Callable[[_Function], _Function]:
    """Marks the implementation of a call, or of several with the same parameters."""

    def mark(function: _Function) -> _Function:
        for name in names:
            HANDLERS[name] = function
        return function

    return mark
