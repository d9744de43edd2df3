from __future__ import annotations

import json
from typing import Any

import pytest

from agent_protocol.outcomes import Outcome, Refused, Unknown, Unreachable, Unsuccessful
from agent_protocol.sealed import SealedResult
from compute_driver.agents import LEGACY, SEALED
from compute_driver.sealing import GUEST_RESTARTED, SealedRequest

from ...sealed_agent import UNSIGNED, Told
from ..guest import DONE, KEYS, VM_RECORD, Guest, met
from ..plugin import Answer, boxed

HOURS = 5 * 3600


@pytest.fixture
def guest() -> Guest:
    """One whose agent was never met."""
    return Guest()


# The way there and back


@pytest.mark.parametrize("policy", ["sealed", "prefer-sealed"])
def test_the_first_contact_reads_the_advert_once_and_pins_the_agent(guest: Guest, policy: str) -> None:
    guest.set_password(policy)
    assert guest.plugin.functions == ["adverts", "exchange"]
    assert guest.agent.done == DONE[:1]
    known = guest.known
    assert (known.identity, known.protocol, known.guest) == (guest.agent.identity.public, SEALED, guest.agent.vm)
    assert known.version == "2.0"
    assert "password_generate" in known.features


@pytest.mark.parametrize("policy", ["sealed", "prefer-sealed"])
def test_from_then_on_each_operation_is_one_call(guest: Guest, policy: str) -> None:
    guest.set_password(policy)
    for done in range(1, 5):
        guest.forget_calls()
        guest.everything(policy)
        assert guest.plugin.functions == ["exchange"] * 3
        assert guest.known.key == guest.agent.keys.current
        assert guest.agent.done[1:] == DONE * done


def test_nothing_that_crosses_is_readable_or_said_twice() -> None:
    guest = met()
    guest.everything()
    assert guest.agent.done == DONE
    crossed = str(guest.plugin.calls)
    told = ("hunter2", "aHVudGVy", "ada:users", "/etc/motd", "password", "file_put", "ssh_keys", "ssh-ed25519")
    assert not [word for word in told if word in crossed]
    assert guest.plugin.names() == ["sealed"] * 3
    assert len(set(guest.agent.ids)) == 3
    method, host, name, function, arguments = guest.plugin.calls[0]
    assert (method, host, name, function) == ("host.call_plugin", "OpaqueRef:host", "xenward", "exchange")
    (request,) = json.loads(arguments["requests"])
    assert request.keys() == {"vm", "id", "value"}
    assert len(request["value"].encode()) <= 2000
    assert 10 >= float(arguments["timeout"]) > 0
    assert guest.plugin.timeouts[0] > float(arguments["timeout"])


def test_after_a_boot_the_agent_is_known(guest: Guest) -> None:
    for policy, functions in (("prefer-sealed", ["exchange", "adverts"]), ("sealed", ["adverts"])):
        guest.memory.clear()
        guest.forget_calls()
        agent = guest.agents(policy).await_boot(VM_RECORD)
        assert guest.plugin.functions == functions
        assert agent == guest.known
        assert agent.identity == guest.agent.identity.public
    guest.forget_calls()
    guest.set_password()
    assert guest.plugin.functions == ["exchange"]


@pytest.mark.parametrize("outcome", [o for o in Outcome if o not in (Outcome.SUCCEEDED, Outcome.UNREACHABLE)])
def test_the_agents_own_errors_are_told_as_they_are(outcome: Outcome) -> None:
    guest = met()
    guest.agent.results["password"] = SealedResult(outcome, "some_code", "some words")
    error = guest.error()
    assert (error.outcome, error.code, error.message) == (outcome, "some_code", "some words")
    assert len(guest.agent.ids) == 1
    # The key for the next request is known all the same.
    guest.agent.results.clear()
    guest.set_password()
    assert len(guest.agent.ids) == 2


def test_a_long_reply_comes_in_frames() -> None:
    guest = met()
    guest.agent.results["password"] = SealedResult(Outcome.SUCCEEDED, data={"much": "x" * 5000})
    guest.set_password()
    guest.plugin.forge = lambda agent, request_id, reply: Told(reply.value, reply.box[:-4])
    assert guest.error().code == "bad_reply"
    guest.plugin.forge = lambda agent, request_id, reply: Told(reply.value, "")
    assert guest.error().code == "bad_reply"


# Keys and clocks


def test_a_key_that_the_agent_lost_is_replaced_and_the_command_sent_again() -> None:
    guest = met()
    guest.agent.restart()
    guest.set_password()
    assert guest.agent.done == DONE[:1]
    assert guest.plugin.functions == ["exchange"] * 2
    assert len(set(guest.agent.ids)) == 2
    assert guest.known.key == guest.agent.keys.current


def test_an_agent_that_never_holds_a_key_is_asked_three_times() -> None:
    guest = met()

    def forgetful(request: dict[str, Any]) -> Any:
        guest.agent.restart()
        return guest.plugin._good(request)

    guest.plugin.say("sealed", *[forgetful] * 4)
    error = guest.error()
    assert (type(error), error.code) == (Refused, "unknown_key")
    assert len(set(guest.agent.ids)) == 3
    assert guest.agent.done == []


