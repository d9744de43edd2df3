"""Every call of an operation going wrong in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent_protocol.outcomes import Unsuccessful
from compute_driver.errors import XenServerAnswerLost, XenServerFailure, XenServerUnreachable
from compute_driver.xenapi.connection.session import XenServer

WAYS = ("refused", "lost", "interrupted")
"""The call fails without effect; it has its effect and its answer is lost; the process is told to stop just then."""


class Faulty:
    """Stands before XenServer. fail_at: the number of the call that goes wrong, from 1; way: one of WAYS."""

    def __init__(self, server: XenServer, fail_at: int = 0, way: str = "refused") -> None:
        self._server = server
        self.fail_at = fail_at
        self.way = way
        self.methods: list[str] = []
        self.before: Callable[[str], None] = lambda method: None
        self.replies: dict[str, BaseException] = {}

    def call(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        self.methods.append(method)
        failing = len(self.methods) == self.fail_at
        self.before(method)
        if method in self.replies:
            raise self.replies[method]
        if failing and self.way == "refused":
            raise XenServerFailure(["SOME_FAILURE", "x"])
        try:
            return self._server.call(method, *arguments, timeout=timeout)
        finally:
            # Whatever the answer would have been.
            if failing and self.way == "interrupted":
                raise KeyboardInterrupt
            if failing and self.way == "lost":
                raise XenServerUnreachable("xen", "gone") if ".get_" in method else XenServerAnswerLost(method)


def each_call(server: XenServer, operation: Callable[[Any], Any], way: str) -> Iterator[Faulty]:
    """Runs an operation with its first, second, … call going wrong, until it makes so many calls no more.

    It ends with an error each time; what is left then is for the caller to look at.
    """
    for number in range(1, 200):
        faulty = Faulty(server, number, way)
        try:
            operation(faulty)
        except (Unsuccessful, KeyboardInterrupt):
            yield faulty
            continue
        # It succeeded: then either all its calls were good, or it is right to pass over this one's failure.
        if len(faulty.methods) < number:
            assert number > 3
            return
        pytest.fail(f"call {number}, {faulty.methods[number - 1]}, {way}: taken for a success")
    raise AssertionError("an operation without end")
