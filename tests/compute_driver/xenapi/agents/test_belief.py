"""What a host believes of what comes back, and which agent it believes it from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_protocol.identity import Identity, fingerprint
from agent_protocol.messages import Advert, encode_advert
from agent_protocol.outcomes import Outcome, Refused, Unknown, Unreachable, Unsuccessful, Unsupported
from agent_protocol.sealed import SealedResult
from compute_driver.errors import XenServerAnswerLost, XenServerFailure, XenServerUnreachable
from compute_driver.xenapi.agents.sealed_agent import IdentityChanged

from ...sealed_agent import EXCHANGED, OTHER_ID, UNSIGNED, Forgery, SealedAgent, Told
from ..guest import DONE, VM_RECORD, Guest, advertises, met
from ..plugin import Answer


@pytest.fixture
def guest() -> Guest:
    """One whose agent was never met."""
    return Guest()


# What nobody signed


@pytest.mark.parametrize("forgery", UNSIGNED.values(), ids=UNSIGNED)
@pytest.mark.parametrize("truth", [None, SealedResult(Outcome.FAILED, "broken", "it broke")])
def test_a_reply_without_a_receipt_is_never_believed(forgery: Forgery, truth: SealedResult | None) -> None:
    guest = met()
    before = guest.known
    if truth:
        guest.agent.results["password"] = truth
    guest.plugin.forge = forgery
    error = guest.error()
    assert (type(error), error.code) == (Unknown, "unsigned_reply")
    assert guest.known == before
    assert len(guest.agent.ids) == 1
    # The next true reply is believed, with the key that was known before.
    guest.plugin.forge = lambda agent, request_id, reply: reply
    guest.agent.results.clear()
    guest.set_password()


@pytest.mark.parametrize("forgery", EXCHANGED.values(), ids=EXCHANGED)
def test_a_box_that_is_not_what_was_signed_is_never_a_success(forgery: Forgery) -> None:
    guest = met()
    guest.plugin.forge = forgery
    error = guest.error()
    assert (type(error), error.code) == (Unknown, "bad_reply")
    assert len(guest.agent.ids) == 1


@pytest.mark.parametrize("outcome", ["succeeded", "refused"])
def test_what_stands_outside_of_the_receipt_counts_for_nothing(outcome: str) -> None:
    guest = met()
    guest.agent.results["password"] = SealedResult(Outcome.FAILED, "broken", "it broke")

    def forge(agent: SealedAgent, request_id: str, reply: Told) -> Told:
        members = {**json.loads(reply.value), "outcome": outcome, "code": "", "returncode": "0"}
        return Told(json.dumps(members), reply.box)

    guest.plugin.forge = forge
    error = guest.error()
    assert (error.outcome, error.code) == (Outcome.FAILED, "broken")


ADVERTS: list[Answer] = [
    XenServerFailure(["XENWARD_XENSTORE", "EIO"]),
    XenServerFailure(["XENAPI_PLUGIN_FAILURE"]),
    XenServerFailure(["HANDLE_INVALID", "host", "x"]),
    XenServerAnswerLost("host.call_plugin"),
    XenServerUnreachable("xen-1", "gone"),
    lambda arguments: "no JSON",
    lambda arguments: {VM_RECORD.uuid: "{}"},
    lambda arguments: {VM_RECORD.uuid: '{"v":2}'},
    lambda arguments: {VM_RECORD.uuid: SealedAgent().advert()},
]


@pytest.mark.parametrize("answer", ADVERTS)
def test_an_order_without_a_believable_answer_stays_unknown_whatever_the_advert_is(answer: Answer) -> None:
    guest = met()
    guest.plugin.forge = UNSIGNED["no receipt"]
    guest.plugin.say("adverts", answer)
    error = guest.error()
    assert (type(error), error.code) == (Unknown, "unsigned_reply")


# Which agent it is


def replace(guest: Guest) -> Identity:
    """Another agent is in the guest from now on; the identity of the old one."""
    old = guest.agent.identity
    guest.agent.identity = Identity.generate()
    guest.agent.restart()
    return old


def test_another_agent_is_noticed_by_its_reply_and_nothing_was_done_until_it_is_trusted() -> None:
    guest = met()
    old = replace(guest)
    for _ in range(2):
        error = guest.error()
        assert (type(error), error.code) == (IdentityChanged, "identity_changed")
        assert isinstance(error, Refused)
        assert fingerprint(old.public) in error.message
        assert fingerprint(guest.agent.identity.public) in error.message
        assert guest.known.identity == old.public
        assert guest.agent.done == []
    trusted = guest.agents().trust(VM_RECORD)
    assert trusted == guest.known
    assert trusted.identity == guest.agent.identity.public
    guest.forget_calls()
    guest.set_password()
    assert guest.plugin.functions == ["exchange"]
    assert guest.agent.done == DONE[:1]


@pytest.mark.parametrize("policy", ["sealed", "prefer-sealed"])
def test_another_agent_is_noticed_before_the_request(policy: str) -> None:
    guest = met()
    replace(guest)
    guest.memory["uuid-web"] = guest.known.from_dict({**guest.known.to_dict(), "key_id": None})
    assert guest.error(policy).code == "identity_changed"
    assert guest.plugin.functions == ["adverts"]


@pytest.mark.parametrize("policy", ["sealed", "prefer-sealed"])
def test_another_agent_is_noticed_at_boot(policy: str) -> None:
    guest = met()
    replace(guest)
    with pytest.raises(IdentityChanged):
        guest.agents(policy).await_boot(VM_RECORD)


def test_another_agents_claim_of_anything_but_that_it_could_not_open_the_request_is_not_believed() -> None:
    guest = met()
    stranger = SealedAgent()

    def forge(agent: SealedAgent, request_id: str, reply: Told) -> Told:
        return stranger.reply(request_id, SealedResult(Outcome.SUCCEEDED), bytes(32))

    guest.plugin.forge = forge
    guest.plugin.say("adverts", advertises(stranger.advert()))
    error = guest.error()
    assert (type(error), error.code) == (Unknown, "unsigned_reply")


def test_trust_needs_an_agent_that_can_be_believed(guest: Guest) -> None:
    told: dict[str, tuple[type[Unsuccessful], str, Any]] = {
        "none": (Unsupported, "agent_not_sealed", None),
        "old": (Unsupported, "agent_not_sealed", encode_advert(Advert("1", "boot", ())).decode()),
        "of another VM": (Refused, "bad_advert", SealedAgent(OTHER_ID).advert()),
        "changed": (Refused, "bad_advert", guest.agent.advert().replace("password_generate", "password_generatx")),
        "no text": (Unsupported, "agent_not_sealed", 7),
        "half a pair": (Refused, "bad_advert", "\ud800"),
    }
    for kind, code, advert in told.values():
        guest.plugin.say("adverts", advertises(advert))
        with pytest.raises(kind) as caught:
            guest.agents().trust(VM_RECORD)
        assert (type(caught.value), caught.value.code) == (kind, code)
    assert guest.memory == {}
    guest.plugin.say("adverts", XenServerAnswerLost("host.call_plugin"))
    with pytest.raises(Unreachable):
        guest.agents().trust(VM_RECORD)
    guest.plugin.say("adverts", XenServerFailure(["UNKNOWN_XENAPI_PLUGIN_FUNCTION", "adverts"]))
    with pytest.raises(Unsupported) as too_old:
        guest.agents().trust(VM_RECORD)
    assert too_old.value.code == "plugin_too_old"
