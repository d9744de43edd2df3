from __future__ import annotations

import dataclasses
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from agent_protocol.outcomes import Outcome
from compute_driver import errors
from compute_driver.db.records import Instance
from compute_driver.db.repository import Repository
from compute_driver.states import PowerState, TaskState, VmState

from .making import make, make_idle, start

LONG_AND_ODD = "\U0001f511é\0\ud800" * 2000


def test_a_new_instance_is_building_and_its_turn_is_taken(repository: Repository) -> None:
    before = datetime.now(timezone.utc)
    made = make(repository, image_ref="debian-12", instance_metadata={"role": "wéb", "n": [1, None]})
    assert made == repository.get_instance(made.uuid)
    assert (made.vm_state, made.task_state, made.power_state) == ("building", "spawning", PowerState.NOSTATE)
    assert (made.memory_mb, made.vcpus, made.root_gb, made.image_ref) == (2048, 2, 20, "debian-12")
    assert made.instance_metadata == {"role": "wéb", "n": [1, None]}
    assert made.system_metadata == {}
    assert before <= made.created_at == made.updated_at <= datetime.now(timezone.utc)
    assert (made.deleted, made.deleted_at, made.launched_at, made.terminated_at) == (0, None, None, None)
    assert type(made.vm_state) is str


def test_a_uuid_serves_once(repository: Repository) -> None:
    made = make(repository)
    repository.delete_instance(made.uuid)
    with pytest.raises(errors.InstanceExists):
        make(repository, uuid=made.uuid)


def test_a_missing_value_is_not_mistaken_for_a_used_uuid(repository: Repository) -> None:
    with pytest.raises(Exception, match=r"(?i)null") as caught:
        make(repository, host=None)
    assert not isinstance(caught.value, errors.InstanceExists)


@pytest.mark.parametrize("name", ["x" * 256, "nul\0", "half\ud800"])
def test_a_name_that_would_not_come_back_is_refused(repository: Repository, name: str) -> None:
    with pytest.raises(ValueError, match="display_name"):
        make(repository, display_name=name)
    made = make(repository)
    with pytest.raises(ValueError, match="display_name"):
        repository.update_instance(made.uuid, display_name=name)


def test_names_hold_every_language_up_to_their_length(repository: Repository) -> None:
    name = "\U0001f511" * 255
    made = make(repository, display_name=name)
    assert repository.find_instance(name).uuid == made.uuid


def test_find_takes_uuid_before_name(repository: Repository) -> None:
    wanted = make(repository, display_name="one")
    make(repository, display_name=wanted.uuid)
    assert repository.find_instance(wanted.uuid).uuid == wanted.uuid
    assert repository.find_instance("one").uuid == wanted.uuid


@pytest.mark.parametrize("asked", ["WEB", "web ", "", "wéb", "\0", "\ud800", "w" * 5000])
def test_find_takes_no_name_that_differs(repository: Repository, asked: str) -> None:
    make(repository)
    with pytest.raises(errors.InstanceNotFound) as caught:
        repository.find_instance(asked)
    assert caught.value.name_or_uuid == asked


def test_find_refuses_to_choose(repository: Repository) -> None:
    first, _second = make(repository), make(repository)
    with pytest.raises(errors.InstanceNameAmbiguous):
        repository.find_instance("web")
    repository.delete_instance(first.uuid)
    assert repository.find_instance("web").uuid == _second.uuid


def test_list_is_in_order_by_host_and_without_the_deleted(repository: Repository) -> None:
    first, second = make(repository), make(repository, host="compute-2")
    gone = make(repository)
    repository.delete_instance(gone.uuid)
    assert [found.uuid for found in repository.list_instances()] == [first.uuid, second.uuid]
    assert [found.uuid for found in repository.list_instances(host="compute-2")] == [second.uuid]