@pytest.mark.parametrize("ahead", [HOURS, -HOURS])
def test_an_agent_with_another_idea_of_the_time_is_understood_from_its_advert(guest: Guest, ahead: int) -> None:
    guest.agent.ahead = ahead
    guest.set_password()
    assert guest.plugin.functions == ["adverts", "exchange"]
    assert abs(guest.known.clock_offset - ahead) <= 1


def test_a_clock_that_was_put_forward_is_learnt_from_the_refusal() -> None:
    guest = met()
    guest.agent.ahead = HOURS
    guest.set_password()
    assert guest.agent.done == DONE[:1]
    assert guest.plugin.functions == ["exchange"] * 2
    assert len(set(guest.agent.ids)) == 2
    assert abs(guest.known.clock_offset - HOURS) <= 1
    guest.forget_calls()
    guest.set_password()
    assert guest.plugin.functions == ["exchange"]


def test_a_clock_that_was_put_back_is_learnt_without_one() -> None:
    guest = met()
    guest.agent.ahead = -HOURS
    guest.set_password()
    assert guest.plugin.functions == ["exchange"]
    assert abs(guest.known.clock_offset + HOURS) <= 1


def test_a_request_stays_valid_for_what_is_left_of_the_time_and_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = met()
    seal = SealedRequest.seal
    timeouts = []

    def sealed(*arguments: Any, timeout: float) -> SealedRequest:
        timeouts.append(timeout)
        return seal(*arguments, timeout=timeout)

    monkeypatch.setattr(SealedRequest, "seal", sealed)
    guest.set_password(timeout=20.0)
    assert 15 < timeouts[0] <= 20
    # Clocks that differ by less than the minute need no second request.
    guest.agent.ahead = 50
    guest.forget_calls()
    guest.set_password(timeout=20.0)
    assert len(guest.agent.ids) == 1


def test_a_clock_that_runs_away_is_asked_three_times() -> None:
    guest = met()

    def later(request: dict[str, Any]) -> Any:
        guest.agent.ahead += HOURS
        return guest.plugin._good(request)

    guest.plugin.say("sealed", *[later] * 4)
    error = guest.error()
    assert (type(error), error.code, len(guest.agent.ids)) == (Refused, "expired", 3)


@pytest.mark.parametrize("ahead", [10**17, -(10**17)])
def test_an_absurd_clock_does_no_harm(guest: Guest, ahead: int) -> None:
    # Ten thousand times the age of the universe; the agent's own clock cannot be negative.
    guest.agent.now = lambda: max(0, ahead)  # type: ignore[method-assign]
    guest.agent.restart()
    try:
        guest.set_password()
    except Refused as error:
        assert error.code == "expired"
    assert abs(guest.known.clock_offset) < 2**31


@pytest.mark.parametrize("code", ["bad_box", "replayed", "frames_incomplete", "frames_corrupt"])
def test_other_refusals_without_a_box_are_final(code: str) -> None:
    guest = met()
    guest.plugin.forge = lambda agent, request_id, reply: agent.reply(
        request_id, SealedResult(Outcome.REFUSED, code), None
    )
    error = guest.error()
    assert (type(error), error.code, len(guest.agent.ids)) == (Refused, code, 1)
    assert error.message


def test_an_agent_that_ended_in_the_middle_leaves_it_unknown() -> None:
    guest = met()
    guest.plugin.forge = lambda agent, request_id, reply: agent.reply(
        request_id, SealedResult(Outcome.UNKNOWN, "agent_restarted"), None
    )
    error = guest.error()
    assert (type(error), error.code, len(guest.agent.ids)) == (Unknown, "agent_restarted", 1)


# What somebody else sealed


def sealed_elsewhere(guest: Guest) -> SealedRequest:
    return SealedRequest.seal(guest.known, guest.agent.vm, "ssh_keys", json.dumps({"add": KEYS}), timeout=10.0)


@pytest.mark.parametrize("policy", ["sealed", "prefer-sealed"])
def test_what_somebody_else_sealed_is_carried_as_it_is(policy: str) -> None:
    guest = met()
    request = sealed_elsewhere(guest)
    delivered = guest.agents(policy).deliver(VM_RECORD, request.request_id, request.value, request.box)
    assert guest.plugin.functions == ["exchange"]
    assert guest.agent.ids == [request.request_id]
    assert (delivered.receipt.outcome, delivered.receipt.code) == (Outcome.SUCCEEDED, "")
    assert request.open(delivered.receipt, delivered.answer.value, delivered.answer.box).outcome is Outcome.SUCCEEDED
    assert guest.known.key == guest.agent.keys.current
    assert "hunter2" not in repr(request) + repr(delivered)


def test_its_refusal_is_for_whoever_sealed_it_to_read() -> None:
    guest = met()
    request = sealed_elsewhere(guest)
    guest.agent.restart()
    delivered = guest.agents().deliver(VM_RECORD, request.request_id, request.value, request.box)
    assert (delivered.receipt.outcome, delivered.receipt.code) == (Outcome.REFUSED, "unknown_key")
    assert guest.plugin.functions == ["exchange"]


