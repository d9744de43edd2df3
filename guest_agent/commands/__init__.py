"""What a host can ask for: one module for each group of commands, and the table they make together."""

from __future__ import annotations

from . import about, files, password, ssh_keys
from .table import COMMANDS, Command, Context, features

__all__ = ["COMMANDS", "Command", "Context", "about", "features", "files", "password", "ssh_keys"]