def test_a_turn_is_taken_once_and_given_back(repository: Repository) -> None:
    made = make_idle(repository)
    assert made.task_state is None
    assert repository.begin_task(made.uuid, TaskState.REBOOTING).task_state == "rebooting"
    with pytest.raises(errors.InstanceBusy) as caught:
        repository.begin_task(made.uuid, TaskState.DELETING)
    assert (caught.value.uuid, caught.value.task_state) == (made.uuid, "rebooting")
    ended = repository.end_task(made.uuid, power_state=PowerState.RUNNING)
    assert (ended.task_state, ended.power_state, ended.vm_state) == (None, 1, "active")
    assert ended.updated_at > made.updated_at


def test_a_task_needs_one_of_its_states(repository: Repository) -> None:
    made = make_idle(repository)
    wanted = frozenset([VmState.STOPPED])
    with pytest.raises(errors.InstanceStateRefused) as caught:
        repository.begin_task(made.uuid, TaskState.POWERING_ON, vm_states=wanted)
    assert (caught.value.vm_state, caught.value.wanted) == ("active", ("stopped",))
    assert repository.get_instance(made.uuid).task_state is None
    repository.update_instance(made.uuid, vm_state=VmState.STOPPED)
    assert repository.begin_task(made.uuid, TaskState.POWERING_ON, vm_states=wanted).task_state == "powering-on"


def test_of_many_threads_one_gets_the_turn(repository: Repository) -> None:
    made = make_idle(repository)
    for _round in range(5):
        barrier = threading.Barrier(8)

        def attempt(number: int, barrier: threading.Barrier = barrier) -> str:
            barrier.wait(30)
            try:
                return repository.begin_task(made.uuid, f"task-{number}", vm_states=["active"]).task_state or ""
            except errors.InstanceBusy as busy:
                return f"lost to {busy.task_state}"

        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(attempt, range(8)))
        winners = [word for word in said if not word.startswith("lost")]
        assert len(winners) == 1
        assert said.count(f"lost to {winners[0]}") == 7
        repository.end_task(made.uuid)


def test_nothing_is_lost_when_threads_take_turns(repository: Repository) -> None:
    made = make_idle(repository)

    def count_up(_number: int) -> None:
        for _ in range(5):
            while True:
                try:
                    held = repository.begin_task(made.uuid, "counting")
                    break
                except errors.InstanceBusy:
                    continue
            repository.end_task(made.uuid, memory_mb=held.memory_mb + 1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count_up, range(4)))
    assert repository.get_instance(made.uuid).memory_mb == 2048 + 20


@pytest.mark.parametrize("name", ["memory", "id", "uuid", "deleted", "created_at", "updated_at", "deleted_at"])
def test_only_columns_that_callers_own_are_set(repository: Repository, name: str) -> None:
    made = make(repository)
    with pytest.raises(TypeError, match=name):
        repository.update_instance(made.uuid, **{name: 1})
    assert repository.get_instance(made.uuid) == made


def test_end_task_sets_no_other_task(repository: Repository) -> None:
    with pytest.raises(TypeError):
        repository.end_task(make(repository).uuid, task_state="rebooting")


def test_an_update_leaves_the_turn_alone(repository: Repository) -> None:
    made = make(repository)
    moment = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=2)))
    updated = repository.update_instance(made.uuid, launched_at=moment, system_metadata={"image_os": "linux"})
    assert updated.task_state == "spawning"
    stored = repository.get_instance(made.uuid)
    assert stored == updated
    assert stored.launched_at == moment
    assert stored.to_dict()["launched_at"] == "2026-03-01T10:30:15.123456+00:00"
    with pytest.raises(Exception, match="time zone"):
        repository.update_instance(made.uuid, launched_at=datetime(2026, 3, 1))


def test_deletion_is_a_mark(repository: Repository) -> None:
    made = make(repository)
    repository.delete_instance(made.uuid)
    for call in (repository.get_instance, repository.find_instance, repository.end_task, repository.delete_instance):
        with pytest.raises(errors.InstanceNotFound):
            call(made.uuid)
    with pytest.raises(errors.InstanceNotFound):
        repository.begin_task(made.uuid, TaskState.DELETING)
    kept = repository.get_instance(made.uuid, include_deleted=True)
    assert (kept.vm_state, kept.task_state, kept.deleted) == ("deleted", None, made.id)
    assert kept.deleted_at is not None
    assert kept.deleted_at == kept.terminated_at == kept.updated_at


