"""The calls that are written by hand, one module per group of classes."""

from __future__ import annotations

import importlib
import pkgutil

from .table import HANDLERS

# Each module enters its calls into the table when it is imported.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["HANDLERS"]
