"""What happens to a guest and its agent from outside: each time the agent serves again, and is the same one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_protocol.messages import ADVERT, CLAIMS
from tests.contract import environments
from tests.contract.environments import GuestEnvironment
from tests.contract.inside import password_opens

from .guest import Guest, assert_serves, request


@pytest.fixture
def mortal(guest: Guest) -> Iterator[Guest]:
    """The guest, whose agent may be killed."""
    yield guest
    if guest.inside.close():
        guest.call("VM.hard_reboot")
        assert_serves(guest, "Pass-word of the next test")


def test_an_agent_that_is_killed_does_nothing_twice(mortal: Guest) -> None:
    """What it had taken it answers with `unknown`, what it had not taken it carries out."""
    guest, identity = mortal, mortal.identity()
    with guest.channel() as channel:
        guest.inside.halt_agent()
        before = channel.read(ADVERT)
        put = {"path": "/opt/taken", "content": "YQ=="}
        taken = channel.send(request("file_put", json.dumps(put)))
        # As the agent leaves it that dies when it has begun.
        channel.write(f"{CLAIMS}/{taken}", b"")
        waiting = channel.send(request("file_put", json.dumps({**put, "path": "/opt/waiting"})))
        guest.inside.replace_agent()
        reply = channel.reply(taken)
        assert (reply["outcome"], reply["code"]) == ("unknown", "agent_restarted")
        assert channel.reply(waiting)["outcome"] == "succeeded"
        channel.wait(lambda: channel.read(ADVERT) not in (None, before), "the new agent's advert")
    assert guest.inside.read("/opt/waiting") == b"a"
    with pytest.raises(FileNotFoundError):
        guest.inside.read("/opt/taken")
    assert guest.identity() == identity
    assert_serves(guest, "Pass-word after a kill")


@pytest.mark.parametrize("way", ["VM.hard_reboot", "VM.clean_reboot"])
def test_a_reboot_is_a_new_domain_with_the_same_agent(guest: Guest, way: str) -> None:
    domid, identity, life = guest.domid, guest.identity(), guest.inside.life()
    guest.put("/opt/durable", b"durable")
    guest.call(way)
    assert guest.domid > domid
    assert_serves(guest, f"Pass-word after {way}")
    assert guest.identity() == identity
    assert guest.inside.life()[0] != life[0]
    assert guest.inside.read("/opt/durable") == b"durable"


def test_a_guest_that_moves_to_its_own_host_goes_on(guest: Guest) -> None:
    domid, identity, life = guest.domid, guest.identity(), guest.inside.life()
    guest.call("VM.pool_migrate", guest.vm.host, {})
    assert guest.domid > domid
    assert_serves(guest, "Pass-word after a move")
    assert guest.identity() == identity
    assert guest.inside.life() == life


@pytest.fixture
def second_host(environment: GuestEnvironment, directory: Path) -> Iterator[Guest]:
    """A guest in a pool of two hosts."""
    with environment.house(directory, "--hosts", "2") as home:
        instance = home.create()
        with environment.inside(home, instance) as inside, Guest.of(home, inside, instance) as guest:
            yield guest


@pytest.mark.parametrize("environment", environments.parameters(), indirect=True)
def test_a_guest_moves_to_another_host_and_back(second_host: Guest) -> None:
    guest = second_host
    identity, life, first = guest.identity(), guest.inside.life(), guest.vm.host
    (other,) = [host for host in guest.server.call("host.get_all") if host != first]
    for number, host in enumerate((other, first)):
        guest.call("VM.pool_migrate", host, {})
        assert guest.vm.host == host
        guest.set_password(f"Pass-word of move {number}")
        assert password_opens(guest.inside, "root", f"Pass-word of move {number}")
        assert guest.inside.life() == life
        assert guest.identity() == identity
