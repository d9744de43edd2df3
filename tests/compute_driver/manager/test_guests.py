"""What the manager knows of agents, and what callers send them through it without letting it read."""

from __future__ import annotations

import pytest

from agent_protocol.outcomes import Failed, Outcome, Refused
from compute_driver.agents import LEGACY, AgentInfo
from compute_driver.errors import InstanceNotFound
from compute_driver.manager.life import LEGACY_WARNING
from compute_driver.memory import RepositoryMemory
from compute_driver.sealing import SealedAnswer, SealedFailure

from ..bench import CONTEXT, PASSWORD, SEALED_VALUE, SECRET, UUID, Bench
from ..cases import CASES, Case

# Agents


def test_what_is_known_of_an_agent_is_told(bench: Bench) -> None:
    bench.record()
    assert bench.manager.get_agent(CONTEXT, "web", None) is None
    bench.repository.delete_instance(UUID)
    instance = bench.have(name="db", uuid="db")
    agent = bench.manager.trust_agent(CONTEXT, "db")
    assert agent.identity == bench.driver.guest(instance).system.identity.public
    for action in (None, "inject_file"):
        for target in ("db", instance.display_name):
            assert bench.manager.get_agent(CONTEXT, target, action) == agent
    assert bench.manager.get_instance("db")[1] is not None
    assert [row.action for row in bench.repository.list_actions()] == ["trust_agent"]


def test_another_agent_must_be_trusted_first(bench: Bench) -> None:
    instance = bench.have()
    bench.driver.replace_agent(instance)
    with pytest.raises(Refused) as caught:
        bench.manager.set_admin_password(CONTEXT, "web", PASSWORD)
    assert caught.value.code == "identity_changed"
    bench.manager.trust_agent(CONTEXT, "web")
    bench.manager.set_admin_password(CONTEXT, "web", PASSWORD)
    assert bench.driver.opens(instance, PASSWORD.value)


def test_an_instance_that_is_not_there_is_the_end_of_what_its_agent_was_asked_for(bench: Bench) -> None:
    for action in (None, "delete", SECRET):
        with pytest.raises(InstanceNotFound):
            bench.manager.get_agent(CONTEXT, "nobody", action)
    assert bench.repository.list_actions() == []
    with pytest.raises(InstanceNotFound):
        bench.manager.get_agent(CONTEXT, "nobody", "set_admin_password")
    row = bench.action()
    assert (row.action, row.target, row.instance_uuid) == ("set_admin_password", "nobody", None)
    assert (row.outcome, row.code, row.user) == (Outcome.REFUSED, "instance_not_found", "ada")


TALKS = [
    case for case in CASES if case.name in ("create", "rebuild", "set_admin_password", "inject_file", "add_ssh_keys")
]
OTHERS = [case for case in CASES if case not in TALKS and case.name not in ("delete", "generate_admin_password")]


@pytest.fixture
def legacy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The guests' agents speak only the old protocol."""
    monkeypatch.setattr("compute_driver.fake.guest.SEALED", LEGACY)
    return bench


