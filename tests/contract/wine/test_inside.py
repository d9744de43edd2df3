"""The contracts that every store and every Windows must keep to, run by the real modules in Windows itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.labs.wine.support import module, put_checkout, put_python
from tests.tools.labs.wine.xenstore import Place, placed
from tools.labs.wine import disk

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="xw-wine-") as directory:
        image = Path(directory, "disk")
        disk.copy(disk.installed(), image)
        put_python(image)
        # Its own copy of the agent is not to be found before that of the checkout.
        shutil.rmtree(image / "drive_c/python/agent")
        put_checkout(image)
        with placed(image) as place:
            place.lay_out({"data": b"", "vm": b"/vm/1"})
            yield place


@pytest.mark.parametrize("where", ["xeniface", "windows"])
def test_the_store(place: Place, where: str) -> None:
    status, told = module(place.machine, "tests.guest_agent.store.windows_contract", where)
    assert status == 0, told
    assert len(told.splitlines()) > 10


def test_windows(place: Place) -> None:
    status, told = module(place.machine, "tests.guest_agent.system.windows.contract", "--disposable")
    assert status == 0, told
    assert told.count("ok ") > 10
    print(told)
