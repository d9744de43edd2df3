"""The agent's log: lines on standard error, which never keep the agent waiting and never end it.

Whoever reads them may be slow, hang or be gone. Then lines are lost, not requests.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys

MAX_LINE = 4096
"""Bytes of a line: what a pipe that is ready takes without blocking (PIPE_BUF of pipe(7))."""

_STANDARD_ERROR = 2


class StandardError(logging.Handler):
    """Writes a record if standard error takes it at once, and drops it otherwise."""

    def emit(self, record: logging.LogRecord) -> None:
        """Whatever goes wrong, there is nobody to be told."""
        with contextlib.suppress(Exception):
            line = self.format(record).encode("utf-8", "backslashreplace")[: MAX_LINE - 1] + b"\n"
            if _takes_a_line():
                os.write(_STANDARD_ERROR, line)


def _takes_a_line() -> bool:
    """Whether standard error does now. Windows cannot tell; there the agent's service keeps its log in another way."""
    if sys.platform == "win32":
        return True
    ready = select.poll()
    ready.register(_STANDARD_ERROR, select.POLLOUT)
    return any(events & select.POLLOUT for _, events in ready.poll(0))


def set_up() -> None:
    """Log to standard error from now on."""
    # A descriptor that is closed would be the next one to be opened: the store's, for one.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(descriptor)
    handler = StandardError()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.raiseExceptions = False
