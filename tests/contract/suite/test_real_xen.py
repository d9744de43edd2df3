"""What only real Xen has: kernels, and domains that are none of the simulator's."""

from __future__ import annotations

import pytest

from tests.contract import environments
from tests.contract.house import House
from tests.contract.inside import RealInside
from tests.contract.real_xen import RealHouse

from .guest import Guest

pytestmark = pytest.mark.parametrize("environment", environments.with_real_guests(), indirect=True)


@pytest.fixture
def xen(home: House) -> RealHouse:
    assert isinstance(home, RealHouse)
    return home


@pytest.fixture
def inside(guest: Guest) -> RealInside:
    assert isinstance(guest.inside, RealInside)
    return guest.inside


def test_an_instance_is_a_domain_of_its_own(xen: RealHouse, guest: Guest, inside: RealInside) -> None:
    assert set(xen.xen.list()) == {0, guest.domid}
    uuid, kernel = inside.run("cat /sys/hypervisor/uuid; uname -s").split()
    assert (uuid, kernel) == (guest.vm.uuid, "Linux")


WATCHES = """\
try:
    for number in range(1000):
        store.watch("data/%d" % number, "token")
except StoreError as error:
    print(error.code, store.read("name").decode())
"""


def test_one_watch_too_many_does_not_cost_the_connection(guest: Guest) -> None:
    """The kernel refuses it in the write itself."""
    code, name = guest.inside.run_client(WATCHES).split()
    assert code in ("E2BIG", "EINVAL", "ENOSPC")
    assert name == f"instance-{guest.instance}"
