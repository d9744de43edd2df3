"""Each in a process of its own: a handler is a process's."""

from __future__ import annotations

import subprocess
import sys

import pytest

SET_UP = """
import os, random, signal, threading, time
from compute_driver.concurrency import set_up
set_up({backend!r})
from compute_driver.service.signals import StopSignal
stop = StopSignal()
"""


def run(backend: str, program: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", SET_UP.format(backend=backend) + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


both = pytest.mark.parametrize("backend", ["threading", "eventlet"])


@both
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_wait(backend: str, name: str) -> None:
    program = """
assert not stop.is_set() and not stop.wait(0.01)
threading.Timer(0.2, os.kill, (os.getpid(), signal.{name})).start()
assert stop.wait(30)
assert stop.is_set() and stop.wait() and stop.wait(0)
# Once more.
os.kill(os.getpid(), signal.{name})
assert stop.wait(0)
"""
    run(backend, program.format(name=name))


@both
def test_one_that_came_before_is_not_missed(backend: str) -> None:
    run(backend, "os.kill(os.getpid(), signal.SIGTERM)\nassert stop.wait(30)")


@both
def test_another_signal_means_nothing(backend: str) -> None:
    program = """
signal.signal(signal.SIGUSR1, lambda *_: None)
os.kill(os.getpid(), signal.SIGUSR1)
assert not stop.wait(30)
before = time.monotonic()
assert not stop.wait(0.2)
# It did wait: what that signal left is gone.
assert time.monotonic() - before >= 0.2
"""
    run(backend, program)


def test_a_signal_may_come_at_any_moment() -> None:
    """An Event's set() in the handler would wait for the lock that the Event's wait() has: at once, tried like this."""
    program = """
signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGTERM))
for _ in range(5000):
    stop._is_set = False
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 6e-5))
    stop.wait(0.00001)
    signal.setitimer(signal.ITIMER_REAL, 0)
"""
    run("threading", program)
