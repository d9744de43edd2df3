"""The log of a test, set up as the process's is, and everything put back afterwards."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from compute_driver.observing import logs
from compute_driver.observing.redaction import Redactor


class Lines(io.StringIO):
    """What was logged."""

    @property
    def lines(self) -> list[str]:
        return self.getvalue().splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def object(self) -> dict[str, Any]:
        (found,) = self.objects
        return found

    @property
    def line(self) -> str:
        text = self.getvalue()
        assert text.endswith("\n")
        # Not splitlines(), for which more than a line feed ends a line.
        assert text.count("\n") == 1, text
        return text[:-1]


@contextmanager
def logged(format: str = "json", level: str = "info", **arguments: Any) -> Iterator[Lines]:
    """The process's log is in here while the block runs."""
    root = logging.getLogger()
    named = [root, *(logging.getLogger(name) for name in logs._OURS)]
    handlers, levels = root.handlers[:], [logger.level for logger in named]
    root.handlers[:] = []
    stream = Lines()
    with (
        mock.patch.object(sys, "excepthook"),
        mock.patch.object(sys, "unraisablehook"),
        mock.patch.object(threading, "excepthook"),
        mock.patch.object(logs, "_REDACTOR", Redactor()),
    ):
        try:
            logs.set_up(format, level, stream=stream, **arguments)
            yield stream
        finally:
            logging.captureWarnings(False)
            root.handlers[:] = handlers
            for logger, before in zip(named, levels):
                logger.setLevel(before)
