"""The command `xenward` in each environment: what it reports, proven in the guest."""

from __future__ import annotations

import pytest

from tests.contract.environments import children
from tests.contract.house import FIRST_PASSWORD, SECOND_PASSWORD, House
from tests.contract.inside import FileStatus, password_opens

from .conftest import KEY
from .guest import Guest

# In the simulator, test_life.py does this and more.
pytestmark = pytest.mark.services


def test_an_instance_was_created_with_a_key(guest: Guest) -> None:
    """And with a password, which is proven where the guest is made: other tests set others."""
    assert KEY in guest.inside.read("/root/.ssh/authorized_keys").decode().splitlines()
    assert guest.inside.status("/root/.ssh/authorized_keys") == FileStatus(0o600, "root", "root")


def test_a_reset_changes_the_guests_own_shadow_file(home: House, guest: Guest) -> None:
    assert home.set_password(SECOND_PASSWORD).status == 0
    assert password_opens(guest.inside, "root", SECOND_PASSWORD)


def test_a_guest_whose_agent_stands_still_is_unreachable_and_the_request_is_withdrawn(
    home: House, guest: Guest
) -> None:
    guest.set_password(FIRST_PASSWORD)
    before = home.settings["agent"]
    home.configure(agent={"timeout": "2"})
    guest.inside.halt_agent()
    try:
        done = home.set_password(SECOND_PASSWORD)
        assert (done.status, done.shown["outcome"]) == (7, "unreachable")
        with home.store() as store:
            assert children(store, f"/local/domain/{guest.domid}/data/host") == []
    finally:
        home.configure(agent=before)
        guest.inside.let_agent_go_on()
    # Going on, the agent finds nothing to carry out.
    guest.ask("ping")
    assert password_opens(guest.inside, "root", FIRST_PASSWORD)