def test_an_action_is_recorded_before_and_after(repository: Repository, database_url: str) -> None:
    number = start(repository, target="nobody")
    other = Repository(database_url)
    (begun,) = other.unfinished_actions("compute-1")
    other.close()
    assert (begun.id, begun.target, begun.instance_uuid, begun.outcome) == (number, "nobody", None, None)
    assert (begun.finished_at, begun.seconds, begun.step) == (None, None, None)

    message, which = "no such instance", str(uuid.uuid4())
    repository.finish_action(
        number,
        outcome=Outcome.REFUSED,
        code="instance_not_found",
        message=message,
        seconds=0.1234567,
        instance_uuid=which,
    )
    (ended,) = repository.list_actions(instance_uuid=which)
    assert (ended.outcome, ended.code, ended.message) == (Outcome.REFUSED, "instance_not_found", message)
    assert ended.seconds == 0.1234567
    assert ended.finished_at is not None
    assert ended.finished_at >= ended.started_at == begun.started_at
    assert repository.unfinished_actions("compute-1") == []


def test_an_action_ends_once(repository: Repository) -> None:
    number = start(repository)
    repository.finish_action(number, outcome=Outcome.SUCCEEDED, seconds=1)
    for which in (number, number + 1):
        with pytest.raises(errors.ActionEnded) as caught:
            repository.finish_action(which, outcome=Outcome.FAILED, seconds=2)
        assert (caught.value.code, caught.value.action) == ("action_ended", which)
    assert [found.outcome for found in repository.list_actions()] == [Outcome.SUCCEEDED]


def test_actions_are_listed_oldest_first_among_the_newest(repository: Repository) -> None:
    which = str(uuid.uuid4())
    numbers = [start(repository, request_id=f"req-{n % 2}", instance_uuid=which, step=f"step {n}") for n in range(6)]
    start(repository, host="compute-2")
    assert [found.id for found in repository.list_actions(instance_uuid=which)] == numbers
    assert [found.id for found in repository.list_actions(instance_uuid=which, limit=2)] == numbers[-2:]
    assert [found.id for found in repository.list_actions(request_id="req-1", limit=3)][:2] == numbers[3::2]
    assert [found.id for found in repository.unfinished_actions("compute-1")] == numbers
    assert repository.list_actions(limit=1)[0].host == "compute-2"
    assert repository.list_actions(instance_uuid=which)[0].step == "step 0"


def test_text_that_describes_is_cut_and_never_an_error(repository: Repository) -> None:
    made = make(repository)
    odd = dict.fromkeys(("action", "target", "request_id", "user", "host", "step"), LONG_AND_ODD)
    number = repository.start_action(**odd)
    repository.finish_action(number, outcome=Outcome.FAILED, code=LONG_AND_ODD, message=LONG_AND_ODD, seconds=0)
    (found,) = repository.list_actions()
    assert found.message == ("\U0001f511é\ufffd?" * 2000)[:1024]
    assert found.target == ("\U0001f511é\ufffd?" * 2000)[:255]
    repository.record_fault(made.uuid, code=LONG_AND_ODD, message=LONG_AND_ODD, request_id=LONG_AND_ODD)
    assert repository.list_faults(made.uuid)[0].message == found.message
    repository.save_agent(made.uuid, version=LONG_AND_ODD, features=[LONG_AND_ODD], protocol=LONG_AND_ODD)


