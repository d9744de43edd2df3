"""Clocks that jump, in the guest or at the host: a command is late at most once, and never carried out too late."""

from __future__ import annotations

import json
import time

import pytest

from agent_protocol.agent_keys import GRACE, MAX_AGE, AgentKeys
from agent_protocol.identity import Identity
from agent_protocol.messages import parse_request
from agent_protocol.outcomes import Outcome
from agent_protocol.sealed import Receipt
from compute_driver import sealing
from compute_driver.agents import SEALED, AgentInfo
from guest_agent.commands import SEALED_COMMANDS, Context
from guest_agent.sealed import SealedRequests

from .conftest import VM

HOUR = 3600.0


class Guest:
    """An agent with clocks of its own, and a host that knows it. wall: seconds that the guest's is ahead of ours."""

    def __init__(self, context: Context) -> None:
        context.vm = VM
        self.wall = 0.0
        self.elapsed = 0.0
        self.identity = Identity.generate()
        keys = AgentKeys(VM, clock=lambda: self.elapsed, now=self.now)
        self.requests = SealedRequests(self.identity, SEALED_COMMANDS, context, keys, self.now)
        self.known = AgentInfo("1", (), SEALED, self.identity.public, keys.current, 0, VM)

    def now(self) -> float:
        return time.time() + self.wall

    def suspend(self, seconds: float) -> None:
        """The guest does not run for so long, and its clocks then show that it did not."""
        self.elapsed += seconds

    def ask(self) -> Receipt:
        """One try of the host's, after which it knows what the receipt says."""
        request = sealing.SealedRequest.seal(self.known, VM, "ping", "", timeout=30)
        value = parse_request(request.value.encode()).value
        answer = self.requests.answer(request.request_id, value, lambda info: "")
        receipt = sealing.read_receipt(self.identity.public, VM, request.request_id, answer.message.node.decode())
        self.known = sealing.after(self.known, receipt)
        return receipt

    def assert_succeeds_at_the_second_try(self, code: str) -> None:
        first = self.ask()
        assert (first.outcome, first.code) == (Outcome.REFUSED, code)
        assert sealing.asks_for_another(first)
        assert abs(first.now - self.now()) < 5
        assert self.ask().outcome is Outcome.SUCCEEDED
        assert self.ask().outcome is Outcome.SUCCEEDED


@pytest.fixture
def guest(context: Context) -> Guest:
    made = Guest(context)
    assert made.ask().outcome is Outcome.SUCCEEDED
    return made


@pytest.mark.parametrize("hours", [1, 5, 24 * 365])
def test_the_guests_clock_jumps_forward(guest: Guest, hours: int) -> None:
    guest.wall = hours * HOUR
    guest.assert_succeeds_at_the_second_try("expired")


@pytest.mark.parametrize("hours", [1, 5, 24 * 365])
def test_the_guests_clock_jumps_back(guest: Guest, hours: int) -> None:
    guest.wall = -hours * HOUR
    assert guest.ask().outcome is Outcome.SUCCEEDED
    # And forward again: the host, which had learnt the first jump, learns this one.
    guest.wall = hours * HOUR
    guest.assert_succeeds_at_the_second_try("expired")
    guest.wall = 0.0
    assert guest.ask().outcome is Outcome.SUCCEEDED


def test_jumps_of_the_wall_clock_age_no_key(guest: Guest) -> None:
    key = guest.requests.key_id
    for guest.wall in (-30 * HOUR, 30 * HOUR):
        guest.requests.rotate_if_old()
        assert guest.requests.key_id == key
        assert guest.requests.seconds_until_rotation() == MAX_AGE


def test_a_key_ages_while_the_guest_is_suspended(guest: Guest) -> None:
    guest.suspend(MAX_AGE + GRACE)
    assert guest.requests.seconds_until_rotation() == 0
    guest.assert_succeeds_at_the_second_try("unknown_key")


def test_keys_age_by_the_clock_that_counts_suspension(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {time.CLOCK_BOOTTIME: 100.0}
    monkeypatch.setattr(time, "clock_gettime", lambda number: seconds[number])
    keys = AgentKeys(VM)
    seconds[time.CLOCK_BOOTTIME] += MAX_AGE
    assert keys.rotate_if_old()


def test_suspended_for_hours_and_the_wall_clock_with_it(guest: Guest) -> None:
    guest.suspend(5 * HOUR)
    guest.wall = -5 * HOUR  # until NTP puts it right
    guest.assert_succeeds_at_the_second_try("unknown_key")
    guest.wall = 0.0
    assert guest.ask().outcome is Outcome.SUCCEEDED


def test_a_late_request_is_not_carried_out(guest: Guest, context: Context) -> None:
    """A request that lay in the store while the guest was suspended."""
    request = sealing.SealedRequest.seal(guest.known, VM, "ping", "", timeout=30)
    guest.wall = 30 + sealing.GRACE + 1
    answer = guest.requests.answer(request.request_id, parse_request(request.value.encode()).value, lambda info: "")
    assert (answer.outcome, answer.code) == (Outcome.REFUSED, "expired")
    assert json.loads(answer.message.node)["code"] == "expired"
