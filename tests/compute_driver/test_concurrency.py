"""Each in a process of its own: what is decided here is decided for a process's whole life."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_with_threads_nothing_of_eventlet_is_loaded() -> None:
    run(
        """
import socket, sys, threading
native = socket.socket, threading.Thread
from compute_driver import concurrency
concurrency.set_up("threading")
from compute_driver import rpc, service
import oslo_messaging
try:
    import eventlet
except ImportError:
    pass
else:
    raise SystemExit("eventlet could be imported")
loaded = [name for name in sys.modules if name.split(".")[0] in ("eventlet", "greenlet") and sys.modules[name]]
assert not [name for name in loaded if name.startswith("eventlet")], loaded
assert (socket.socket, threading.Thread) == native
from oslo_service import backend
assert backend.get_backend_type() is backend.BackendType.THREADING, backend.get_backend_type()
"""
    )


def test_with_eventlet_the_standard_library_is_green() -> None:
    run(
        """
from compute_driver import concurrency
concurrency.set_up("eventlet")
import socket, threading, queue, time, select
from eventlet import patcher
for module in ("socket", "thread", "time", "select"):
    assert patcher.is_monkey_patched(module), module
assert socket.socket.__module__.startswith("eventlet"), socket.socket.__module__
import oslo_messaging
from oslo_service import backend
assert backend.get_backend_type() is backend.BackendType.EVENTLET, backend.get_backend_type()
"""
    )


def test_eventlet_does_not_complain_about_its_age() -> None:
    program = "from compute_driver import concurrency; concurrency.set_up('eventlet')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
