"""What each verb says of an instance that has no guest, and that it makes none."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from compute_driver.driver import ComputeDriver
from compute_driver.errors import InstanceNotFound
from compute_driver.resources import MigrationTarget
from compute_driver.volumes import VdiConnection, Volume

from .environments import Environment
from .wanted import AGENTLESS, FILE, FIRST, KEY, Steps, Wanted, code, interface

NO_SERVICE: Any = None
VOLUME = Volume("volume-1", VdiConnection("00000000-0000-4000-8000-000000000001"))

VERBS: dict[str, Callable[[ComputeDriver, Wanted], object]] = {
    "rebuild": lambda it, who: it.rebuild(who, image=AGENTLESS, progress=Steps()),
    "power_on": lambda it, who: it.power_on(who),
    "power_off": lambda it, who: it.power_off(who),
    "reboot": lambda it, who: it.reboot(who, "HARD"),
    "pause": lambda it, who: it.pause(who),
    "unpause": lambda it, who: it.unpause(who),
    "suspend": lambda it, who: it.suspend(who),
    "resume": lambda it, who: it.resume(who),
    "rescue": lambda it, who: it.rescue(who, image=AGENTLESS, rescue_password=None, progress=Steps()),
    "unrescue": lambda it, who: it.unrescue(who),
    "snapshot": lambda it, who: it.snapshot(who, service=NO_SERVICE, name="copy", disk_format="vhd", progress=Steps()),
    "quiesce": lambda it, who: it.quiesce(who, timeout=5.0),
    "unquiesce": lambda it, who: it.unquiesce(who),
    "migrate_disk_and_power_off": lambda it, who: it.migrate_disk_and_power_off(who, progress=Steps()),
    "finish_migration": lambda it, who: it.finish_migration(who, progress=Steps()),
    "confirm_migration": lambda it, who: it.confirm_migration(who),
    "finish_revert_migration": lambda it, who: it.finish_revert_migration(who),
    "live_migration": lambda it, who: it.live_migration(who, MigrationTarget("pool", "node", "host"), progress=Steps()),
    "post_live_migration_at_destination": lambda it, who: it.post_live_migration_at_destination(who),
    "attach_volume": lambda it, who: it.attach_volume(who, VOLUME),
    "detach_volume": lambda it, who: it.detach_volume(who, VOLUME),
    "attach_interface": lambda it, who: it.attach_interface(who, interface(1)),
    "detach_interface": lambda it, who: it.detach_interface(who, interface(1)),
    "set_admin_password": lambda it, who: it.set_admin_password(who, FIRST),
    "inject_file": lambda it, who: it.inject_file(who, FILE),
    "add_ssh_keys": lambda it, who: it.add_ssh_keys(who, [KEY]),
    "inject_network_info": lambda it, who: it.inject_network_info(who, [interface(1)]),
    "reset_network": lambda it, who: it.reset_network(who),
    "change_instance_metadata": lambda it, who: it.change_instance_metadata(who, {"key": ["+", "value"]}),
    "trust_agent": lambda it, who: it.trust_agent(who),
    "send_sealed": lambda it, who: it.send_sealed(who, "id", "value", ""),
    "get_info": lambda it, who: it.get_info(who),
    "get_console_output": lambda it, who: it.get_console_output(who),
    "get_vnc_console": lambda it, who: it.get_vnc_console(who),
    "get_diagnostics": lambda it, who: it.get_diagnostics(who),
}

OTHERS = {"spawn", "destroy", "cleanup", "await_quiet", "check_can_live_migrate_destination"}
"""Verbs that can be asked of an instance without a guest."""


def test_no_verb_is_forgotten() -> None:
    takes_one = {
        name
        for name in ComputeDriver.__abstractmethods__
        if "instance" in inspect.signature(getattr(ComputeDriver, name)).parameters
    }
    assert takes_one == set(VERBS) | OTHERS


@pytest.mark.parametrize("verb", VERBS)
def test_no_guest_is_not_found_and_none_is_made(environment: Environment, driver: ComputeDriver, verb: str) -> None:
    who, before = Wanted(), environment.left()
    with pytest.raises(InstanceNotFound) as caught:
        VERBS[verb](driver, who)
    assert (caught.value.code, caught.value.name_or_uuid) == ("instance_not_found", who.uuid)
    assert environment.state(who) is None
    assert environment.left() == before


@pytest.mark.parametrize("verb", ["destroy", "cleanup"])
def test_what_removes_guests_succeeds_without_one(environment: Environment, driver: ComputeDriver, verb: str) -> None:
    getattr(driver, verb)(Wanted())


NODE_VERBS: dict[str, Callable[[ComputeDriver, str], object]] = {
    "check_node": lambda it, node: it.check_node(node),
    "get_available_resource": lambda it, node: it.get_available_resource(node),
    "get_inventory": lambda it, node: it.get_inventory(node),
    "get_host_uptime": lambda it, node: it.get_host_uptime(node),
    "set_host_enabled": lambda it, node: it.set_host_enabled(node, False),
    "host_maintenance_mode": lambda it, node: it.host_maintenance_mode(node, True),
    "host_power_action": lambda it, node: it.host_power_action(node, "reboot"),
    "spawn": lambda it, node: it.spawn(Wanted(), image=AGENTLESS, node=node, progress=Steps()),
    "check_can_live_migrate_destination": lambda it, node: it.check_can_live_migrate_destination(Wanted(), node=node),
}


@pytest.mark.parametrize("verb", NODE_VERBS)
def test_a_node_that_there_is_not_is_refused(environment: Environment, driver: ComputeDriver, verb: str) -> None:
    before = environment.left()
    assert code(lambda: NODE_VERBS[verb](driver, "elsewhere")) == "node_not_found"
    assert environment.left() == before


def test_every_verb_of_nodes_is_tried() -> None:
    takes_one = {
        name
        for name in ComputeDriver.__abstractmethods__
        if "node" in inspect.signature(getattr(ComputeDriver, name)).parameters
    }
    assert takes_one - set(NODE_VERBS) == {"migrate_disk_and_power_off"}
