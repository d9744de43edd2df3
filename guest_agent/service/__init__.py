"""The agent as a service of its guest: the files that systemd and OpenRC start it by, and its default configuration."""

from __future__ import annotations

import importlib.resources
from importlib.abc import Traversable

UNIT = "xenward-agent.service"
OPENRC = "xenward-agent.openrc"
CONFIGURATION = "agent.conf"

PROGRAM = "/usr/sbin/xenward-agent"
"""Where packages put the program, as it stands in the files below."""


def read(name: str) -> bytes:
    """One of the files named above."""
    return _files().joinpath(name).read_bytes()


def read_for(name: str, program: str) -> bytes:
    """As read(), for a program that stands elsewhere. ValueError when the file does not name it exactly once."""
    content = read(name)
    if content.count(PROGRAM.encode()) != 1:
        raise ValueError(f"{name} does not name {PROGRAM} once")
    return content.replace(PROGRAM.encode(), program.encode())


def _files() -> Traversable:
    return importlib.resources.files(__package__ or "")
