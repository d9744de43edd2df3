"""The core of the contract over real Xen: a guest with a kernel of its own, from its making to its end.

One module has one Xen, which is gone before another one begins.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute_driver.files import InjectedFile
from compute_driver.states import PowerState
from tests.contract.real_xen import real_house

from .wanted import FILE, FIRST, KEY, OTHER_KEY, SECOND, Steps, Wanted, code
from .xenserver import RealXenEnvironment

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def xen() -> Iterator[RealXenEnvironment]:
    # Short: unix sockets allow 107 bytes.
    with tempfile.TemporaryDirectory(prefix="xw-") as directory, real_house(Path(directory)) as house:
        it = RealXenEnvironment(house)
        try:
            yield it
        finally:
            it.close()


@pytest.fixture(scope="module")
def guest(xen: RealXenEnvironment) -> Iterator[Wanted]:
    instance = Wanted(memory_mb=256)
    xen.driver.spawn(instance, admin_password=FIRST, injected_files=[FILE], ssh_keys=[KEY], progress=Steps())
    yield instance
    xen.driver.destroy(instance)


def test_it_was_made_as_it_was_asked_for(xen: RealXenEnvironment, guest: Wanted) -> None:
    assert xen.state(guest) is PowerState.RUNNING
    assert xen.opens(guest, FIRST.value)
    assert xen.file(guest, FILE.path) == (FILE.content, FILE.mode)
    assert xen.ssh_keys(guest) == [KEY]


def test_its_agent_does_what_it_is_told(xen: RealXenEnvironment, guest: Wanted) -> None:
    xen.driver.set_admin_password(guest, SECOND)
    assert xen.opens(guest, SECOND.value) and not xen.opens(guest, FIRST.value)
    xen.driver.inject_file(guest, InjectedFile("/srv/file", b"content", 0o644))
    assert xen.file(guest, "/srv/file") == (b"content", 0o644)
    xen.driver.add_ssh_keys(guest, [OTHER_KEY])
    assert xen.ssh_keys(guest) == [KEY, OTHER_KEY]


def test_it_is_paused_and_goes_on(xen: RealXenEnvironment, guest: Wanted) -> None:
    life = xen.life(guest)
    xen.driver.pause(guest)
    assert xen.state(guest) is PowerState.PAUSED
    assert code(lambda: xen.driver.set_admin_password(guest, FIRST)) == "instance_not_running"
    xen.driver.unpause(guest)
    assert (xen.state(guest), xen.life(guest)) == (PowerState.RUNNING, life)
    assert xen.file(guest, "/srv/file") is not None


def test_it_is_put_aside_and_resumed(xen: RealXenEnvironment, guest: Wanted) -> None:
    (boot, _) = xen.inside(guest).life()
    xen.driver.suspend(guest)
    assert xen.state(guest) is PowerState.SUSPENDED
    xen.driver.resume(guest)
    assert xen.state(guest) is PowerState.RUNNING
    assert xen.inside(guest).life()[0] == boot


@pytest.mark.parametrize("kind", ["SOFT", "HARD"])
def test_it_reboots(xen: RealXenEnvironment, guest: Wanted, kind: str) -> None:
    life = xen.life(guest)
    xen.driver.reboot(guest, kind)
    assert xen.state(guest) is PowerState.RUNNING
    assert xen.life(guest) != life


def test_it_is_switched_off_and_on_and_then_goes(xen: RealXenEnvironment, guest: Wanted) -> None:
    xen.driver.power_off(guest, timeout=0)
    assert xen.state(guest) is PowerState.SHUTDOWN
    assert code(lambda: xen.driver.reboot(guest, "SOFT")) == "instance_not_running"
    xen.driver.power_on(guest)
    assert xen.state(guest) is PowerState.RUNNING
    xen.driver.destroy(guest)
    assert xen.state(guest) is None
    assert xen.left() == []
