"""What nodes have, and how they go out of service and come back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent_protocol.outcomes import Outcome, Unsuccessful
from compute_driver.driver import ComputeDriver
from compute_driver.states import PowerState

from .conftest import Make
from .environments import Environment
from .wanted import AGENTLESS, Steps, Wanted, code


@pytest.fixture
def node(environment: Environment, driver: ComputeDriver) -> Iterator[str]:
    """The node to try things with, which is in service again afterwards."""
    it = environment.nodes[1]
    yield it
    environment.let_be_started(it, True)
    driver.host_power_action(it, "startup")
    driver.set_host_enabled(it, True)
    environment.let_be_started(it, False)
    assert environment.is_live(it) and environment.is_enabled(it)


def test_all_nodes_are_there_and_can_be_used(environment: Environment, driver: ComputeDriver) -> None:
    assert driver.get_available_nodes() == sorted(environment.nodes)
    for name in environment.nodes:
        state = driver.check_node(name)
        assert (state.hypervisor_hostname, state.enabled, state.live) == (name, True, True)
        assert (state.helper, state.code, state.message) == (Outcome.SUCCEEDED, "", "")
        assert state.helper_version
        assert driver.get_host_uptime(name) >= 0


def test_what_a_guest_uses_is_counted_at_its_node(environment: Environment, driver: ComputeDriver, make: Make) -> None:
    here, there = environment.nodes
    before = {name: driver.get_available_resource(name) for name in environment.nodes}
    guest = make(sizes=(256, 2, 1), node=there)
    after = driver.get_available_resource(there)
    assert after.hypervisor_hostname == there
    assert after.vcpus_used - before[there].vcpus_used == 2
    assert after.memory_mb_used - before[there].memory_mb_used >= 256
    assert driver.get_available_resource(here).vcpus_used == before[here].vcpus_used
    driver.power_off(guest, timeout=0)
    assert driver.get_available_resource(there).vcpus_used == before[there].vcpus_used


def test_the_inventory_is_what_the_node_has(environment: Environment, driver: ComputeDriver) -> None:
    for name in environment.nodes:
        has, offers = driver.get_available_resource(name), driver.get_inventory(name)
        totals = {kind: item.total for kind, item in offers.items()}
        assert totals == {"VCPU": has.vcpus, "MEMORY_MB": has.memory_mb, "DISK_GB": has.local_gb}
        assert all(0 < item.max_unit <= item.total - item.reserved for item in offers.values())


def test_a_node_takes_no_guests_until_it_may_again(
    environment: Environment, driver: ComputeDriver, make: Make, node: str
) -> None:
    driver.set_host_enabled(node, False)
    driver.set_host_enabled(node, False)
    assert not environment.is_enabled(node)
    assert not driver.check_node(node).enabled
    guest, before = Wanted(), environment.left()
    with pytest.raises(Unsuccessful):
        driver.spawn(guest, image=AGENTLESS, node=node, progress=Steps())
    assert environment.left() == before
    assert environment.node(make()) == environment.nodes[0]
    driver.set_host_enabled(node, True)
    assert environment.is_enabled(node)
    assert environment.node(make(node=node)) == node


def test_maintenance_moves_what_runs(environment: Environment, driver: ComputeDriver, make: Make, node: str) -> None:
    guests = [make(node=node), make(node=node)]
    driver.host_maintenance_mode(node, True)
    assert not environment.is_enabled(node)
    assert [environment.node(guest) for guest in guests] == [environment.nodes[0]] * 2
    assert [environment.state(guest) for guest in guests] == [PowerState.RUNNING] * 2
    driver.host_maintenance_mode(node, True)
    driver.host_maintenance_mode(node, False)
    assert environment.is_enabled(node)
    assert [environment.node(guest) for guest in guests] == [environment.nodes[0]] * 2


def test_maintenance_that_a_guest_is_in_the_way_of_changes_nothing(
    environment: Environment, driver: ComputeDriver, make: Make, node: str
) -> None:
    running, paused = make(node=node), make(node=node)
    driver.pause(paused)
    with pytest.raises(Unsuccessful) as caught:
        driver.host_maintenance_mode(node, True)
    assert caught.value.code == "guest_not_moved"
    assert paused.uuid in str(caught.value)
    assert environment.is_enabled(node)
    assert (environment.node(running), environment.node(paused)) == (node, node)
    assert environment.state(paused) is PowerState.PAUSED


def test_a_node_in_service_keeps_its_power(environment: Environment, driver: ComputeDriver, node: str) -> None:
    for action in ("shutdown", "reboot"):
        assert code(lambda action=action: driver.host_power_action(node, action)) == "node_not_in_maintenance"
    assert code(lambda: driver.host_power_action(node, "explode")) == "bad_power_action"
    driver.host_power_action(node, "startup")
    assert environment.is_live(node) and environment.is_enabled(node)


def test_a_node_in_maintenance_goes_down_and_comes_up(
    environment: Environment, driver: ComputeDriver, node: str
) -> None:
    driver.host_maintenance_mode(node, True)
    driver.host_power_action(node, "shutdown")
    assert not environment.is_live(node)
    state = driver.check_node(node)
    assert (state.live, state.helper, state.code) == (False, Outcome.UNREACHABLE, "node_down")
    environment.let_be_started(node, False)
    assert code(lambda: driver.host_power_action(node, "startup")) == "power_on_not_configured"
    assert not environment.is_live(node)
    environment.let_be_started(node, True)
    driver.host_power_action(node, "startup")
    assert environment.is_live(node)
    assert driver.check_node(node).live


def test_a_node_in_maintenance_reboots(environment: Environment, driver: ComputeDriver, node: str) -> None:
    driver.host_maintenance_mode(node, True)
    driver.host_power_action(node, "reboot")
    driver.host_power_action(node, "startup")
    assert environment.is_live(node)
