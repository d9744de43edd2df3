"""What the manager tells and nothing changes by, and what it does to nodes."""

from __future__ import annotations

import logging

import pytest

from agent_protocol.outcomes import Unreachable
from compute_driver.errors import InstanceNotFound, XenServerUnreachable

from ..bench import CONTEXT, FIRST_NODE, SECOND_NODE, UUID, Bench

AWAY = XenServerUnreachable("xen-1", "Connection refused")


def test_init_host_does_not_keep_the_service_from_starting(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.driver.steering.fail("init_host", AWAY)
    bench.manager.init_host()
    assert "cannot be reached" in caplog.text


def test_the_power_state_is_what_the_hypervisor_says_now(bench: Bench) -> None:
    made = bench.have()
    bench.driver.shut_down_inside(made)
    instance, agent, power_state = bench.manager.get_instance("web")
    assert (instance, power_state) == (made, "shutdown")
    assert agent is not None
    bench.driver.steering.fail("get_info", AWAY)
    assert bench.manager.get_instance(UUID)[2] == "unknown"


def test_list_instances_is_of_this_host(bench: Bench) -> None:
    bench.record()
    bench.record(name="other", host="there", uuid="there")
    assert [instance.uuid for instance in bench.manager.list_instances()] == [UUID]


def test_actions_by_name_uuid_and_of_the_deleted(bench: Bench) -> None:
    uuid = bench.create(admin_password=None).uuid
    bench.manager.stop_instance(CONTEXT, uuid)
    by_name = bench.manager.list_actions("web")
    assert [row.action for row in by_name if row.step is None] == ["create", "stop"]
    assert bench.manager.list_actions(uuid) == by_name
    bench.manager.terminate_instance(CONTEXT, "web")
    assert [row.action for row in bench.manager.list_actions(uuid)][-1] == "delete"
    for target in ("web", "nobody"):
        with pytest.raises(InstanceNotFound):
            bench.manager.list_actions(target)
    everything = bench.manager.list_actions(None)
    assert len(everything) == len(by_name) + 1
    assert bench.manager.list_actions(None, "req-1") == bench.manager.list_actions(uuid, "req-1") == everything
    assert bench.manager.list_actions(None, "req-2") == []


def test_consoles_and_diagnostics(bench: Bench) -> None:
    instance = bench.have()
    bench.driver.write_console(instance, b"login: \xff")
    assert bench.manager.get_console_output("web").endswith(b"login: \xff")
    assert bench.manager.get_vnc_console("web").token
    assert bench.manager.get_diagnostics("web").state == "running"


# Nodes


def test_nodes_are_told_and_steered(bench: Bench) -> None:
    assert [node["hypervisor_hostname"] for node in bench.manager.list_nodes()] == [FIRST_NODE, SECOND_NODE]
    assert bench.manager.list_nodes()[0]["vcpus"] == 16
    assert [state.enabled for state in bench.manager.check_nodes([])] == [True, True]
    assert bench.manager.get_inventory(FIRST_NODE)["VCPU"]["total"] == 16
    assert bench.manager.get_host_uptime(FIRST_NODE) >= 0
    bench.manager.set_host_enabled(FIRST_NODE, False)
    assert [state.enabled for state in bench.manager.check_nodes([FIRST_NODE])] == [False]
    bench.manager.host_maintenance_mode(FIRST_NODE, False)
    assert bench.manager.check_nodes([FIRST_NODE])[0].enabled
    bench.manager.host_maintenance_mode(FIRST_NODE, True)
    bench.manager.host_power_action(FIRST_NODE, "shutdown")
    assert [state.live for state in bench.manager.check_nodes([FIRST_NODE])] == [False]


def test_a_node_that_does_not_answer_is_told_without_what_it_has(bench: Bench) -> None:
    bench.driver.steering.fail("get_available_resource", Unreachable("away", "it is away"))
    first, second = bench.manager.list_nodes()
    assert "vcpus" not in first
    assert second["vcpus"] == 16


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
    bench.driver.steering.fail("manage_image_cache", XenServerUnreachable("xenserver", "no route"))
    bench.manager.manage_image_cache(60.0)
    assert "no route" in caplog.text


def test_half_made_disks_that_nobody_works_on_are_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[float] = []

    def remove(*, older_than: float) -> list[str]:
        asked.append(older_than)
        return ["disk-1"]

    monkeypatch.setattr(bench.driver, "remove_abandoned", remove)
    bench.manager.remove_abandoned(60.0)
    assert asked == [60.0]
    assert "disk-1" in caplog.text


def test_half_made_disks_that_cannot_be_looked_for_end_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.driver.steering.fail("remove_abandoned", XenServerUnreachable("xenserver", "no route"))
    bench.manager.remove_abandoned(60.0)
    assert "no route" in caplog.text
