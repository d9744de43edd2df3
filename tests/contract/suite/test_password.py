"""The administrator's password, proven by the guest's own /etc/shadow."""

from __future__ import annotations

import pytest
from passlib.hash import sha512_crypt

from agent_protocol.outcomes import Refused
from tests.contract.inside import password_opens, stored_hash
from tests.contract.nova_host import NovaHost

from .guest import Channel, Guest


def test_a_sealed_reset_and_one_more(guest: Guest) -> None:
    for password, before in (("sealed Pass-word 1", ""), ("пароль-ß-密 2", "sealed Pass-word 1")):
        guest.set_password(password)
        assert password_opens(guest.inside, "root", password)
        assert not password_opens(guest.inside, "root", before)


def test_a_legacy_reset_by_our_driver(guest: Guest) -> None:
    guest.set_password("legacy Pass-word 3", policy="legacy")
    assert password_opens(guest.inside, "root", "legacy Pass-word 3")


def test_a_legacy_reset_by_an_existing_cloud(guest: Guest, channel: Channel) -> None:
    host = NovaHost(channel.store, str(guest.domid), poll=0.05, timeout=120)
    host.set_admin_password("legacy Pass-word 4")
    assert password_opens(guest.inside, "root", "legacy Pass-word 4")
    # That host never removes a reply.
    for name in channel.children("data/guest"):
        channel.store.remove(f"/local/domain/{guest.domid}/data/guest/{name}")


def test_a_rule_of_the_guest_refuses_in_its_own_words(guest: Guest) -> None:
    before = stored_hash(guest.inside, "root")
    with guest.inside.refuse_passwords() as words:
        for policy in ("sealed", "legacy"):
            with pytest.raises(Refused) as refused:
                guest.set_password("short", policy)
            assert refused.value.code == "password_policy"
            assert words in refused.value.message
    assert stored_hash(guest.inside, "root") == before


def test_an_unknown_user_is_refused(guest: Guest) -> None:
    before = guest.inside.read("/etc/shadow")
    with pytest.raises(Refused) as refused:
        guest.ask("password", user="nobody-here", value="long Pass-word")
    assert refused.value.code == "no_such_user"
    assert guest.inside.read("/etc/shadow") == before


def test_a_hash_is_taken_as_it_is(guest: Guest) -> None:
    hashed = sha512_crypt.using(rounds=5000).hash("hashed Pass-word 5")
    guest.ask("password", hash=hashed)
    assert stored_hash(guest.inside, "root") == hashed
    with pytest.raises(Refused) as refused:
        guest.ask("password", hash="hashed Pass-word 6")
    assert refused.value.code == "bad_hash"
    assert stored_hash(guest.inside, "root") == hashed
