"""Instances that are made, deleted and rebuilt."""

from __future__ import annotations

from typing import Any

import pytest

from agent_protocol.outcomes import Failed, Outcome, Refused, Unsuccessful, Unsupported
from compute_driver.db.repository import Repository
from compute_driver.errors import ImageNotFound, InstanceNotFound
from compute_driver.manager import ComputeManager
from compute_driver.states import PowerState

from ..bench import CONTEXT, FILE, FIRST_NODE, IMAGE, INTERFACE, KEYS, PASSWORD, SECRET, UUID, VOLUME, Bench
from ..cases import CASES

CREATE = CASES[0]


def test_create_hands_everything_to_the_driver_and_records_it(bench: Bench) -> None:
    instance = CREATE.carry_out(bench)
    guest = bench.guest
    assert bench.driver.opens(instance, PASSWORD.value)
    assert (guest.system.image, guest.system.files, guest.system.ssh_keys) == (IMAGE, {FILE.path: FILE}, list(KEYS))
    assert (guest.node, list(guest.volumes), guest.interfaces) == (FIRST_NODE, [VOLUME.id], [INTERFACE])
    assert (instance.vm_state, instance.power_state, instance.task_state) == ("active", PowerState.RUNNING, None)
    assert (instance.node, instance.image_ref, instance.instance_metadata) == (FIRST_NODE, IMAGE, {"role": "web"})
    assert bench.driver.guest(instance).metadata == {"role": "web"}
    assert instance.launched_at is not None
    assert [it.volume for it in bench.repository.list_volumes(UUID)] == [VOLUME]
    assert bench.repository.list_interfaces(UUID) == [INTERFACE]
    agent = bench.repository.get_agent(UUID)
    assert agent is not None
    assert (agent.version, agent.protocol) == ("fake", "sealed")
    rows = bench.repository.list_actions(instance_uuid=UUID)
    assert [row.step for row in rows][:3] == [None, "create_vm", "create_root_disk"]
    assert {row.outcome for row in rows} == {Outcome.SUCCEEDED}


def test_one_that_is_not_to_run_is_stopped(bench: Bench) -> None:
    instance = bench.create(power_on=False, admin_password=None)
    assert (instance.vm_state, instance.power_state, instance.node) == ("stopped", PowerState.SHUTDOWN, "")