def test_faults_are_kept_with_the_instance(repository: Repository) -> None:
    made = make(repository)
    for number in range(3):
        repository.record_fault(made.uuid, code=f"code_{number}", message="wrong", request_id="req-1")
    repository.delete_instance(made.uuid)
    repository.record_fault(made.uuid, code="code_3", message="later")
    assert [fault.code for fault in repository.list_faults(made.uuid)] == ["code_0", "code_1", "code_2", "code_3"]
    assert [fault.code for fault in repository.list_faults(made.uuid, limit=1)] == ["code_3"]
    with pytest.raises(errors.InstanceNotFound):
        repository.record_fault(str(uuid.uuid4()), code="code", message="wrong")


def test_an_agent_is_replaced_by_what_it_says_next(repository: Repository) -> None:
    made = make(repository)
    assert repository.get_agent(made.uuid) is None
    repository.save_agent(made.uuid, version="1.0", features=[], protocol="legacy")
    seen = datetime(2026, 3, 1, tzinfo=timezone.utc)
    saved = repository.save_agent(
        made.uuid, version="2.0", features=("password", "file"), protocol="sealed", last_seen_at=seen
    )
    assert repository.get_agent(made.uuid) == saved
    assert (saved.version, saved.features, saved.protocol) == ("2.0", ("password", "file"), "sealed")
    assert saved.to_dict()["features"] == ["password", "file"]
    assert saved.to_dict()["last_seen_at"] == "2026-03-01T00:00:00.000000+00:00"
    with pytest.raises(errors.InstanceNotFound):
        repository.save_agent(str(uuid.uuid4()), version="1", features=[], protocol="sealed")


def test_the_identity_and_keys_of_an_agent_are_columns_of_their_own(repository: Repository) -> None:
    made = make(repository)
    plain = repository.save_agent(made.uuid, version="1.0", features=[], protocol="legacy")
    assert (plain.identity, plain.key_id, plain.key_public, plain.clock_offset, plain.guest) == (
        None,
        None,
        None,
        0,
        "",
    )
    told: dict[str, Any] = {
        "identity": "A" * 44,
        "key_id": "0123456789abcdef",
        "key_public": "B" * 44,
        "guest": "vm-uuid",
    }
    for offset in (-(2**31) + 1, 2**31 - 1):
        saved = repository.save_agent(
            made.uuid, version="2.0", features=[], protocol="sealed", clock_offset=offset, **told
        )
        assert repository.get_agent(made.uuid) == saved
        assert {name: getattr(saved, name) for name in told} == told
        assert saved.clock_offset == offset
    for name in told:
        # What identifies is never cut: it would be another one.
        with pytest.raises(ValueError, match=name):
            repository.save_agent(made.uuid, version="3", features=[], protocol="sealed", **{**told, name: "C" * 65})
    assert repository.get_agent(made.uuid) == saved
    # Nothing of what was known stays when it is replaced.
    assert repository.save_agent(made.uuid, version="1.0", features=[], protocol="legacy").identity is None


def test_first_words_at_the_same_time_make_one_agent(repository: Repository) -> None:
    made = make(repository)
    barrier = threading.Barrier(8)

    def speak(number: int) -> None:
        barrier.wait(30)
        repository.save_agent(made.uuid, version=str(number), features=[str(number)], protocol="sealed")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(speak, range(8)))
    saved = repository.get_agent(made.uuid)
    assert saved is not None
    assert (saved.version, saved.features) in {(str(number), (str(number),)) for number in range(8)}


def test_records_are_plain_and_frozen(repository: Repository) -> None:
    made = make(repository)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.host = "elsewhere"  # type: ignore[misc]
    number = start(repository)
    repository.finish_action(number, outcome=Outcome.UNKNOWN, seconds=0.5)
    sent = repository.list_actions()[0].to_dict()
    assert type(sent["outcome"]) is str
    assert sent["outcome"] == "unknown"
    assert made.to_dict()["deleted_at"] is None
    assert set(made.to_dict()) == {field.name for field in dataclasses.fields(Instance)}


def test_a_closed_repository_opens_again(repository: Repository) -> None:
    made = make(repository)
    repository.close()
    assert repository.get_instance(made.uuid) == made