def test_its_reply_without_a_receipt_is_not_handed_on() -> None:
    guest = met()
    guest.plugin.forge = UNSIGNED["no receipt"]
    request = sealed_elsewhere(guest)
    with pytest.raises(Unknown) as caught:
        guest.agents().deliver(VM_RECORD, request.request_id, request.value, request.box)
    assert caught.value.code == "unsigned_reply"


def test_it_needs_an_agent_that_was_met() -> None:
    guest = met()
    request = sealed_elsewhere(guest)
    guest.memory.clear()
    with pytest.raises(Refused) as caught:
        guest.agents().deliver(VM_RECORD, request.request_id, request.value, request.box)
    assert caught.value.code == "agent_unknown"
    assert guest.plugin.calls == []


# What became of a request, and a guest that restarts

DELIVERIES = [
    ("absent", Unreachable, "guest_absent"),
    ("withdrawn", Unreachable, "agent_silent"),
    ("rejected", Unreachable, "xenstore_refused"),
    ("taken", Unknown, "agent_no_answer"),
    ("unanswered", Unknown, "agent_no_answer"),
    ("lost", Unknown, "xenstore_lost"),
    ("continue", Unknown, "xenstore_lost"),
    ("something new", Unknown, "xenstore_lost"),
]


@pytest.mark.parametrize(("word", "kind", "code"), DELIVERIES)
def test_what_became_of_a_request(word: str, kind: type[Unsuccessful], code: str) -> None:
    guest = met()
    guest.plugin.say("sealed", word)
    error = guest.error()
    assert (type(error), error.code) == (kind, code)


def restarted(guest: Guest) -> Answer:
    def answer(request: dict[str, Any]) -> Any:
        guest.agent.restart()
        return [{"id": request["id"], "delivery": "gone"}]

    return answer


def test_a_guest_that_restarts_gets_the_command_again_with_its_new_key() -> None:
    guest = met()
    guest.plugin.say("sealed", restarted(guest), restarted(guest))
    guest.set_password()
    # Twice gone; then to the key of before, of which the new agent knows nothing; then to its own.
    assert guest.plugin.functions == ["exchange"] * 4
    assert guest.agent.done == DONE[:1]


@pytest.mark.parametrize("after", ["absent", "withdrawn", "refused"])
def test_after_a_restart_no_end_but_success_is_certain(after: str) -> None:
    guest = met()
    guest.plugin.say("sealed", restarted(guest), *([] if after == "refused" else [after]))
    guest.agent.results["password"] = SealedResult(Outcome.REFUSED, "policy", "no")
    error = guest.error()
    assert (type(error), error.code) == (Unknown, "guest_restarted")


def test_a_guest_that_does_nothing_but_restart_ends_with_the_time() -> None:
    guest = met()
    guest.plugin.say("sealed", *["gone"] * 1_000_000)
    error = guest.error(timeout=0.05)
    assert (type(error), error.code) == (Unknown, "guest_restarted")


def test_a_restart_ends_what_somebody_else_sealed_and_brings_the_key_to_seal_it_anew() -> None:
    guest = met()
    request = sealed_elsewhere(guest)
    guest.plugin.say("sealed", restarted(guest))
    with pytest.raises(Unknown) as caught:
        guest.agents().deliver(VM_RECORD, request.request_id, request.value, request.box)
    assert caught.value.code == GUEST_RESTARTED
    assert guest.known.key == guest.agent.keys.current
    request = sealed_elsewhere(guest)
    guest.agents().deliver(VM_RECORD, request.request_id, request.value, request.box)
    assert guest.agent.done == DONE[2:]


def test_what_somebody_else_sealed_for_an_agent_that_kept_its_key_survives_a_restart() -> None:
    guest = met()
    request = sealed_elsewhere(guest)
    # As it is with a live migration: another domain, the same agent.
    guest.plugin.say("sealed", "gone")
    delivered = guest.agents().deliver(VM_RECORD, request.request_id, request.value, request.box)
    assert delivered.receipt.outcome is Outcome.SUCCEEDED


def test_junk_beside_a_reply_does_no_harm() -> None:
    guest = met()

    def with_junk(request: dict[str, Any]) -> Any:
        reply = guest.agent.answer(request["id"], request["value"])
        return [{"id": request["id"], "delivery": "answered", "value": reply.value, **boxed(reply), "more": [7]}]

    guest.plugin.say("sealed", with_junk)
    guest.set_password()
    assert guest.agent.done == DONE[:1]


def test_a_legacy_agent_that_is_updated_is_pinned_and_sealed_to(guest: Guest) -> None:
    guest.plugin.agent = None
    guest.set_password()
    assert guest.known.protocol == LEGACY
    guest.plugin.agent = guest.agent
    guest.set_password()
    assert guest.known.protocol == SEALED
    assert guest.agent.done == DONE[:1]
