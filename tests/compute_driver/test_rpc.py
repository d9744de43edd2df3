"""What crosses the bus, and how it comes out at the other end."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from agent_protocol.outcomes import Busy, Failed, Outcome, Refused, Unknown, Unreachable, Unsuccessful, Unsupported
from compute_driver.context import RequestContext
from compute_driver.db.repository import Repository
from compute_driver.manager import ComputeManager
from compute_driver.memory import RepositoryMemory
from compute_driver.sealing import SealedAnswer, SealedFailure

from .bench import SEALED_VALUE
from .bus import Switch
from .fakes import AGENT, FakeDriver

CONTEXT = RequestContext("req-1", "ada")
CALLER = {"request_id": "req-1", "user": "ada"}
SECRET = "hunter2-in-an-argument"
NEW = {
    "display_name": "web",
    "memory_mb": 64,
    "vcpus": 1,
    "root_gb": 1,
    "admin_password": SECRET,
    "injected_files": [{"path": "/etc/motd", "content": "aGVsbG8="}],
    "ssh_keys": ["ssh-ed25519 AAAA"],
}
SEALED = {"request_id": "id", "value": SEALED_VALUE, "box": ""}


@pytest.fixture
def driver(bus: tuple[Any, Switch], repository: Repository) -> FakeDriver:
    """The hypervisor behind a fresh manager behind the bus."""
    it = FakeDriver(RepositoryMemory(repository))
    bus[1].manager = ComputeManager(repository, it, "here")
    return it


@pytest.fixture
def client(bus: tuple[Any, Switch], driver: FakeDriver) -> Any:
    from compute_driver import rpc

    return rpc.ComputeClient(bus[0], "here", timeout=10.0, order_timeout=10.0)


@pytest.fixture
def endpoint(bus: tuple[Any, Switch], driver: FakeDriver) -> Any:
    from compute_driver import rpc

    return rpc.ComputeEndpoint(bus[1].manager)


def test_every_method_crosses_the_bus(client: Any, driver: FakeDriver) -> None:
    made = client.order(CONTEXT, "build_and_run_instance", **NEW)
    assert (made["display_name"], made["vm_state"]) == ("web", "active")
    client.order(CONTEXT, "set_admin_password", target="web", new_pass=SECRET)
    client.order(CONTEXT, "inject_file", target="web", file={"path": "/a", "content": "aGVsbG8=", "mode": 0o640})
    client.order(CONTEXT, "add_ssh_keys", target="web", keys=["ssh-ed25519 AAAA"])
    client.order(CONTEXT, "send_sealed", target="web", action="inject_file", **SEALED)
    assert client.order(CONTEXT, "trust_agent", target="web") == AGENT.to_dict()
    assert client.ask(CONTEXT, "get_agent", target="web", action=None) == AGENT.to_dict()
    client.order(CONTEXT, "reboot_instance", target="web", reboot_type="HARD")
    client.order(CONTEXT, "stop_instance", target="web")
    client.order(CONTEXT, "start_instance", target="web")
    shown = client.ask(CONTEXT, "get_instance", target="web")
    assert (shown["uuid"], shown["power_state"]) == (made["uuid"], "running")
    assert shown["agent"]["features"] == ["version", "password"]
    assert [instance["uuid"] for instance in client.ask(CONTEXT, "list_instances")] == [made["uuid"]]
    client.order(CONTEXT, "terminate_instance", target="web")
    rows = client.ask(CONTEXT, "list_actions", target=made["uuid"])
    assert [row["action"] for row in rows if row["step"] is None] == [
        "create",
        "set_admin_password",
        "inject_file",
        "add_ssh_keys",
        "inject_file",
        "trust_agent",
        "reboot",
        "stop",
        "start",
        "delete",
    ]
    assert {(row["user"], row["request_id"], row["outcome"]) for row in rows} == {("ada", "req-1", "succeeded")}
    file = next(call[2] for call in driver.calls if call[0] == "inject_file")
    assert (file.path, file.content, file.mode, file.owner) == ("/a", b"hello", 0o640, None)


@pytest.mark.parametrize("kind", [Refused, Unsupported, Busy, Failed, Unreachable, Unknown])
def test_each_honest_error_crosses_with_outcome_code_and_message(
    client: Any, driver: FakeDriver, kind: type[Unsuccessful]
) -> None:
    driver.errors["spawn"] = kind("some_code", "some words")
    with pytest.raises(kind) as caught:
        client.order(CONTEXT, "build_and_run_instance", **NEW)
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.message) == ("some_code", "some words")


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.SUCCEEDED])
def test_what_an_agent_signed_crosses_with_its_answer(
    client: Any, driver: FakeDriver, repository: Repository, outcome: Outcome
) -> None:
    client.order(CONTEXT, "build_and_run_instance", **NEW)
    driver.answer = SealedAnswer(outcome, "some_code", "the reply", "its box")
    with pytest.raises(SealedFailure) as caught:
        client.order(CONTEXT, "send_sealed", target="web", action="set_admin_password", **SEALED)
    assert caught.value.answer == driver.answer
    assert (caught.value.outcome, caught.value.code) == (outcome, "some_code")
    row = repository.list_actions()[-1]
    assert (row.action, row.outcome, row.code) == ("set_admin_password", outcome, "some_code")


def test_an_error_of_the_way_there_is_no_answer_of_the_agents(client: Any, driver: FakeDriver) -> None:
    client.order(CONTEXT, "build_and_run_instance", **NEW)
    driver.errors["send_sealed"] = Unknown("unsigned_reply", "not signed")
    with pytest.raises(Unknown) as caught:
        client.order(CONTEXT, "send_sealed", target="web", action="set_admin_password", **SEALED)
    assert (type(caught.value), caught.value.code) == (Unknown, "unsigned_reply")


def test_an_agent_that_was_never_met_is_none(client: Any, repository: Repository) -> None:
    repository.create_instance(uuid="uuid-web", display_name="web", host="here", memory_mb=64, vcpus=1, root_gb=1)
    assert client.ask(CONTEXT, "get_agent", target="web", action="inject_file") is None


def test_an_unforeseen_error_tells_nothing_of_what_it_held(
    client: Any, endpoint: Any, driver: FakeDriver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    driver.errors["spawn"] = ValueError(SECRET)
    with pytest.raises(Unknown) as caught:
        client.order(CONTEXT, "build_and_run_instance", **NEW)
    assert caught.value.code == "internal_error"
    assert SECRET not in str(caught.value)
    assert SECRET not in caplog.text


def test_a_broken_manager_tells_nothing_of_what_it_held(
    client: Any, bus: tuple[Any, Switch], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    class Broken:
        def list_instances(self) -> None:
            raise RuntimeError(SECRET)

        def set_admin_password(self, *_: object) -> None:
            raise RuntimeError(SECRET)

    bus[1].manager = Broken()
    with pytest.raises(Unreachable) as question:
        client.ask(CONTEXT, "list_instances")
    with pytest.raises(Unknown) as order:
        client.order(CONTEXT, "set_admin_password", target="web", new_pass="a Pass-word 1")
    for caught in (question, order):
        assert caught.value.code == "internal_error"
        assert SECRET not in str(caught.value)
    assert SECRET not in caplog.text
    assert "RuntimeError" in caplog.text


WRONG: list[dict[str, Any]] = [
    {"display_name": 7},
    {"display_name": None},
    {"display_name": "half \ud800 a pair"},
    {"memory_mb": "64"},
    {"memory_mb": None},
    {"memory_mb": 64.5},
    {"memory_mb": 2**80},
    {"vcpus": 2**40},
    {"root_gb": []},
    {"admin_password": 7},
    {"injected_files": 7},
    {"injected_files": SECRET},
    {"injected_files": [None]},
    {"ssh_keys": 7},
    {"ssh_keys": SECRET},
    {"ssh_keys": [7]},
    {"ssh_keys": None},
]

MALFORMED: list[tuple[str, dict[str, Any]]] = [
    ("set_admin_password", {}),
    ("set_admin_password", {"target": "web"}),
    ("set_admin_password", {"target": "web", "new_pass": "good Pass-word", "more": SECRET}),
    ("set_admin_password", {"target": "web", "new_pass": None}),
    ("set_admin_password", {"target": "web", "new_pass": [SECRET]}),
    ("set_admin_password", {"target": "web", "new_pass": SECRET + "\n"}),
    ("set_admin_password", {"target": "web", "new_pass": "\ud800" + SECRET}),
    ("set_admin_password", {"target": 7, "new_pass": SECRET}),
    ("set_admin_password", {"target": ["web"], "new_pass": SECRET}),
    ("inject_file", {"target": "web", "file": SECRET}),
    ("inject_file", {"target": "web", "file": None}),
    ("inject_file", {"target": "web", "file": {"path": "/a", "content": SECRET}}),
    ("inject_file", {"target": "web", "file": {"path": "/a", "content": "aGVsbG8"}}),
    ("inject_file", {"target": "web", "file": {"path": "/a", "content": "aGVs\u00e4"}}),
    ("inject_file", {"target": "web", "file": {"path": None, "content": "aGVsbG8="}}),
    ("inject_file", {"target": "web", "file": {"path": "/a", "content": "aGVsbG8=", "mode": "0644"}}),
    ("inject_file", {"target": "web", "file": {"path": "/a", "content": "aGVsbG8=", "mode": -1}}),
    ("inject_file", {"target": "web", "file": {"path": "/a", "content": "aGVsbG8=", "mode": 0o10000}}),
    ("inject_file", {"target": "web", "file": {"path": "/a", "content": "aGVsbG8=", "mode": True}}),
    ("inject_file", {"target": "web", "file": {"path": "/a", "content": "aGVsbG8=", "owner": 0}}),
    ("add_ssh_keys", {"target": "web", "keys": SECRET}),
    ("add_ssh_keys", {"target": "web", "keys": [7]}),
    ("add_ssh_keys", {"target": "web", "keys": None}),
    ("send_sealed", {"target": "web", "action": "inject_file"}),
    ("send_sealed", {"target": "web", "action": ["inject_file"], **SEALED}),
    ("send_sealed", {"target": "web", "action": SECRET, **SEALED}),
    ("send_sealed", {"target": "web", "action": "inject_file", **SEALED, "value": SECRET}),
    ("send_sealed", {"target": "web", "action": "inject_file", **SEALED, "value": {"name": SECRET}}),
    ("send_sealed", {"target": "web", "action": "inject_file", **SEALED, "request_id": 7}),
    ("send_sealed", {"target": "web", "action": "inject_file", **SEALED, "box": None}),
    ("send_sealed", {"target": "web", "action": "inject_file", **SEALED, "box": [SECRET]}),
    ("trust_agent", {"target": ["web"]}),
    ("get_agent", {"target": {}, "action": None}),
    ("reboot_instance", {"target": "web", "reboot_type": None}),
    ("reboot_instance", {"target": "web", "reboot_type": ["HARD"]}),
    ("stop_instance", {"target": None}),
    ("terminate_instance", {"target": {}}),
    ("terminate_instance", {"target": "\0"}),
    ("build_and_run_instance", {}),
    *(("build_and_run_instance", {**NEW, "display_name": "new", **wrong}) for wrong in WRONG),
]


@pytest.mark.parametrize(("method", "arguments"), MALFORMED)
def test_malformed_arguments_are_answered_and_change_nothing(
    endpoint: Any,
    driver: FakeDriver,
    repository: Repository,
    caplog: pytest.LogCaptureFixture,
    method: str,
    arguments: dict[str, Any],
) -> None:
    caplog.set_level(logging.DEBUG)
    repository.create_instance(uuid="uuid-web", display_name="web", host="here", memory_mb=64, vcpus=1, root_gb=1)
    repository.end_task("uuid-web", vm_state="active")
    answer = getattr(endpoint, method)(CALLER, **arguments)
    assert answer["error"]["outcome"] in ("refused", "unknown")
    assert SECRET not in str(answer)
    assert SECRET not in caplog.text
    assert driver.calls == []
    (instance,) = repository.list_instances()
    assert (instance.uuid, instance.vm_state, instance.task_state) == ("uuid-web", "active", None)


@pytest.mark.parametrize(
    "context",
    [
        None,
        "ada",
        7,
        [],
        {},
        {"user": "ada"},
        {"request_id": 7, "user": "ada"},
        {"request_id": "req-1", "user": None},
        {"request_id": "r" * 256, "user": "ada"},
    ],
)
def test_a_bad_context_is_answered_and_changes_nothing(endpoint: Any, driver: FakeDriver, context: Any) -> None:
    answer = endpoint.build_and_run_instance(context, **NEW)
    assert answer["error"]["outcome"] in ("refused", "unknown")
    assert driver.calls == []


def test_a_service_that_does_not_answer_leaves_orders_unknown_and_questions_unreachable(
    bus: tuple[Any, Switch], driver: FakeDriver
) -> None:
    from compute_driver import rpc

    impatient = rpc.ComputeClient(bus[0], "here", timeout=0.05, order_timeout=0.05)
    leave = threading.Event()

    def wait(_: str) -> None:
        leave.wait(10.0)

    driver.on_call = wait
    try:
        with pytest.raises(Unknown) as order:
            impatient.order(CONTEXT, "build_and_run_instance", **NEW)
        with pytest.raises(Unreachable) as question:
            impatient.ask(CONTEXT, "get_instance", target="web")
    finally:
        leave.set()
    for caught in (order, question):
        assert caught.value.code == "service_no_answer"
        assert "'here'" in caught.value.message
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("method", ["set_the_house_on_fire", "_manager", "__init__"])
def test_a_method_that_the_service_does_not_have_is_unsupported(client: Any, driver: FakeDriver, method: str) -> None:
    with pytest.raises(Unsupported) as caught:
        client.order(CONTEXT, method, new_pass=SECRET)
    assert caught.value.code == "service_too_old"
    assert SECRET not in str(caught.value)
    assert driver.calls == []


def test_a_service_of_another_version_is_unsupported(
    bus: tuple[Any, Switch], driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compute_driver import rpc

    monkeypatch.setattr(rpc, "VERSION", "1.99")
    with pytest.raises(Unsupported):
        rpc.ComputeClient(bus[0], "here", order_timeout=10.0).order(CONTEXT, "build_and_run_instance", **NEW)
    assert driver.calls == []
