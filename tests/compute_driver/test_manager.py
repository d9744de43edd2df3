from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.outcomes import Busy, Failed, Outcome, Refused, Unknown, Unreachable, Unsuccessful, Unsupported
from compute_driver.context import RequestContext
from compute_driver.errors import (
    InstanceBusy,
    InstanceNameAmbiguous,
    InstanceNotFound,
    InstanceStateRefused,
    XenServerUnreachable,
)

from .bench import (
    CONTEXT,
    DEADLINE,
    FILE,
    OPERATIONS,
    PASSWORD,
    SECRET,
    Bench,
    Operation,
    every_operation,
    every_operation_on_an_instance,
)

# Before, during and after


@every_operation
def test_the_row_and_the_turn_come_before_the_driver(bench: Bench, operation: Operation) -> None:
    operation.prepare(bench)
    seen: list[tuple[Any, ...]] = []

    def look(name: str) -> None:
        if name == operation.method:
            (row,) = bench.repository.unfinished_actions("here")
            instance = bench.repository.find_instance("web")
            seen.append((row.action, row.instance_uuid == instance.uuid, row.user, instance.task_state))

    bench.driver.on_call = look
    operation.run(bench)
    assert seen == [(operation.action, True, "ada", operation.task)]


@every_operation
def test_a_success_is_recorded_and_gives_the_turn_back(bench: Bench, operation: Operation) -> None:
    operation.prepare(bench)
    operation.run(bench)
    row = bench.action()
    assert (row.action, row.outcome, row.code, row.message) == (operation.action, Outcome.SUCCEEDED, "", "")
    assert row.target == "web"
    assert row.seconds is not None
    assert row.instance_uuid is not None
    instance = bench.repository.get_instance(row.instance_uuid, include_deleted=True)
    assert (instance.vm_state, instance.power_state) == operation.after
    assert instance.task_state is None
    assert bench.repository.unfinished_actions("here") == []


KINDS = [Refused, Unsupported, Busy, Failed, Unreachable, Unknown]


@pytest.mark.parametrize(
    ("operation", "kind"),
    [(OPERATIONS[0], kind) for kind in KINDS] + list(zip(OPERATIONS[1:], KINDS * 2)),
    ids=lambda value: value.name() if isinstance(value, Operation) else value.__name__,
)
def test_each_error_is_recorded_sets_no_values_and_gives_the_turn_back(
    bench: Bench, operation: Operation, kind: type[Unsuccessful]
) -> None:
    operation.prepare(bench)
    error = kind("some_code", "some words")
    bench.driver.errors[operation.method] = error
    with pytest.raises(kind) as caught:
        operation.run(bench)
    assert caught.value is error
    row = bench.action()
    assert (row.outcome, row.code, row.message) == (kind.outcome, "some_code", "some words")
    assert row.seconds is not None
    instance = bench.repository.find_instance("web")
    assert instance.task_state is None
    assert instance.vm_state == (operation.before or "error")
    assert instance.power_state == (0 if operation.before is None else 1 if operation.before == "active" else 4)


