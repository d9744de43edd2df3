"""A caller and agents that are not what it thinks: other keys, another time, restarted, replaced, or old."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Outcome, Refused, Unknown, Unreachable, Unsupported
from agent_protocol.sealed import SealedResult
from compute_driver.db.repository import Repository
from compute_driver.files import InjectedFile

from .sealed_agent import SealedAgent
from .sealed_driver import SealedDriver
from .wire import (
    CONTEXT,
    HOURS,
    NEW,
    OPERATIONS,
    SECRET,
    Wire,
    error_of,
    every_operation,
    rows,
)

# Keys and clocks


@every_operation
def test_a_key_that_the_agent_lost_is_replaced_and_the_command_sent_again(
    caller: Any, wire: Wire, sealed_driver: SealedDriver, repository: Repository, action: str
) -> None:
    sealed_driver.agent.restart()
    OPERATIONS[action](caller)
    assert wire.methods == ["get_agent", "send_sealed", "send_sealed"]
    assert rows(repository) == [(action, "refused", "unknown_key"), (action, "succeeded", "")]
    assert len(set(sealed_driver.agent.ids)) == 2
    assert len(sealed_driver.agent.done) == 1
    # The service has learnt from it as well.
    wire.methods.clear()
    OPERATIONS[action](caller)
    assert wire.methods == ["get_agent", "send_sealed"]


@pytest.mark.parametrize("ahead", [HOURS, -HOURS])
def test_another_idea_of_the_time_is_learnt(
    caller: Any, sealed_driver: SealedDriver, repository: Repository, ahead: int
) -> None:
    sealed_driver.agent.ahead = ahead
    caller.set_password("web", Password(SECRET))
    caller.set_password("web", Password(SECRET))
    expired = [("set_admin_password", "refused", "expired")] if ahead > 0 else []
    assert rows(repository) == [*expired, *[("set_admin_password", "succeeded", "")] * 2]


@pytest.mark.parametrize("code", ["unknown_key", "expired"])
def test_three_times_is_enough(caller: Any, wire: Wire, sealed_driver: SealedDriver, code: str) -> None:
    def worse(method: str) -> None:
        if method != "send_sealed":
            return
        if code == "expired":
            sealed_driver.agent.ahead += HOURS
        else:
            sealed_driver.agent.restart()

    wire.before = worse
    error = error_of(lambda: caller.set_password("web", Password(SECRET)))
    assert (type(error), error.code) == (Refused, code)
    assert wire.methods == ["get_agent", *["send_sealed"] * 3]
    assert sealed_driver.agent.done == []


# A guest that restarts


def gone(sealed_driver: SealedDriver) -> Callable[[dict[str, Any]], Any]:
    def answer(request: dict[str, Any]) -> Any:
        sealed_driver.agent.restart()
        return [{"id": request["id"], "delivery": "gone"}]

    return answer


@every_operation
def test_a_guest_that_restarts_gets_it_sealed_anew(
    caller: Any, wire: Wire, sealed_driver: SealedDriver, repository: Repository, action: str
) -> None:
    sealed_driver.plugin.say("sealed", gone(sealed_driver))
    OPERATIONS[action](caller)
    assert wire.methods == ["get_agent", "send_sealed", "get_agent", "send_sealed"]
    assert rows(repository) == [(action, "unknown", "guest_restarted"), (action, "succeeded", "")]
    assert len(sealed_driver.agent.done) == 1


def test_one_that_restarts_again_leaves_it_unknown(caller: Any, wire: Wire, sealed_driver: SealedDriver) -> None:
    sealed_driver.plugin.say("sealed", gone(sealed_driver), sealed_driver.plugin._good, gone(sealed_driver))
    error = error_of(lambda: caller.set_password("web", Password(SECRET)))
    assert (type(error), error.code) == (Unknown, "guest_restarted")
    assert wire.methods.count("send_sealed") == 2


@pytest.mark.parametrize("after", ["refused", "withdrawn"])
def test_after_a_restart_no_end_but_success_is_certain(caller: Any, sealed_driver: SealedDriver, after: str) -> None:
    # The first attempt may have been carried out before the guest went.
    sealed_driver.plugin.say(
        "sealed", gone(sealed_driver), sealed_driver.plugin._good, *(["withdrawn"] if after == "withdrawn" else [])
    )
    sealed_driver.agent.results["password"] = SealedResult(Outcome.REFUSED, "policy", "no")
    error = error_of(lambda: caller.set_password("web", Password(SECRET)))
    assert (type(error), error.code) == (Unknown, "guest_restarted")


# Agents that only know the old protocol, or were never met


@pytest.mark.parametrize("met", [True, False])
def test_the_service_speaks_for_those_who_cannot_be_sealed_to(
    caller: Any, wire: Wire, sealed_driver: SealedDriver, repository: Repository, met: bool
) -> None:
    wire.order(CONTEXT, "terminate_instance", target="web")
    if met:
        sealed_driver.plugin.agent = None
        wire.order(CONTEXT, "build_and_run_instance", **NEW, injected_files=[], ssh_keys=[])
    else:
        repository.create_instance(uuid="uuid-web", display_name="web", host="here", memory_mb=64, vcpus=1, root_gb=1)
        repository.end_task("uuid-web", vm_state="active")
    for action, method in (("set_admin_password", "order"), ("inject_file", "order"), ("add_ssh_keys", "order")):
        wire.methods.clear()
        if not met:
            repository.save_agent("uuid-web", version="", features=[], protocol="legacy")
        if action == "inject_file":
            caller.put_file("web", InjectedFile("/etc/motd", b"short"))
        else:
            OPERATIONS[action](caller)
        assert wire.methods == ["get_agent", action], method
    done = [row for row in rows(repository) if row[0] in OPERATIONS]
    code = "legacy_protocol" if met else ""
    assert done == [(action, "succeeded", code) for action in ("set_admin_password", "inject_file", "add_ssh_keys")]
    if met:
        assert sealed_driver.plugin.passwords == [SECRET]
    else:
        # The service met the agent, and sealed.
        assert [name for name, _ in sealed_driver.agent.done] == ["password", "file_put", "ssh_keys"]


def test_an_agent_that_was_met_by_the_service_is_sealed_to_from_then_on(
    caller: Any, wire: Wire, repository: Repository
) -> None:
    (instance,) = repository.list_instances()
    repository.save_agent(instance.uuid, version="", features=[], protocol="legacy")
    for _ in range(2):
        caller.set_password("web", Password(SECRET))
    assert wire.methods == ["get_agent", "set_admin_password", "get_agent", "send_sealed"]


def test_nobody_but_the_guest_makes_its_passwords(caller: Any, wire: Wire, repository: Repository) -> None:
    (instance,) = repository.list_instances()
    repository.save_agent(instance.uuid, version="", features=[], protocol="legacy")
    for operation in (
        lambda: caller.generate_password("web"),
        lambda: caller.generate_password_for_rsa("web", ["ssh-rsa AAAA"]),
    ):
        error = error_of(operation)
        assert (type(error), error.code) == (Unsupported, "agent_not_sealed")
    assert wire.methods == ["get_agent"] * 2


@every_operation
def test_another_agent_in_the_guest_gets_nothing_until_it_is_trusted(
    caller: Any, wire: Wire, sealed_driver: SealedDriver, repository: Repository, action: str
) -> None:
    other = SealedAgent()
    sealed_driver.agent = sealed_driver.plugin.agent = other
    error = error_of(lambda: OPERATIONS[action](caller))
    assert (type(error), error.code) == (Refused, "identity_changed")
    assert other.done == []
    wire.order(CONTEXT, "trust_agent", target="web")
    OPERATIONS[action](caller)
    assert len(other.done) == 1
    assert rows(repository) == [
        (action, "refused", "identity_changed"),
        ("trust_agent", "succeeded", ""),
        (action, "succeeded", ""),
    ]


@every_operation
def test_an_instance_that_is_not_there_is_refused_and_recorded(
    caller: Any, wire: Wire, repository: Repository, action: str
) -> None:
    wire.order(CONTEXT, "terminate_instance", target="web")
    assert error_of(lambda: OPERATIONS[action](caller)).code == "instance_not_found"
    assert rows(repository)[1:] == [(action, "refused", "instance_not_found")]


def test_what_the_service_tells_of_an_agent_must_make_sense(
    caller: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "ask", lambda *_, **__: {"identity": "AAAA"})
    assert error_of(lambda: caller.set_password("web", Password(SECRET))).code == "bad_agent"
    assert "send_sealed" not in wire.methods


def test_a_service_that_is_away_gets_nothing(caller: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise Unreachable("service_unreachable", "away")

    monkeypatch.setattr(wire, "ask", away)
    assert error_of(lambda: caller.set_password("web", Password(SECRET))).code == "service_unreachable"
    assert json.dumps(wire.methods) == "[]"
