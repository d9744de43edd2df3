"""The guest's network configuration: what the host wants, and one renderer for each way that a Linux keeps it."""

from __future__ import annotations

from ..places import STATE_DIRECTORY
from ..system.paths import GuestPath

UNDO_FILE = GuestPath(f"{STATE_DIRECTORY.text}/network-undo.json")
"""What undo.py keeps while the configuration is being changed. Named here, so that looking for it loads nothing."""
