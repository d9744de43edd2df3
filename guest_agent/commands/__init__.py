"""What a host can ask for: one module for each group of commands, and the tables they make together."""

from __future__ import annotations

from . import about, files, freeze, generate, hostname, network, password, ssh_keys, update
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
    "freeze",
    "generate",
    "hostname",
    "network",
    "password",
    "ssh_keys",
    "update",
]