@pytest.mark.parametrize("case", TALKS, ids=lambda case: case.name)
def test_a_success_in_the_old_protocol_carries_a_warning(
    legacy: Bench, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.begin(legacy)
    case.carry_out(legacy)
    row = legacy.action()
    assert (row.outcome, row.code, row.message) == (Outcome.SUCCEEDED, "legacy_protocol", LEGACY_WARNING)
    assert {row.code for row in legacy.repository.list_actions() if row.step is not None} <= {""}
    # Once it is spoken to otherwise, there is nothing to warn of.
    monkeypatch.undo()
    legacy.manager.set_admin_password(CONTEXT, "web", PASSWORD)
    assert (legacy.action().outcome, legacy.action().code, legacy.action().message) == (Outcome.SUCCEEDED, "", "")


@pytest.mark.parametrize("case", OTHERS, ids=lambda case: case.name)
def test_what_says_nothing_to_an_agent_carries_none(legacy: Bench, case: Case) -> None:
    case.begin(legacy)
    RepositoryMemory(legacy.repository).remember(UUID, AgentInfo("1.0", ("password",), LEGACY))
    case.carry_out(legacy)
    assert (legacy.action().outcome, legacy.action().code) == (Outcome.SUCCEEDED, "")


@pytest.mark.parametrize("case", TALKS, ids=lambda case: case.name)
def test_a_failure_keeps_its_own_code(legacy: Bench, case: Case) -> None:
    case.begin(legacy)
    legacy.driver.steering.fail(case.verb, Failed("broken", "it broke"))
    with pytest.raises(Failed):
        case.carry_out(legacy)
    assert (legacy.action().outcome, legacy.action().code) == (Outcome.FAILED, "broken")


# What callers have sealed


@pytest.mark.parametrize("action", ["set_admin_password", "generate_admin_password", "inject_file", "add_ssh_keys"])
def test_a_sealed_request_is_recorded_as_what_its_caller_says(bench: Bench, action: str) -> None:
    instance = bench.have()
    request = bench.seal()
    answer = bench.send(action, request)
    assert answer.outcome is Outcome.SUCCEEDED
    assert bench.driver.opens(instance, PASSWORD.value)
    (call,) = bench.driver.steering.calls
    assert call.arguments == {"request_id": request.request_id, "value": request.value, "box": request.box}
    row = bench.action()
    assert (row.action, row.outcome, row.code, row.message) == (action, Outcome.SUCCEEDED, "", "")


def send(bench: Bench, action: str, value: str = SEALED_VALUE) -> None:
    bench.manager.send_sealed(CONTEXT, "web", action, request_id="id", value=value, box="its frames")


@pytest.mark.parametrize("action", ["", "delete", "create", "trust_agent", "SET_ADMIN_PASSWORD", SECRET])
def test_other_actions_cannot_be_sealed(bench: Bench, action: str) -> None:
    bench.have()
    with pytest.raises(Refused) as caught:
        send(bench, action)
    assert caught.value.code == "bad_action"
    assert SECRET not in caught.value.message
    assert bench.driver.steering.calls == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{}",
        "sealed",
        "\ud800",
        '{"name":"password","value":"AAAA"}',
        '{"name":"keyinit","value":"5"}',
        '{"name":"sealed","value":"AAAA"}',
        '{"name":"sealed","value":"{}"}',
        SEALED_VALUE.replace("2", "1", 1),
        SEALED_VALUE.replace("box", "bax"),
    ],
)
def test_what_is_not_sealed_does_not_go_this_way(bench: Bench, value: str) -> None:
    bench.have()
    with pytest.raises(Refused) as caught:
        send(bench, "inject_file", value)
    assert caught.value.code == "not_sealed"
    assert bench.driver.steering.calls == []
    assert bench.instance.task_state is None


def answers(bench: Bench, monkeypatch: pytest.MonkeyPatch, answer: SealedAnswer) -> None:
    monkeypatch.setattr(bench.driver, "send_sealed", lambda *_: answer)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.SUCCEEDED])
def test_what_the_agent_signed_is_recorded_and_still_told_to_the_caller(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, outcome: Outcome
) -> None:
    bench.have()
    answer = SealedAnswer(outcome, "some_code", SECRET, SECRET)
    answers(bench, monkeypatch, answer)
    with pytest.raises(SealedFailure) as caught:
        send(bench, "set_admin_password")
    assert caught.value.answer is answer
    assert (caught.value.outcome, caught.value.code) == (outcome, "some_code")
    row = bench.action()
    assert (row.outcome, row.code) == (outcome, "some_code")
    assert bench.instance.task_state is None
    assert SECRET not in str(caught.value) + repr(caught.value) + row.message


def test_an_agent_that_gives_no_code_has_one_all_the_same(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.have()
    answers(bench, monkeypatch, SealedAnswer(Outcome.FAILED, "", "", ""))
    with pytest.raises(SealedFailure):
        send(bench, "set_admin_password")
    assert (bench.action().outcome, bench.action().code) == (Outcome.FAILED, "agent_error")