@pytest.mark.parametrize("step", ["spawn", "create_vm", "boot"])
@pytest.mark.parametrize(
    ("error", "code"), [(Failed("broken", "it broke"), "broken"), (ValueError(SECRET), "internal_error")]
)
def test_a_failed_create_leaves_an_instance_in_error_and_a_fault(
    bench: Bench, step: str, error: Exception, code: str
) -> None:
    bench.driver.steering.fail(step, error)
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
        ({"display_name": "half \ud800 a pair"}, "bad_name"),
        ({"memory_mb": 15}, "bad_size"),
        ({"memory_mb": -1}, "bad_size"),
        ({"vcpus": 0}, "bad_size"),
        ({"root_gb": 0}, "bad_size"),
        ({"image_ref": "nobody"}, "image_not_found"),
    ],
)
def test_bad_names_and_sizes_are_refused_before_anything_is_made(
    bench: Bench, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(Refused) as caught:
        bench.create(**changes)
    assert caught.value.code == code
    assert bench.driver.steering.calls == []
    assert bench.manager.list_instances() == []
    assert (bench.action().outcome, bench.action().code) == (Outcome.REFUSED, code)


@pytest.mark.parametrize(
    "identity", ["", "web", UUID.upper().replace("1", "A"), "{" + UUID + "}", UUID.replace("-", "")]
)
def test_an_identity_that_is_none_is_refused(bench: Bench, identity: str) -> None:
    with pytest.raises(Refused) as caught:
        bench.create(instance_uuid=identity)
    assert caught.value.code == "bad_uuid"
    assert bench.repository.list_actions() == []


@pytest.mark.parametrize("name", ["x" * 255, "ä b'c\"; DROP TABLE instances; --"])
def test_other_names_are_kept_as_they_are(bench: Bench, name: str) -> None:
    assert bench.create(display_name=name).display_name == name
    assert bench.manager.get_instance(name)[0].display_name == name


@pytest.mark.parametrize("vm_state", ["building", "active", "paused", "stopped", "rescued", "resized", "error"])
def test_delete_works_in_every_state_and_frees_the_name(bench: Bench, vm_state: str) -> None:
    bench.have(vm_state)
    bench.manager.terminate_instance(CONTEXT, "web")
    assert bench.asked == ["destroy"]
    assert bench.driver.guests == []
    with pytest.raises(InstanceNotFound):
        bench.manager.get_instance("web")
    assert bench.create().uuid != UUID
    assert bench.manager.get_instance("web")[0].vm_state == "active"


def test_delete_lets_go_of_volumes(bench: Bench) -> None:
    bench.attach(bench.have())
    bench.manager.terminate_instance(CONTEXT, "web")
    assert [call.arguments for call in bench.driver.steering.calls if call.verb == "destroy"] == [
        {"volumes": (VOLUME.id,)}
    ]


@pytest.mark.parametrize("action", ["create", "rebuild", "rescue", "snapshot"])
def test_without_an_image_service_there_are_no_images(repository: Repository, action: str) -> None:
    bench = Bench.of(repository)
    bench.manager = ComputeManager(repository, bench.driver, "here")
    case = next(it for it in CASES if it.name == action)
    case.begin(bench)
    with pytest.raises(Unsupported) as caught:
        case.carry_out(bench)
    assert caught.value.code == "no_image_service"
    assert bench.asked == []


@pytest.mark.parametrize("action", ["rebuild", "rescue"])
def test_an_image_that_is_not_there_leaves_the_instance_as_it_is(bench: Bench, action: str) -> None:
    before = bench.have()
    named: dict[str, Any] = {"rescue_password": None} if action == "rescue" else {}
    with pytest.raises(ImageNotFound):
        getattr(bench.manager, f"{action}_instance")(CONTEXT, "web", image_ref="nobody", **named)
    assert (bench.instance.vm_state, bench.instance.task_state) == (before.vm_state, None)
    assert bench.asked == []


def test_a_snapshot_is_told(bench: Bench) -> None:
    bench.have()
    told = bench.manager.snapshot_instance(CONTEXT, "web", name="copy", disk_format="raw")
    (image,) = bench.images.stored.values()
    assert told == {
        "id": image.id,
        "name": "copy",
        "disk_format": "raw",
        "size": image.size,
        "sha256": image.sha256,
    }


def test_a_reboot_is_soft_or_hard(bench: Bench) -> None:
    bench.have()
    with pytest.raises(Refused):
        bench.manager.reboot_instance(CONTEXT, "web", "soft")
    assert bench.asked == []


# Moves


@pytest.mark.parametrize("verb", ["migrate_disk_and_power_off", "finish_migration"])
@pytest.mark.parametrize("before", ["active", "stopped"])
def test_a_resize_that_fails_leaves_everything_as_it_was(bench: Bench, verb: str, before: str) -> None:
    instance = bench.have(before)
    bench.driver.steering.fail(verb, Failed("broken", "it broke"))
    with pytest.raises(Failed) as caught:
        bench.manager.resize_instance(CONTEXT, "web", memory_mb=128, vcpus=2, root_gb=2)
    assert caught.value.code == "broken"
    now = bench.instance
    for name in ("vm_state", "power_state", "node", "memory_mb", "vcpus", "root_gb", "task_state"):
        assert getattr(now, name) == getattr(instance, name), name
    assert (bench.guest.memory_mb, bench.guest.kept) == (64, None)
    assert bench.repository.open_migration(UUID) is None
    assert [row.step for row in bench.repository.list_actions()][-1] == "revert"
    assert bench.repository.list_faults(UUID) == []


def test_one_that_cannot_be_put_back_is_an_error(bench: Bench) -> None:
    bench.have()
    bench.driver.steering.fail("finish_migration", Failed("broken", "it broke"))
    bench.driver.steering.fail("finish_revert_migration", Failed("worse", "that too"))
    bench.driver.steering.fail("finish_revert_migration", Failed("worse", "that too"))
    with pytest.raises(Failed) as caught:
        bench.manager.resize_instance(CONTEXT, "web", memory_mb=128, vcpus=2, root_gb=2)
    assert caught.value.code == "broken"
    assert (bench.instance.vm_state, bench.instance.task_state) == ("error", None)
    assert [fault.code for fault in bench.repository.list_faults(UUID)] == ["broken"]


@pytest.mark.parametrize(
    ("action", "verb"),
    [
        ("confirm_resize", "confirm_migration"),
        ("confirm_resize", "get_info"),
        ("revert_resize", "finish_revert_migration"),
        ("revert_resize", "get_info"),
    ],
)
def test_what_could_not_be_confirmed_or_reverted_can_be_again(bench: Bench, action: str, verb: str) -> None:
    case = next(it for it in CASES if it.name == action)
    case.begin(bench)
    for _ in range(2 if verb == "finish_revert_migration" else 1):
        bench.driver.steering.fail(verb, Failed("broken", "it broke"))
    with pytest.raises(Failed):
        case.carry_out(bench)
    assert bench.instance.vm_state == "resized"
    case.carry_out(bench)
    assert {name: getattr(bench.instance, name) for name in case.after} == dict(case.after)
    assert bench.repository.open_migration(UUID) is None


@pytest.mark.parametrize("moment", ["asked for", "after a failure"])
def test_one_that_is_put_back_and_does_not_start_is_recorded_as_it_is(bench: Bench, moment: str) -> None:
    revert = next(it for it in CASES if it.name == "revert_resize")
    if moment == "asked for":
        revert.begin(bench)
    else:
        bench.have()
        bench.driver.steering.fail("finish_migration", Failed("broken", "it broke"))
    # The guest is as it was by then, only that it is off.
    bench.driver.steering.fail("finish_revert_migration", Failed("not_started", "it does not start"))
    with pytest.raises(Failed) as caught:
        if moment == "asked for":
            revert.carry_out(bench)
        else:
            bench.manager.resize_instance(CONTEXT, "web", memory_mb=128, vcpus=2, root_gb=2)
    assert caught.value.code == ("not_started" if moment == "asked for" else "broken")
    assert (bench.guest.memory_mb, bench.guest.kept, bench.instance.memory_mb) == (64, None, 64)
    info = bench.driver.get_info(bench.instance)
    assert (info.state, bench.instance.power_state) == (PowerState.SHUTDOWN, PowerState.SHUTDOWN)
    assert (bench.instance.vm_state, bench.instance.task_state) == ("stopped", None)
    assert bench.repository.open_migration(UUID) is None
    with pytest.raises(Refused):
        bench.manager.confirm_resize(CONTEXT, "web")


def test_without_a_resize_there_is_nothing_to_confirm(bench: Bench) -> None:
    bench.record("resized")
    for order in (bench.manager.confirm_resize, bench.manager.revert_resize):
        with pytest.raises(Refused) as caught:
            order(CONTEXT, "web")
        assert caught.value.code == "not_resized"
