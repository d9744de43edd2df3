"""What the service's metrics say of orders."""

from __future__ import annotations

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Unknown
from compute_driver.context import RequestContext
from compute_driver.db.repository import Repository
from compute_driver.fake.driver import FakeDriver
from compute_driver.fencing import LeaseLost
from compute_driver.manager import ComputeManager
from compute_driver.memory import RepositoryMemory

CONTEXT = RequestContext("req-1", "ada")


class Setting:
    """A manager that is watched, with an instance `target`."""

    def __init__(self, repository: Repository) -> None:
        # Only now: it reaches for the bus, on whose concurrency the process has to decide first.
        from compute_driver.service.watching import Watching

        self.driver = FakeDriver(RepositoryMemory(repository))
        self.watching = Watching()
        self.manager = ComputeManager(repository, self.driver, "here", observers=[self.watching])
        self.target = self.manager.build_and_run_instance(
            CONTEXT, display_name="web", memory_mb=64, vcpus=1, root_gb=1
        ).uuid

    def lines(self) -> list[str]:
        return self.watching.metrics.exposition().decode().splitlines()


@pytest.fixture
def setting(bus: object, repository: Repository) -> Setting:
    del bus
    return Setting(repository)


def test_orders_and_their_steps_are_counted(setting: Setting) -> None:
    setting.driver.steering.fail("set_admin_password", Failed("broken", "it broke"))
    with pytest.raises(Failed):
        setting.manager.set_admin_password(CONTEXT, setting.target, Password("hunter2 of the guest"))
    lines = setting.lines()
    assert 'xenward_operations_total{action="create",outcome="succeeded"} 1.0' in lines
    assert 'xenward_operations_total{action="set_admin_password",outcome="failed"} 1.0' in lines
    assert 'xenward_steps_total{action="create",outcome="succeeded",step="boot"} 1.0' in lines
    assert 'xenward_operation_seconds_count{action="create"} 1.0' in lines
    assert 'xenward_operations_in_flight{action="set_admin_password"} 0.0' in lines


def test_an_order_that_loses_its_host_is_not_in_flight_any_more(setting: Setting) -> None:
    setting.driver.steering.fail("reboot", LeaseLost("here"))
    with pytest.raises(Unknown):
        setting.manager.reboot_instance(CONTEXT, setting.target, "SOFT")
    lines = setting.lines()
    assert 'xenward_operations_total{action="reboot",outcome="unknown"} 1.0' in lines
    assert 'xenward_operations_in_flight{action="reboot"} 0.0' in lines
