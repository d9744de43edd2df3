"""The process's log: one line for each record on standard error, as text or as JSON, without secrets.

Each line tells which request it is about, wherever in the process it comes from: what has to be said is kept in a
context variable, which every thread has for itself, be it native or green.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TextIO

from .redaction import LEAST_LENGTH, Redactor, without_line_breaks
from .tracebacks import told

LOG = logging.getLogger(__name__)

SERVICE = "xenward-compute"

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

_OURS = ("agent_protocol", "compute_driver")
"""The packages whose loggers say more with the level `debug`."""

MAX_MESSAGE = 16384
"""Characters of a message that are kept. Libraries may log whatever they were sent."""

_PLAIN = re.compile(r"[\w.:/@+-]+\Z", re.ASCII)
"""A value that can stand in a line of text without quotes."""

_about: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("xenward_about")

_REDACTOR = Redactor()
"""Secrets are the whole process's, like its log."""


@contextlib.contextmanager
def about(*, request_id: str | None = None, action: str | None = None, instance: str | None = None) -> Iterator[None]:
    """What this thread logs while the block runs is about these. What is left out stays as it was around the block.

    instance: its uuid, or its name as long as nobody knows the uuid.
    """
    given = {"request_id": request_id, "action": action, "instance": instance}
    known = {name: value for name, value in given.items() if value is not None}
    token = _about.set({**_about.get({}), **known})
    try:
        yield
    finally:
        _about.reset(token)


def current() -> dict[str, str]:
    """What this thread's log is about now; to be handed to `about` in another thread that works for the same."""
    return dict(_about.get({}))


def hide(secrets: Iterable[str]) -> None:
    """Keep these out of the log from now on. A warning is logged when there are any too short to be looked for."""
    too_short = _REDACTOR.add(secrets)
    if too_short:
        LOG.warning("a secret of fewer than %d characters is configured: it is not kept out of logs", LEAST_LENGTH)


def redacted(text: str) -> str:
    """`text` as the log would have it: without secrets, on one line."""
    return without_line_breaks(_REDACTOR(text))


class _Lines(logging.Formatter):
    """What both formats share."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self._host = host

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _time(record.created),
            "level": record.levelname,
            "logger": _REDACTOR(record.name),
            "message": _cut(_REDACTOR(_message(record))),
            "service": SERVICE,
            "host": self._host,
            **{name: _REDACTOR(value) for name, value in _about.get({}).items()},
        }
        errors = told(record.exc_info[1], _REDACTOR) if record.exc_info else []
        return self._line(fields, errors)

    def _line(self, fields: dict[str, str], errors: list[dict[str, Any]]) -> str:
        raise NotImplementedError


class JsonLines(_Lines):
    """One object for each record, in ASCII."""

    def _line(self, fields: dict[str, str], errors: list[dict[str, Any]]) -> str:
        whole: dict[str, Any] = dict(fields)
        if errors:
            whole["errors"] = errors
        return json.dumps(whole)


class TextLines(_Lines):
    """Time, level and logger, what it is about in brackets, and the message."""

    def _line(self, fields: dict[str, str], errors: list[dict[str, Any]]) -> str:
        named = " ".join(f"{name}={_quoted(fields[name])}" for name in _about.get({}))
        line = f"{fields['time']} {fields['level']} {fields['logger']} "
        line += f"[{named}] {fields['message']}" if named else fields["message"]
        for error in errors:
            frames = " > ".join(error["frames"]) or "no frames"
            line += f" | {error['type']}{': ' if error['message'] else ''}{error['message']} ({frames})"
        # Again, since what was put together and escaped may have become a secret that its parts were not.
        return _REDACTOR.without_known(without_line_breaks(line))


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:
    # Before Python 3.11 it cannot be told of what.
    _StreamHandler = logging.StreamHandler


class _Stream(_StreamHandler):
    """Says of a record that cannot be written no more than that: logging's own words would show its arguments."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        with contextlib.suppress(Exception):
            os.write(2, f"a log record of {without_line_breaks(record.name)} could not be written\n".encode())


def set_up(
    format: str,
    level: str,
    *,
    host: str = "",
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Log to `stream` (standard error), from all of the process's loggers, in place of whatever logged before.

    format: one of FORMATS; level: one of LEVELS, `debug` being for our own loggers; ValueError for others. secrets: as
    in `hide`. Call it after concurrency.set_up. Warnings and exceptions that nobody caught are logged from now on, too:
    Python would print them with their texts.
    """
    if format not in FORMATS or level not in LEVELS:
        raise ValueError(f"the log is {' or '.join(FORMATS)}, of a level of {', '.join(LEVELS)}")
    handler = _Stream(stream or sys.stderr)
    handler.setFormatter(JsonLines(host) if format == "json" else TextLines(host))
    wanted = logging.getLevelName(level.upper())
    # Libraries' own words for debugging show what passes through them, such as messages of the bus.
    logging.basicConfig(handlers=[handler], level=max(wanted, logging.INFO), force=True)
    for package in _OURS:
        logging.getLogger(package).setLevel(wanted)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda hook: _uncaught(hook.exc_type, hook.exc_value, None)
    sys.unraisablehook = lambda hook: _uncaught(hook.exc_type, hook.exc_value, None)
    hide(secrets)


def _uncaught(kind: type[BaseException], error: BaseException | None, _frames: object) -> None:
    if issubclass(kind, SystemExit):
        return
    if issubclass(kind, KeyboardInterrupt):
        LOG.warning("interrupted")
        return
    LOG.critical("an error that nobody caught: %s", kind.__name__, exc_info=error)


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:
        # The template and the arguments do not fit, or an argument has no text. A lost record would be worse.
        return f"{record.msg if isinstance(record.msg, str) else ''} (without its arguments: {type(error).__name__})"


def _cut(text: str) -> str:
    # After the redaction: of a secret that is cut in two the first half would not be known any more.
    left_out = len(text) - MAX_MESSAGE
    return text if left_out <= 0 else f"{text[:MAX_MESSAGE]}… ({left_out} more characters)"


def _quoted(value: str) -> str:
    return value if _PLAIN.match(value) else json.dumps(value, ensure_ascii=False)
