from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest

from compute_driver import concurrency
from compute_driver.cli import main as cli

from .service import Service


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The service that the command calls. The command's changes to the process's logging are taken back."""
    it = Service()
    monkeypatch.setattr("sys.argv", ["xenward"])
    # As main.py decides where there is a real bus: nothing of eventlet is loaded.
    monkeypatch.setitem(sys.modules, "eventlet", sys.modules.get("eventlet"))
    concurrency.set_up("threading")
    monkeypatch.setattr(cli.XenwardApp, "NAME", "xenward")
    monkeypatch.setattr(cli.XenwardApp, "client", property(lambda _: it))
    monkeypatch.setattr(cli.XenwardApp, "is_embedded", property(lambda _: it.is_embedded))
    root, ours = logging.getLogger(), logging.getLogger("compute_driver")
    before = root.level, list(root.handlers), ours.level
    yield it
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    ours.setLevel(before[2])
