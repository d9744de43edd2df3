"""What every test can use. `--all` adds the tests that need services or other interpreters on this machine."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also run what needs PostgreSQL, MariaDB, RabbitMQ, Pythons")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Without --all these are left out, and counted as deselected; with it, a missing service is a failure.
    if config.getoption("--all"):
        return
    chosen = [item for item in items if item.get_closest_marker("services") is None]
    left_out = [item for item in items if item.get_closest_marker("services") is not None]
    config.hook.pytest_deselected(items=left_out)
    items[:] = chosen
