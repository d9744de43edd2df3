"""Freezing and thawing a guest's file systems: orders that only the sealed protocol has."""

from __future__ import annotations

import pytest

from agent_protocol.outcomes import Outcome, Refused, Unsupported
from agent_protocol.sealed import SealedResult
from compute_driver.xenapi.agents.agent import GuestAgents

from ..guest import VM_RECORD, met
from ..plugin import Plugin


def test_a_guest_is_frozen_for_whole_seconds_and_thawed() -> None:
    guest = met()
    guest.agents().freeze(VM_RECORD, 5.9)
    guest.agent.results["thaw"] = SealedResult(Outcome.SUCCEEDED, "")
    guest.agents().thaw(VM_RECORD)
    assert guest.agent.done == [("freeze", {"seconds": 5})]


def test_a_time_of_less_than_a_second_is_refused_before_anybody_is_asked() -> None:
    guest = met()
    with pytest.raises(Refused) as caught:
        guest.agents().freeze(VM_RECORD, 0.9)
    assert caught.value.code == "bad_timeout"
    assert guest.plugin.calls == []


@pytest.mark.parametrize("code", ["not_frozen", "thawed_by_deadline"])
def test_that_it_was_thawed_before_is_told(code: str) -> None:
    guest = met()
    guest.agent.results["thaw"] = SealedResult(Outcome.REFUSED, code)
    with pytest.raises(Refused) as caught:
        guest.agents().thaw(VM_RECORD)
    assert caught.value.code == code


def test_an_old_agent_cannot() -> None:
    guest, plugin = met(), Plugin()
    server = plugin
    agents = GuestAgents(server, guest.memory, policy="legacy", timeout=5.0, boot_timeout=5.0)  # type: ignore[arg-type]
    for order in (lambda: agents.freeze(VM_RECORD, 5), lambda: agents.thaw(VM_RECORD)):
        with pytest.raises(Unsupported) as caught:
            order()
        assert caught.value.code == "agent_not_sealed"
    assert plugin.names() == []