@every_operation
def test_an_unforeseen_error_is_unknown_and_its_text_is_nowhere(
    bench: Bench, operation: Operation, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    operation.prepare(bench)
    bench.driver.errors[operation.method] = ValueError(SECRET)
    with pytest.raises(Unknown) as caught:
        operation.run(bench)
    assert caught.value.code == "internal_error"
    row = bench.action()
    assert (row.outcome, row.code) == (Outcome.UNKNOWN, "internal_error")
    assert bench.repository.find_instance("web").task_state is None
    assert SECRET not in caplog.text + str(caught.value)
    files = list(tmp_path.iterdir())
    assert files
    assert not any(SECRET.encode() in path.read_bytes() for path in files)


@every_operation
def test_secrets_are_in_neither_database_nor_log(
    bench: Bench, operation: Operation, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    operation.prepare(bench)
    operation.run(bench)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (PASSWORD.value, FILE.content.decode()):
        assert secret not in caplog.text
        assert secret.encode() not in stored


# Whose turn it is


@every_operation_on_an_instance
def test_a_missing_instance_is_refused_and_recorded(bench: Bench, operation: Operation) -> None:
    with pytest.raises(InstanceNotFound):
        operation.run(bench)
    row = bench.action()
    assert (row.instance_uuid, row.outcome, row.code) == (None, Outcome.REFUSED, "instance_not_found")
    assert bench.driver.calls == []


@every_operation_on_an_instance
def test_a_name_that_two_bear_is_refused_and_recorded(bench: Bench, operation: Operation) -> None:
    bench.instance(uuid="one")
    bench.instance(uuid="two")
    with pytest.raises(InstanceNameAmbiguous):
        operation.run(bench)
    assert bench.action().code == "instance_name_ambiguous"
    assert bench.driver.calls == []


@every_operation_on_an_instance
def test_a_busy_instance_is_busy_and_keeps_its_task(bench: Bench, operation: Operation) -> None:
    operation.prepare(bench)
    bench.repository.begin_task("uuid-web", "rebooting")
    with pytest.raises(InstanceBusy):
        operation.run(bench)
    assert bench.action().outcome is Outcome.BUSY
    assert bench.repository.get_instance("uuid-web").task_state == "rebooting"
    assert bench.driver.calls == []


@pytest.mark.parametrize("operation", OPERATIONS[2:], ids=Operation.name)
def test_the_wrong_state_is_refused(bench: Bench, operation: Operation) -> None:
    bench.instance("error")
    with pytest.raises(InstanceStateRefused):
        operation.run(bench)
    assert (bench.action().outcome, bench.action().code) == (Outcome.REFUSED, "instance_state")
    assert bench.repository.get_instance("uuid-web").task_state is None
    assert bench.driver.calls == []


@pytest.mark.parametrize("vm_state", ["building", "active", "paused", "stopped", "error"])
def test_delete_works_in_every_state_and_frees_the_name(bench: Bench, vm_state: str) -> None:
    bench.instance(vm_state)
    bench.manager.terminate_instance(CONTEXT, "web")
    assert bench.driver.calls == [("destroy", "uuid-web")]
    with pytest.raises(InstanceNotFound):
        bench.manager.get_instance("web")
    assert bench.create().uuid != "uuid-web"
    assert bench.manager.get_instance("web")[0].vm_state == "active"


def test_of_two_threads_one_is_busy(bench: Bench) -> None:
    bench.instance()
    entered, leave = threading.Event(), threading.Event()

    def wait(_: str) -> None:
        entered.set()
        assert leave.wait(DEADLINE)

    bench.driver.on_call = wait
    first = threading.Thread(target=lambda: bench.manager.stop_instance(CONTEXT, "web"))
    first.start()
    try:
        assert entered.wait(DEADLINE)
        with pytest.raises(InstanceBusy):
            bench.manager.set_admin_password(RequestContext("req-2", "bob"), "web", PASSWORD)
    finally:
        leave.set()
        first.join(DEADLINE)
    assert bench.driver.calls == [("power_off", "uuid-web")]
    outcomes = {row.request_id: row.outcome for row in bench.repository.list_actions()}
    assert outcomes == {"req-1": Outcome.SUCCEEDED, "req-2": Outcome.BUSY}
    assert bench.repository.get_instance("uuid-web").vm_state == "stopped"


def test_a_reboot_is_soft_or_hard(bench: Bench) -> None:
    bench.instance()
    with pytest.raises(Refused):
        bench.manager.reboot_instance(CONTEXT, "web", "soft")
    assert bench.driver.calls == []


# Creating


def test_create_hands_everything_to_the_driver_and_records_steps_and_agent(bench: Bench) -> None:
    instance = bench.create(injected_files=[FILE], ssh_keys=["ssh-ed25519 AAAA"])
    assert bench.driver.calls[0] == ("spawn", instance.uuid, PASSWORD, (FILE,), ("ssh-ed25519 AAAA",))
    assert (instance.vm_state, instance.power_state, instance.task_state) == ("active", 1, None)
    assert instance.launched_at is not None
    agent = bench.repository.get_agent(instance.uuid)
    assert agent is not None
    assert (agent.version, agent.features, agent.protocol) == ("1.0", ("version", "password"), "sealed")
    rows = bench.repository.list_actions(instance_uuid=instance.uuid)
    assert [(row.step, row.outcome) for row in rows] == [
        (None, Outcome.SUCCEEDED),
        ("create_vm", Outcome.SUCCEEDED),
        ("boot", Outcome.SUCCEEDED),
    ]


@pytest.mark.parametrize("step", ["spawn", "create_vm", "boot"])
@pytest.mark.parametrize(
    ("error", "code"), [(Failed("broken", "it broke"), "broken"), (ValueError(SECRET), "internal_error")]
)
def test_a_failed_create_leaves_an_instance_in_error_and_a_fault(
    bench: Bench, step: str, error: Exception, code: str
) -> None:
    bench.driver.errors[step] = error
    with pytest.raises(Unsuccessful) as caught:
        bench.create()
    assert caught.value.code == code
    instance = bench.repository.find_instance("web")
    assert (instance.vm_state, instance.task_state, instance.launched_at) == ("error", None, None)
    (fault,) = bench.repository.list_faults(instance.uuid)
    assert fault.code == code
    assert SECRET not in fault.message
    if step != "spawn":
        assert [row.code for row in bench.repository.list_actions() if row.step == step] == [code]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"display_name": ""}, "bad_name"),
        ({"display_name": "x" * 256}, "bad_name"),
        ({"display_name": "two\nlines"}, "bad_name"),
        ({"display_name": "nul\0"}, "bad_name"),
        ({"memory_mb": 15}, "bad_size"),
        ({"memory_mb": -1}, "bad_size"),
        ({"vcpus": 0}, "bad_size"),
        ({"root_gb": 0}, "bad_size"),
    ],
)
def test_bad_names_and_sizes_are_refused_before_anything_is_made(
    bench: Bench, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(Refused) as caught:
        bench.create(**changes)
    assert caught.value.code == code
    assert bench.driver.calls == []
    assert bench.manager.list_instances() == []
    assert (bench.action().outcome, bench.action().code) == (Outcome.REFUSED, code)


@pytest.mark.parametrize("name", ["x" * 255, "ä b'c\"; DROP TABLE instances; --"])
def test_other_names_are_kept_as_they_are(bench: Bench, name: str) -> None:
    assert bench.create(display_name=name).display_name == name
    assert bench.manager.get_instance(name)[0].display_name == name


# Questions


def test_init_host_does_not_keep_the_service_from_starting(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.driver.errors["init_host"] = XenServerUnreachable("xen-1", "Connection refused")
    bench.manager.init_host()
    assert "cannot be reached" in caplog.text


def test_the_power_state_is_what_the_hypervisor_says_now(bench: Bench) -> None:
    uuid = bench.instance("stopped")
    instance, agent, power_state = bench.manager.get_instance("web")
    assert (instance.uuid, agent, power_state) == (uuid, None, "running")
    bench.driver.errors["get_info"] = XenServerUnreachable("xen-1", "Connection refused")
    assert bench.manager.get_instance(uuid)[2] == "unknown"


def test_list_instances_is_of_this_host(bench: Bench) -> None:
    bench.instance()
    bench.instance(name="other", host="there", uuid="there")
    assert [instance.uuid for instance in bench.manager.list_instances()] == ["uuid-web"]


def test_actions_by_name_uuid_and_of_the_deleted(bench: Bench) -> None:
    uuid = bench.create().uuid
    bench.manager.stop_instance(CONTEXT, uuid)
    by_name = bench.manager.list_actions("web")
    assert [row.action for row in by_name] == ["create", "create", "create", "stop"]
    assert bench.manager.list_actions(uuid) == by_name
    bench.manager.terminate_instance(CONTEXT, "web")
    assert [row.action for row in bench.manager.list_actions(uuid)][-1] == "delete"
    with pytest.raises(InstanceNotFound):
        bench.manager.list_actions("web")
    with pytest.raises(InstanceNotFound):
        bench.manager.list_actions("nobody")
    assert len(bench.manager.list_actions(None)) == 5


# Cached images


def test_images_that_were_not_used_for_long_are_named(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    asked: list[float] = []

    def evict(*, unused_for: float) -> list[str]:
        asked.append(unused_for)
        return ["debian-12"]

    monkeypatch.setattr(bench.driver, "manage_image_cache", evict)
    bench.manager.manage_image_cache(60.0)
    assert asked == [60.0]
    assert "debian-12" in caplog.text


def test_cached_images_that_cannot_be_looked_through_end_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.driver.errors["manage_image_cache"] = XenServerUnreachable("xenserver", "no route")
    bench.manager.manage_image_cache(60.0)
    assert "no route" in caplog.text
