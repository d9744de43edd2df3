"""What every test can use. `--all` adds the tests that need services or other interpreters on this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from oslo_service import backend

from tools.labs.packages import unpacked

from .groups import Groups

QEMU = ("qemu-utils", "libaio1", "libfuse3-3", "liburing2", "libnuma1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also run what needs PostgreSQL, MariaDB, RabbitMQ, Pythons")


def pytest_configure() -> None:
    # Native threads, before anything imports oslo.messaging: that would decide for eventlet, and once for all tests.
    backend.init_backend(backend.BackendType.THREADING)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Without --all these are left out, and counted as deselected; with it, a missing service is a failure.
    if config.getoption("--all"):
        return
    chosen = [item for item in items if item.get_closest_marker("services") is None]
    left_out = [item for item in items if item.get_closest_marker("services") is not None]
    config.hook.pytest_deselected(items=left_out)
    items[:] = chosen


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)


@pytest.fixture(scope="session")
def qemu_img() -> Callable[..., str]:
    """Runs Debian's qemu-img and gives what it prints."""
    directory = unpacked(QEMU)
    (libraries,) = directory.glob("usr/lib/*-linux-gnu")
    environment = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(libraries)}

    def run(*arguments: str) -> str:
        command = [str(directory / "usr/bin/qemu-img"), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
