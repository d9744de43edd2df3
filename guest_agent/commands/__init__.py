"""What a host can ask for: one module for each group of commands, and the tables they make together."""

from __future__ import annotations

from . import about, activate, files, freeze, generate, hostname, network, password, ssh_keys, update
from .table import COMMANDS, SEALED_COMMANDS, Command, Commands, Context, Result, features, served

__all__ = [
    "COMMANDS",
    "SEALED_COMMANDS",
    "Command",
    "Commands",
    "Context",
    "Result",
    "about",
    "activate",
    "features",
    "files",
    "freeze",
    "generate",
    "hostname",
    "network",
    "password",
    "served",
    "ssh_keys",
    "update",
]
