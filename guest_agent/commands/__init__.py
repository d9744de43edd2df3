"""What a host can ask for: one module for each group of commands, and the tables they make together."""

from __future__ import annotations

from . import about, files, generate, password, ssh_keys
from .table import COMMANDS, SEALED_COMMANDS, Command, Commands, Context, Result, features

__all__ = [
    "COMMANDS",
    "SEALED_COMMANDS",
    "Command",
    "Commands",
    "Context",
    "Result",
    "about",
    "features",
    "files",
    "generate",
    "password",
    "ssh_keys",
]
