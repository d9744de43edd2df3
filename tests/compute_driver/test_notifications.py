"""What the rest of the cloud is told of orders, by oslo.messaging's own driver for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed
from compute_driver.context import RequestContext
from compute_driver.db.repository import Repository
from compute_driver.fake.driver import FakeDriver
from compute_driver.manager import ComputeManager
from compute_driver.memory import RepositoryMemory

from .bus import Switch

SECRET = "hunter2-of-the-guest"
CONTEXT = RequestContext("req-1", "ada")
NEW: dict[str, Any] = {"display_name": "web", "memory_mb": 512, "vcpus": 1, "root_gb": 1}


@pytest.fixture
def told(bus: tuple[Any, Switch]) -> Iterator[list[tuple[Any, ...]]]:
    """What was sent: context, message, priority, retries."""
    from oslo_messaging.notify import _impl_test as collected

    conf = bus[0].conf
    conf.set_override("driver", ["test"], group="oslo_messaging_notifications")
    collected.reset()
    yield collected.NOTIFICATIONS
    conf.clear_override("driver", group="oslo_messaging_notifications")


@pytest.fixture
def driver(repository: Repository) -> FakeDriver:
    return FakeDriver(RepositoryMemory(repository))


@pytest.fixture
def manager(bus: tuple[Any, Switch], repository: Repository, driver: FakeDriver, told: object) -> ComputeManager:
    # `told` comes first: who is told is decided when a notifier is made.
    del told
    from compute_driver.notifications import Notifications

    return ComputeManager(repository, driver, "here", observers=[Notifications(bus[0].conf, "here")])


def test_beginning_and_end_of_an_order_are_told(manager: ComputeManager, told: list[tuple[Any, ...]]) -> None:
    instance = manager.build_and_run_instance(CONTEXT, **NEW, admin_password=Password(SECRET))
    assert [(message["event_type"], priority) for _, message, priority, _ in told] == [
        ("instance.create.start", "INFO"),
        ("instance.create.end", "INFO"),
    ]
    (context, first, *_), (_, last, *_) = told
    assert (context["request_id"], context["user"]) == ("req-1", "ada")
    assert first["publisher_id"] == "compute.here"
    assert (first["payload"]["outcome"], first["payload"]["instance"]) == (None, None)
    payload = last["payload"]
    assert (payload["request_id"], payload["host"], payload["action"]) == ("req-1", "here", "create")
    assert (payload["outcome"], payload["target"]) == ("succeeded", instance.uuid)
    assert (payload["instance"]["uuid"], payload["instance"]["vm_state"]) == (instance.uuid, "active")
    assert payload["instance"]["task_state"] is None
    assert SECRET not in repr(told)


def test_an_order_that_does_not_succeed_is_told_with_its_outcome(
    manager: ComputeManager, driver: FakeDriver, told: list[tuple[Any, ...]]
) -> None:
    manager.build_and_run_instance(CONTEXT, **NEW)
    told.clear()
    driver.steering.fail("set_admin_password", Failed("broken", "it broke"))
    with pytest.raises(Failed):
        manager.set_admin_password(CONTEXT, "web", Password(SECRET))
    (_, first, *_), (_, last, priority, _) = told
    assert (first["event_type"], last["event_type"], priority) == (
        "instance.set_admin_password.start",
        "instance.set_admin_password.error",
        "ERROR",
    )
    payload = last["payload"]
    assert (payload["outcome"], payload["code"], payload["message"]) == ("failed", "broken", "it broke")
    assert SECRET not in repr(told)
