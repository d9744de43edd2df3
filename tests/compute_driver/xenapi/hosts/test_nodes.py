"""Hosts: what they have, maintenance with running guests, power."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused, Unsuccessful, Unsupported
from compute_driver.resources import InventoryItem
from compute_driver.xenapi.connection.session import XenServer
from compute_driver.xenapi.hosts import resources as host

from ..nodes_pool import FIRST, SECOND, NodesPool, nodes_pool
from ..waiting import eventually

GIB = 1024**3


@pytest.fixture(scope="module")
def shared() -> Iterator[NodesPool]:
    with nodes_pool() as it:
        yield it


@pytest.fixture
def pool(shared: NodesPool) -> Iterator[NodesPool]:
    yield shared
    shared.restore()


class TestNames:
    def test_they_are_the_hosts_own(self, pool: NodesPool) -> None:
        assert pool.driver.get_available_nodes() == [FIRST, SECOND]

    def test_two_of_one_name_are_refused(self, pool: NodesPool) -> None:
        second = pool.host(SECOND)
        pool.server.call("host.set_hostname", second, FIRST)
        try:
            with pytest.raises(Refused) as caught:
                pool.driver.get_available_nodes()
        finally:
            pool.server.call("host.set_hostname", second, SECOND)
        assert caught.value.code == "node_name_ambiguous"

    def test_one_that_is_not_there(self, pool: NodesPool) -> None:
        for ask in (pool.driver.check_node, pool.driver.get_inventory, pool.driver.get_host_uptime):
            with pytest.raises(Refused) as caught:
                ask("nobody")
            assert caught.value.code == "node_not_found"


class TestResources:
    def test_of_an_empty_host(self, pool: NodesPool) -> None:
        it = pool.driver.get_available_resource(SECOND)
        assert (it.hypervisor_hostname, it.hypervisor_type, it.hypervisor_version) == (SECOND, "XenServer", 8003000)
        assert (it.vcpus, it.vcpus_used, it.memory_mb, it.memory_mb_used) == (16, 0, 65536, 2048 + 512)
        assert it.cpu_info["topology"] == {"sockets": 1, "cores": 8, "threads": 2}
        assert it.host_ip == "127.0.0.1"

    def test_a_guest_takes_its_part(self, pool: NodesPool) -> None:
        before = pool.driver.get_available_resource(SECOND)
        pool.guest(SECOND)
        after = pool.driver.get_available_resource(SECOND)
        assert after.vcpus_used == 2
        assert after.memory_mb_used >= before.memory_mb_used + 64
        assert pool.driver.get_available_resource(FIRST).vcpus_used == 0

    def test_storage_that_both_share_counts_once(self, pool: NodesPool) -> None:
        sr = pool.server.call("pool.get_default_SR", pool.server.call("pool.get_all")[0])
        total = int(pool.server.call("SR.get_physical_size", sr)) // GIB
        for told in (
            [pool.driver.get_available_resource(node).local_gb for node in (FIRST, SECOND)],
            [pool.driver.get_inventory(node)["DISK_GB"].total for node in (FIRST, SECOND)],
        ):
            assert sum(told) == total
            assert told[0] == told[1]

    def test_a_host_without_the_storage_offers_none(self, pool: NodesPool) -> None:
        second = pool.host(SECOND)
        sr = pool.server.call("pool.get_default_SR", pool.server.call("pool.get_all")[0])
        (pbd,) = [
            ref
            for ref, record in pool.server.call("PBD.get_all_records").items()
            if record["host"] == second and record["SR"] == sr
        ]
        whole = int(pool.server.call("SR.get_physical_size", sr)) // GIB
        pool.server.call("PBD.unplug", pbd)
        try:
            pool.server.call("pool.get_all")
            pool.driver._server.events.barrier()
            assert pool.driver.get_available_resource(SECOND).local_gb == 0
            assert "DISK_GB" not in pool.driver.get_inventory(SECOND)
            assert pool.driver.get_available_resource(FIRST).local_gb == whole
        finally:
            pool.server.call("PBD.plug", pbd)

    def test_inventory_reserves_what_is_not_for_guests(self, pool: NodesPool) -> None:
        it = pool.driver.get_inventory(FIRST)
        assert it["VCPU"] == InventoryItem(total=16, max_unit=16)
        assert it["MEMORY_MB"] == InventoryItem(total=65536, reserved=2560, max_unit=65536 - 2560)

    def test_uptime_is_by_the_host_s_clock(self, pool: NodesPool) -> None:
        ref = pool.host(SECOND)
        config = pool.server.call("host.get_other_config", ref)
        now = host.clock(pool.server, ref)
        try:
            for boot, least in ((f"{int(now) - 1000}.", 1000.0), ("9e9", 0.0)):
                pool.server.call("host.set_other_config", ref, {**config, "boot_time": boot})
                pool.driver._server.events.barrier()
                assert least <= pool.driver.get_host_uptime(SECOND) <= least + time.time() - now + 5
            for bad in ({}, {"boot_time": "yesterday"}, {"boot_time": "nan"}):
                pool.server.call("host.set_other_config", ref, bad)
                pool.driver._server.events.barrier()
                with pytest.raises(Unsupported) as caught:
                    pool.driver.get_host_uptime(SECOND)
                assert caught.value.code == "boot_time_unknown"
        finally:
            pool.server.call("host.set_other_config", ref, config)

    @pytest.mark.parametrize(
        ("text", "number"),
        [("8.3.0", 8003000), ("8.4", 8004000), ("9", 9000000), ("10.2.30-rc1", 10002030), ("", 0), ("new", 0)],
    )
    def test_versions_are_numbers(self, text: str, number: int) -> None:
        assert host.version(text) == number

    @pytest.mark.parametrize("text", ["20260821T02:00:23Z", "2026-08-21T02:00:23Z", "20260821T02:00:23"])
    def test_times(self, text: str) -> None:
        assert host.parse_time(text) == 1787277623.0

    @pytest.mark.parametrize("text", ["", "now", "20261341T99:00:00Z", "20260821T02:00:23Zzz"])
    def test_what_is_no_time(self, text: str) -> None:
        assert host.parse_time(text) is None


class TestMaintenance:
    def test_disabled_hosts_take_no_guests(self, pool: NodesPool) -> None:
        pool.driver.set_host_enabled(SECOND, False)
        assert not pool.driver.check_node(SECOND).enabled
        with pytest.raises(Unsuccessful):
            pool.guest(SECOND)
        pool.driver.set_host_enabled(SECOND, True)
        assert pool.driver.check_node(SECOND).enabled
        assert pool.node_of(pool.guest(SECOND)) == SECOND

    def test_guests_leave_with_their_agents(self, pool: NodesPool) -> None:
        guests = [pool.guest(SECOND) for _ in range(2)]
        pids = {it.uuid: self.pid(pool, it) for it in guests}
        pool.driver.host_maintenance_mode(SECOND, True)
        assert not pool.driver.check_node(SECOND).enabled
        for guest in guests:
            assert pool.node_of(guest) == FIRST
            assert self.pid(pool, guest) == pids[guest.uuid]
            pool.driver.set_admin_password(guest, Password("Correct-Horse-9"))
        pool.driver.host_maintenance_mode(SECOND, False)
        assert pool.driver.check_node(SECOND).enabled

    def pid(self, pool: NodesPool, guest: Any) -> str:
        uuid = pool.server.call("VM.get_uuid", pool.vm(guest))
        return (pool.simulator.state / "guests" / uuid / "agent.pid").read_text()

    def test_a_guest_that_stays_keeps_all_where_they_were(self, pool: NodesPool) -> None:
        guests = [pool.guest(SECOND) for _ in range(3)]
        stubborn = guests[1]
        pool.server.call("VM.add_to_blocked_operations", pool.vm(stubborn), "pool_migrate", "mine")
        with pytest.raises(Unsuccessful) as caught:
            pool.driver.host_maintenance_mode(SECOND, True)
        assert caught.value.code == "guest_not_moved"
        assert stubborn.uuid in caught.value.message
        assert [pool.node_of(it) for it in guests] == [SECOND] * 3
        assert pool.driver.check_node(SECOND).enabled

    def test_a_paused_guest_is_seen_before_any_moves(self, pool: NodesPool, monkeypatch: pytest.MonkeyPatch) -> None:
        pool.guest(SECOND)
        paused = pool.guest(SECOND)
        pool.driver.pause(paused)
        ran: list[str] = []
        real = XenServer.run

        def run(server: XenServer, method: str, *arguments: Any, **named: Any) -> Any:
            ran.append(method)
            return real(server, method, *arguments, **named)

        monkeypatch.setattr(XenServer, "run", run)
        with pytest.raises(Refused) as caught:
            pool.driver.host_maintenance_mode(SECOND, True)
        assert paused.uuid in caught.value.message and "paused" in caught.value.message
        assert ran == []
        assert pool.driver.check_node(SECOND).enabled

    def test_without_another_host_guests_stay(self, pool: NodesPool) -> None:
        guest = pool.guest(SECOND)
        pool.driver.set_host_enabled(FIRST, False)
        with pytest.raises(Unsuccessful) as caught:
            pool.driver.host_maintenance_mode(SECOND, True)
        assert guest.uuid in caught.value.message
        assert pool.node_of(guest) == SECOND
        assert pool.driver.check_node(SECOND).enabled


class TestPower:
    def test_only_in_maintenance(self, pool: NodesPool) -> None:
        pool.guest(SECOND)
        for action in ("shutdown", "reboot"):
            with pytest.raises(Refused) as caught:
                pool.driver.host_power_action(SECOND, action)
            assert caught.value.code == "node_not_in_maintenance"
        pool.driver.set_host_enabled(SECOND, False)
        with pytest.raises(Refused) as caught:
            pool.driver.host_power_action(SECOND, "shutdown")
        assert caught.value.code == "node_not_in_maintenance"
        assert pool.driver.check_node(SECOND).live

    def test_the_coordinator_stays(self, pool: NodesPool) -> None:
        pool.driver.host_maintenance_mode(FIRST, True)
        with pytest.raises(Refused) as caught:
            pool.driver.host_power_action(FIRST, "reboot")
        assert caught.value.code == "node_is_coordinator"

    def test_down_and_up(self, pool: NodesPool) -> None:
        second = pool.host(SECOND)
        pool.driver.host_maintenance_mode(SECOND, True)
        pool.driver.host_power_action(SECOND, "reboot")
        pool.driver.host_maintenance_mode(SECOND, True)
        pool.driver._versions.require(second)
        assert second in pool.driver._versions._good
        pool.driver.host_power_action(SECOND, "shutdown")
        # Whatever comes back may have another plugin.
        eventually(lambda: second not in pool.driver._versions._good)
        state = pool.driver.check_node(SECOND)
        assert (state.live, state.code) == (False, "node_down")
        with pytest.raises(Unsupported) as caught:
            pool.driver.host_power_action(SECOND, "startup")
        assert caught.value.code == "power_on_not_configured"
        pool.server.call("host.set_power_on_mode", second, "wake-on-lan", {})
        pool.driver.host_power_action(SECOND, "startup")
        assert pool.driver.check_node(SECOND).live
        pool.driver.host_power_action(SECOND, "startup")

    def test_what_is_no_action(self, pool: NodesPool) -> None:
        with pytest.raises(Refused) as caught:
            pool.driver.host_power_action(SECOND, "explode")
        assert caught.value.code == "bad_power_action"
