"""What the manager knows of agents, and what callers send them through it without letting it read."""

from __future__ import annotations

import pytest

from agent_protocol.outcomes import Failed, Outcome, Refused
from compute_driver.agents import LEGACY, AgentInfo
from compute_driver.errors import InstanceNotFound
from compute_driver.manager import LEGACY_WARNING
from compute_driver.memory import RepositoryMemory
from compute_driver.sealing import SealedAnswer, SealedFailure

from .bench import CONTEXT, OPERATIONS, PASSWORD, SEALED_VALUE, SECRET, Bench, Operation
from .fakes import AGENT

# Agents


def test_what_is_known_of_an_agent_is_told(bench: Bench) -> None:
    uuid = bench.instance()
    assert bench.manager.get_agent(CONTEXT, "web", None) is None
    assert bench.manager.trust_agent(CONTEXT, "web") == AGENT
    for action in (None, "inject_file"):
        assert (
            bench.manager.get_agent(CONTEXT, "web", action) == bench.manager.get_agent(CONTEXT, uuid, action) == AGENT
        )
    assert bench.manager.get_instance("web")[1] is not None
    assert [row.action for row in bench.repository.list_actions()] == ["trust_agent"]


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


LEGACY_AGENT = AgentInfo("1.0", ("password",), LEGACY)
TALKS = [operation for operation in OPERATIONS if operation.method in ("set_admin_password", "inject_file")]
TALKS += [operation for operation in OPERATIONS if operation.method in ("spawn", "add_ssh_keys")]
OTHERS = [operation for operation in OPERATIONS if operation not in TALKS and operation.action != "delete"]


@pytest.mark.parametrize("operation", TALKS, ids=Operation.name)
def test_a_success_in_the_old_protocol_carries_a_warning(bench: Bench, operation: Operation) -> None:
    operation.prepare(bench)
    bench.driver.agent = LEGACY_AGENT
    operation.run(bench)
    row = bench.action()
    assert (row.outcome, row.code, row.message) == (Outcome.SUCCEEDED, "legacy_protocol", LEGACY_WARNING)
    assert {row.code for row in bench.repository.list_actions() if row.step is not None} <= {""}
    # Once it is spoken to otherwise, there is nothing to warn of.
    bench.driver.agent = AGENT
    bench.manager.set_admin_password(CONTEXT, "web", PASSWORD)
    assert (bench.action().outcome, bench.action().code, bench.action().message) == (Outcome.SUCCEEDED, "", "")


@pytest.mark.parametrize("operation", OTHERS, ids=Operation.name)
def test_what_says_nothing_to_an_agent_carries_none(bench: Bench, operation: Operation) -> None:
    operation.prepare(bench)
    bench.driver.agent = LEGACY_AGENT
    RepositoryMemory(bench.repository).remember("uuid-web", LEGACY_AGENT)
    operation.run(bench)
    assert (bench.action().outcome, bench.action().code) == (Outcome.SUCCEEDED, "")


@pytest.mark.parametrize("operation", TALKS, ids=Operation.name)
def test_a_failure_keeps_its_own_code(bench: Bench, operation: Operation) -> None:
    operation.prepare(bench)
    bench.driver.agent = LEGACY_AGENT
    bench.driver.errors[operation.method] = Failed("broken", "it broke")
    with pytest.raises(Failed):
        operation.run(bench)
    assert (bench.action().outcome, bench.action().code) == (Outcome.FAILED, "broken")


# What callers have sealed


@pytest.mark.parametrize(
    ("action", "task"),
    [
        ("set_admin_password", "updating_password"),
        ("generate_admin_password", "updating_password"),
        ("inject_file", "injecting_file"),
        ("add_ssh_keys", "updating_ssh_keys"),
    ],
)
def test_a_sealed_request_is_recorded_as_what_its_caller_says(bench: Bench, action: str, task: str) -> None:
    bench.instance()
    tasks: list[str | None] = []
    bench.driver.on_call = lambda _: tasks.append(bench.repository.get_instance("uuid-web").task_state)
    assert bench.send(action) == bench.driver.answer
    assert bench.driver.calls == [("send_sealed", "uuid-web", "id", SEALED_VALUE, "its frames")]
    row = bench.action()
    assert (row.action, row.outcome, row.code, row.message) == (action, Outcome.SUCCEEDED, "", "")
    assert tasks == [task]


@pytest.mark.parametrize("action", ["", "delete", "create", "trust_agent", "SET_ADMIN_PASSWORD", SECRET])
def test_other_actions_cannot_be_sealed(bench: Bench, action: str) -> None:
    bench.instance()
    with pytest.raises(Refused) as caught:
        bench.send(action)
    assert caught.value.code == "bad_action"
    assert SECRET not in caught.value.message
    assert bench.driver.calls == []


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
    bench.instance()
    with pytest.raises(Refused) as caught:
        bench.send("inject_file", value)
    assert caught.value.code == "not_sealed"
    assert bench.driver.calls == []
    assert bench.repository.get_instance("uuid-web").task_state is None


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.SUCCEEDED])
def test_what_the_agent_signed_is_recorded_and_still_told_to_the_caller(bench: Bench, outcome: Outcome) -> None:
    bench.instance()
    answer = bench.driver.answer = SealedAnswer(outcome, "some_code", SECRET, SECRET)
    with pytest.raises(SealedFailure) as caught:
        bench.send("set_admin_password")
    assert caught.value.answer is answer
    assert (caught.value.outcome, caught.value.code) == (outcome, "some_code")
    row = bench.action()
    assert (row.outcome, row.code) == (outcome, "some_code")
    assert bench.repository.get_instance("uuid-web").task_state is None
    assert SECRET not in str(caught.value) + repr(caught.value) + row.message


def test_an_agent_that_gives_no_code_has_one_all_the_same(bench: Bench) -> None:
    bench.instance()
    bench.driver.answer = SealedAnswer(Outcome.FAILED, "", "", "")
    with pytest.raises(SealedFailure):
        bench.send("set_admin_password")
    assert (bench.action().outcome, bench.action().code) == (Outcome.FAILED, "agent_error")
