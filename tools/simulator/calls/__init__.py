"""The calls that are written by hand, one module per group of classes."""

from __future__ import annotations

from . import host, network, plain, session, storage, vm
from .table import HANDLERS

__all__ = ["HANDLERS", "host", "network", "plain", "session", "storage", "vm"]
