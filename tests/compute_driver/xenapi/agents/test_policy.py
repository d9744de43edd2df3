"""Which protocol is spoken with which agent; above all that nobody can talk a host into the old one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from agent_protocol.messages import Advert, encode_advert
from agent_protocol.outcomes import Unknown, Unreachable
from compute_driver.agents import LEGACY, SEALED
from compute_driver.config import _GROUPS
from compute_driver.xenapi.agents.agent import POLICIES

from ..guest import DONE, FILE, KEYS, SECRET, VM_RECORD, Guest, advertises, met

OLD_ADVERT = encode_advert(Advert("1.0", "boot", ("version", "password"))).decode()


def test_the_configuration_offers_these_policies() -> None:
    (option,) = (option for option in _GROUPS["agent"] if option.name == "protocol")
    assert tuple(option.type.choices) == POLICIES
    assert option.default == "prefer-sealed"


# An agent that knows no other protocol


@pytest.mark.parametrize("advert", [None, OLD_ADVERT])
def test_an_old_agent_is_spoken_to_as_it_knows_if_that_is_allowed(advert: str | None) -> None:
    guest = Guest()
    guest.plugin.agent = None
    guest.plugin.say("adverts", *[advertises(advert)] * 3)
    guest.everything()
    assert guest.plugin.passwords == [SECRET]
    assert "file_put" in guest.plugin.names()
    assert "ssh_keys" in guest.plugin.names()
    assert "sealed" not in guest.plugin.names()
    assert (guest.known.protocol, guest.known.identity) == (LEGACY, None)


def test_what_an_old_agent_said_of_itself_is_kept() -> None:
    guest = Guest()
    guest.plugin.agent = None
    told = guest.agents().await_boot(VM_RECORD)
    assert (told.version, told.protocol) == ("1.2.3", LEGACY)
    guest.set_password()
    assert guest.known == told


@pytest.mark.parametrize("advert", [None, OLD_ADVERT])
def test_an_old_agent_is_not_spoken_to_where_everything_must_be_sealed(advert: str | None) -> None:
    guest = Guest()
    guest.plugin.agent = None
    operations: list[Callable[[], object]] = [
        lambda: guest.agents("sealed").await_boot(VM_RECORD),
        lambda: guest.set_password("sealed"),
        lambda: guest.agents("sealed").put_file(VM_RECORD, FILE),
        lambda: guest.agents("sealed").add_ssh_keys(VM_RECORD, KEYS),
    ]
    for operation in operations:
        guest.plugin.say("adverts", advertises(advert))
        with pytest.raises(Unreachable) as caught:
            operation()
        assert caught.value.code == "agent_silent"
        # It waits for one as long as it may.
        assert float(guest.plugin.calls[-1][-1]["timeout"]) > 9
    assert guest.plugin.requests == []
    assert guest.memory == {}


def test_the_policy_legacy_speaks_the_old_protocol_with_everybody_and_keeps_the_pin() -> None:
    guest = met()
    before = guest.known
    guest.everything("legacy")
    assert set(guest.plugin.functions) == {"exchange"}
    assert "sealed" not in guest.plugin.names()
    assert guest.plugin.passwords == [SECRET]
    # How it was last spoken to is what the audit trail warns of.
    assert guest.known.protocol == LEGACY
    assert (guest.known.identity, guest.known.key) == (before.identity, before.key)
    guest.forget_calls()
    guest.everything("prefer-sealed")
    assert guest.plugin.names() == ["sealed"] * 3
    assert guest.known.protocol == SEALED


def test_the_policy_legacy_tells_of_agents_that_were_never_met() -> None:
    guest = Guest()
    guest.set_password("legacy")
    assert (guest.known.protocol, guest.known.identity) == (LEGACY, None)


# Downgrade


ADVERTS: dict[str, Any] = {
    "missing": None,
    "old": OLD_ADVERT,
    "empty": "",
    "junk": "[" * 1000,
    "of another version": json.dumps({"v": 1, "version": "1", "boot_id": "", "features": []}),
    "without v": json.dumps({"version": "9", "boot_id": "", "features": ["keyinit", "password"]}),
}


@pytest.mark.parametrize("policy", ["sealed", "prefer-sealed"])
@pytest.mark.parametrize("advert", ADVERTS.values(), ids=ADVERTS)
@pytest.mark.parametrize("replies", ["as the old agent would", "not", "sealed"])
def test_a_pinned_guest_is_never_spoken_to_in_the_old_protocol(policy: str, advert: Any, replies: str) -> None:
    guest = met()
    if replies != "sealed":
        # The plugin's legacy agent answers to everything, and would open a password.
        guest.plugin.agent = None
        guest.plugin.say("adverts", *[advertises(advert)] * 9)
    if replies == "not":
        guest.plugin.say("sealed", *["unanswered"] * 3)
    operations: list[Callable[[], object]] = [
        lambda: guest.set_password(policy),
        lambda: guest.agents(policy).put_file(VM_RECORD, FILE),
        lambda: guest.agents(policy).add_ssh_keys(VM_RECORD, KEYS),
    ]
    for operation in operations:
        if replies == "sealed":
            operation()
            continue
        with pytest.raises(Unknown):
            operation()
    assert guest.plugin.names() == ["sealed"] * 3
    assert guest.plugin.passwords == []
    assert "hunter2" not in str(guest.plugin.calls)
    assert guest.known.identity == guest.agent.identity.public
    assert guest.known.protocol == SEALED


@pytest.mark.parametrize("policy", ["sealed", "prefer-sealed"])
@pytest.mark.parametrize("advert", ADVERTS.values(), ids=ADVERTS)
def test_neither_when_its_key_is_not_known(policy: str, advert: Any) -> None:
    guest = met()
    guest.memory["uuid-web"] = guest.known.from_dict({**guest.known.to_dict(), "key_id": None})
    guest.plugin.agent = None
    guest.plugin.say("adverts", advertises(advert))
    assert guest.error(policy).code in ("agent_silent", "bad_advert")
    assert guest.plugin.requests == []


def test_an_advert_that_cannot_be_believed_is_no_reason_to_speak_the_old_protocol() -> None:
    guest = Guest()
    for advert in ("junk", '{"v":2}', guest.agent.advert().replace('"v":2', '"v":3')):
        guest.plugin.say("adverts", advertises(advert))
        assert guest.error().code == "bad_advert"
    assert guest.plugin.requests == []
    assert guest.agent.done == []
    guest.set_password()
    assert guest.agent.done == DONE[:1]
