"""An instance that is suspended while another one boots; both beside each other; and what is left of a deleted one.

Together, since each boot takes long; the last module, because the others count on one guest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from agent_protocol.messages import ADVERT, REQUESTS
from tests.contract.environments import GuestEnvironment
from tests.contract.house import FIRST_PASSWORD, House
from tests.contract.inside import Inside, password_opens
from tests.contract.real_xen import RealHouse

from .guest import Guest, assert_serves, request


@dataclass(frozen=True)
class Story:
    """What the first guest was before it was suspended, and the second instance, which booted meanwhile.

    domid, identity, life: of the first. lost: id of a request that stood in its domain. domains: that there were in
    between. second: uuid of the other instance, which is only ever spoken to in the old protocol.
    """

    domid: int
    identity: bytes
    life: tuple[str, ...]
    lost: str
    domains: list[str]
    second: str


def put(path: str) -> bytes:
    """A request that puts a file."""
    return request("file_put", json.dumps({"path": path, "content": "YQ=="}))


@pytest.fixture(scope="module")
def story(home: House, guest: Guest) -> Story:
    domid, identity, life = guest.domid, guest.identity(), guest.inside.life()
    guest.inside.halt_agent()
    with guest.channel() as channel:
        lost = channel.send(put("/opt/lost"))
        guest.call("VM.suspend")
        assert guest.server.call("VM.get_power_state", guest.vm.ref) == "Suspended"
        domains = channel.store.directory("/local/domain")
    home.configure(agent={"protocol": "legacy"})
    second = home.create("second")
    home.configure(agent={"protocol": "prefer-sealed"})
    guest.call("VM.resume", False, False)
    guest.inside.let_agent_go_on()
    return Story(domid, identity, life, lost, domains, second)


@pytest.fixture
def second(home: House, environment: GuestEnvironment, story: Story) -> Iterator[Inside]:
    """The inside of the second instance."""
    with environment.inside(home, story.second) as inside:
        yield inside


def test_a_guest_that_was_suspended_goes_on_where_it_was(home: House, guest: Guest, story: Story) -> None:
    assert story.domains == ["0"]
    assert guest.domid > story.domid
    assert_serves(guest, "Pass-word after a suspension", int(home.vm(story.second)["domid"]))
    assert guest.identity() == story.identity
    assert guest.inside.life() == story.life


def test_what_stood_in_the_domain_that_is_gone_is_gone_with_it(guest: Guest, story: Story) -> None:
    with guest.channel() as channel:
        assert story.lost not in channel.children(REQUESTS)
        assert channel.reply(channel.send(put("/opt/found")))["outcome"] == "succeeded"
        channel.assert_nothing_left()
    assert guest.inside.read("/opt/found") == b"a"
    with pytest.raises(FileNotFoundError):
        guest.inside.read("/opt/lost")


def test_a_second_instance_is_served_in_the_old_protocol(home: House, second: Inside) -> None:
    assert home.last_action("second") == ("set_admin_password", "succeeded", "legacy_protocol")
    assert password_opens(second, "root", FIRST_PASSWORD)


PEEK = """\
for path in ("/local/domain/{first}/{advert}", "/local/domain/{first}/name", "/local/domain/0"):
    for attempt in (store.read, lambda path: store.write(path, b"x")):
        try:
            print(attempt(path))
        except StoreError as error:
            print(error.code)
print(store.read("domid").decode())
"""


def test_the_second_sees_nothing_of_the_first(home: House, guest: Guest, story: Story, second: Inside) -> None:
    said = second.run_client(PEEK.format(first=guest.domid, advert=ADVERT))
    assert said.split() == ["EACCES"] * 6 + [home.vm(story.second)["domid"]]


def test_a_deleted_instance_leaves_nothing(home: House, guest: Guest, story: Story) -> None:
    vm, domid = home.vm(story.second)["uuid"], home.vm(story.second)["domid"]
    assert home.xenward("server", "delete", "second").status == 0
    with home.store() as store:
        assert set(store.directory("/local/domain")) == {"0", str(guest.domid)}
        assert vm not in store.directory("/vm")
        for kind in store.directory("/local/domain/0/backend"):
            assert domid not in store.directory(f"/local/domain/0/backend/{kind}")
    if isinstance(home, RealHouse):
        assert set(home.xen.list()) == {0, guest.domid}
        assert vm not in home.xen.run(["ls", "/guests", "/images"]).output.decode()
    # The other one is as it was.
    assert_serves(guest, "Pass-word after the other's end")
