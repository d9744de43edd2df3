"""Networks, interfaces, VLANs, and what can be said about a VIF's addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import XenAPI

from agent_protocol.xenstore import connect
from tools.simulator.process import SimulatorProcess

from .support import NULL, Vm, failure, until
from .test_vm import vif_record


@pytest.fixture
def network(session: XenAPI.Session) -> Iterator[str]:
    api = session.xenapi
    ref = api.network.create({"name_label": "n", "other_config": {}})
    yield ref
    for vlan in api.VLAN.get_all():
        api.VLAN.destroy(vlan)
    api.network.destroy(ref)


@pytest.fixture
def pif(session: XenAPI.Session) -> str:
    ref: str = session.xenapi.PIF.get_all_where('field "physical"="true"')[0]
    return ref


def test_bridges(session: XenAPI.Session, network: str) -> None:
    api = session.xenapi.network
    assert api.get_bridge(network) == "xapi0"
    for bad in ("xenbr9", "xapi7", "vif1.0", "tap1", "eth0", "b" * 16):
        assert failure(api.create, {"other_config": {}, "bridge": bad}) == ["INVALID_VALUE", "bridge", bad]
    named = api.create({"other_config": {}, "bridge": "br1", "MTU": "0"})
    assert api.get_MTU(named) == "1500"
    assert failure(api.create, {"other_config": {}, "bridge": "br1"}) == ["BRIDGE_NAME_EXISTS", "br1"]
    api.set_other_config(named, {"is_host_internal_management_network": "true"})
    assert failure(api.destroy, named) == ["CANNOT_DESTROY_SYSTEM_NETWORK", named]
    api.set_other_config(named, {})
    api.destroy(named)
    introduced = api.pool_introduce("a", "b", "9000", {}, "xenbr7", True, [])
    assert (api.get_MTU(introduced), api.get_bridge(introduced)) == ("9000", "xenbr7")
    api.destroy(introduced)


def test_purposes(session: XenAPI.Session, network: str) -> None:
    api = session.xenapi.network
    other = api.create({"other_config": {}})
    api.add_purpose(network, "nbd")
    assert failure(api.add_purpose, other, "insecure_nbd") == [
        "NETWORK_INCOMPATIBLE_PURPOSES",
        "insecure_nbd",
        "nbd",
    ]
    api.remove_purpose(network, "nbd")
    api.add_purpose(other, "insecure_nbd")
    api.destroy(other)


def test_vlans(session: XenAPI.Session, network: str, pif: str) -> None:
    api = session.xenapi
    host = api.host.get_all()[0]
    vlan = api.VLAN.create(pif, "100", network)
    untagged = api.VLAN.get_untagged_PIF(vlan)
    record = api.PIF.get_record(untagged)
    assert (record["VLAN"], record["device"], record["physical"]) == ("100", api.PIF.get_device(pif), False)
    assert record["VLAN_master_of"] == vlan
    assert api.PIF.get_VLAN_slave_of(pif) == [vlan]
    assert api.network.get_PIFs(network) == [untagged]
    assert failure(api.network.destroy, network) == ["NETWORK_CONTAINS_PIF", untagged]
    assert failure(api.VLAN.create, pif, "101", network) == ["NETWORK_ALREADY_CONNECTED", host, untagged]
    other = api.network.create({"other_config": {}})
    assert failure(api.VLAN.create, pif, "100", other) == ["PIF_VLAN_EXISTS", api.PIF.get_device(pif)]
    for bad in ("4095", "-1"):
        assert failure(api.VLAN.create, pif, bad, other) == ["VLAN_TAG_INVALID", bad]
    assert failure(api.VLAN.create, untagged, "7", other) == ["PIF_IS_VLAN", untagged]
    assert failure(api.PIF.forget, pif) == ["PIF_VLAN_STILL_EXISTS", pif]
    assert failure(api.PIF.destroy, pif) == ["PIF_IS_PHYSICAL", pif]
    api.PIF.unplug(untagged)
    assert not api.PIF.get_currently_attached(untagged)
    api.network.attach(network, host)
    assert api.PIF.get_currently_attached(untagged)
    api.VLAN.destroy(vlan)
    assert failure(api.PIF.get_record, untagged)[0] == "HANDLE_INVALID"
    assert api.PIF.get_VLAN_slave_of(pif) == []
    (made,) = api.pool.create_VLAN_from_PIF(pif, other, "8")
    api.PIF.destroy(made)
    (made,) = api.pool.create_VLAN("eth0", other, "9")
    assert api.PIF.get_VLAN(made) == "9"
    assert failure(api.PIF.create_VLAN, "eth9", other, host, "9") == ["PIF_DEVICE_NOT_FOUND"]
    api.PIF.destroy(made)
    assert api.VLAN.get_all() == []
    api.network.destroy(other)


def test_a_vlan_in_use(session: XenAPI.Session, network: str, pif: str, vm: Vm) -> None:
    api = session.xenapi
    vlan = api.VLAN.create(pif, "100", network)
    vif = api.VIF.create(vif_record(vm, network))
    vm.start(False, False)
    assert failure(api.VLAN.destroy, vlan) == ["VIF_IN_USE", network, vif]
    assert failure(api.network.set_default_locking_mode, network, "disabled") == ["VIF_IN_USE", network, vif]
    vm.hard_shutdown()
    api.network.set_default_locking_mode(network, "disabled")


def test_physical_interfaces(session: XenAPI.Session, pif: str) -> None:
    api = session.xenapi.PIF
    host = session.xenapi.host.get_all()[0]
    assert failure(api.unplug, pif) == ["PIF_IS_MANAGEMENT_INTERFACE", pif]
    api.plug(pif)
    api.scan(host)
    assert failure(api.introduce, host, "", "eth0") == ["DUPLICATE_PIF_DEVICE_NAME", "eth0"]
    code = "COULD_NOT_FIND_NETWORK_INTERFACE_WITH_SPECIFIED_DEVICE_NAME_AND_MAC_ADDRESS"
    assert failure(api.introduce, host, "AA:BB:CC:DD:EE:FF", "eth9") == [code, "eth9", "aa:bb:cc:dd:ee:ff"]
    before = api.get_record(pif)
    for bad, name in (
        (("x", "255.0.0.0", "", ""), "IP"),
        (("192.0.2.1", "", "", ""), "netmask"),
        (("192.0.2.1", "255.0.0.0", "x", ""), "gateway"),
        (("192.0.2.1", "255.0.0.0", "", "192.0.2.3,x"), "DNS"),
    ):
        assert failure(api.reconfigure_ip, pif, "Static", *bad) == ["INVALID_IP_ADDRESS_SPECIFIED", name]
    assert failure(api.reconfigure_ip, pif, "None", "", "", "", "") == ["PIF_IS_MANAGEMENT_INTERFACE", pif]
    assert api.get_record(pif) == before
    api.reconfigure_ip(pif, "Static", before["IP"], before["netmask"], "127.0.0.9", "192.0.2.3, 192.0.2.4")
    assert api.get_gateway(pif) == "127.0.0.9"
    assert failure(api.reconfigure_ipv6, pif, "Static", "x", "", "") == ["INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6"]
    api.reconfigure_ipv6(pif, "Static", "2001:db8::1/64", "2001:db8::2", "")
    assert api.get_IPv6(pif) == ["2001:db8::1/64"]
    api.set_disallow_unplug(pif, True)
    api.set_disallow_unplug(pif, False)
    assert failure(api.set_property, pif, "x", "y")[0] == "INVALID_VALUE"
    assert session.xenapi.PIF_metrics.get_carrier(before["metrics"]) is True


def test_moving_a_vif(session: XenAPI.Session, simulator: SimulatorProcess, network: str, vm: Vm) -> None:
    api = session.xenapi
    first = api.network.get_by_name_label("Pool-wide network associated with eth0")[0]
    vif = api.VIF.create(vif_record(vm, first))
    vm.start(False, False)
    with connect(str(simulator.xenstore_socket), timeout=5.0) as store:
        backend = f"/local/domain/0/backend/vif/{vm.get_domid()}/0"
        assert store.read(f"{backend}/bridge") == b"xenbr0"
        mac = store.read(f"{backend}/mac")
        api.VIF.move(vif, network)
        assert store.read(f"{backend}/bridge") == api.network.get_bridge(network).encode()
        assert store.read(f"{backend}/mac") == mac
    assert api.network.get_VIFs(network) == [vif]
    assert vif not in api.network.get_VIFs(first)
    assert failure(api.VIF.move, vif, NULL) == ["HANDLE_INVALID", "network", NULL]
    vm.hard_shutdown()
    api.VIF.move(vif, first)


def test_locked_vifs(session: XenAPI.Session, network: str, vm: Vm) -> None:
    api = session.xenapi.VIF
    vif = api.create(vif_record(vm, network, locking_mode="locked", ipv4_allowed=["192.0.2.1"]))
    assert api.get_locking_mode(vif) == "locked"
    api.add_ipv4_allowed(vif, "192.0.2.2")
    assert api.get_ipv4_allowed(vif) == ["192.0.2.1", "192.0.2.2"]
    api.remove_ipv4_allowed(vif, "192.0.2.1")
    api.set_ipv6_allowed(vif, ["2001:db8::1"])
    for call, bad in (
        (api.set_ipv4_allowed, ["2001:db8::1"]),
        (api.add_ipv4_allowed, "x"),
        (api.set_ipv6_allowed, ["192.0.2.1"]),
        (api.add_ipv6_allowed, ""),
    ):
        assert failure(call, vif, bad)[0] == "INVALID_IP_ADDRESS_SPECIFIED"
    refused: dict[str, Any] = vif_record(vm, network, device="1", ipv4_allowed=["x"])
    assert failure(api.create, refused) == ["INVALID_IP_ADDRESS_SPECIFIED", "ipv4_allowed"]
    api.set_locking_mode(vif, "disabled")
    api.set_trunks(vif, ["1", "2"])
    api.add_trunks(vif, "3")
    assert api.get_trunks(vif) == ["1", "2", "3"]


def test_addresses_by_the_guests_agent(
    session: XenAPI.Session, simulator: SimulatorProcess, network: str, vm: Vm
) -> None:
    api = session.xenapi.VIF
    vif = api.create(vif_record(vm, network))
    for bad in ("192.0.2.1", "x", "2001:db8::1/64"):
        assert failure(api.configure_ipv4, vif, "Static", bad, "") == ["INVALID_CIDR_ADDRESS_SPECIFIED", "address"]
    assert failure(api.configure_ipv4, vif, "Static", "192.0.2.1/24", "x") == [
        "INVALID_IP_ADDRESS_SPECIFIED",
        "gateway",
    ]
    vm.start(False, False)
    assert failure(api.configure_ipv4, vif, "Static", "192.0.2.1/24", "") == ["VM_LACKS_FEATURE", vm.ref]
    base = f"/local/domain/{vm.get_domid()}"
    with connect(str(simulator.xenstore_socket), timeout=5.0) as store:
        store.write(f"{base}/control/feature-static-ip-setting", b"1")
        metrics = session.xenapi.VM_guest_metrics
        until(lambda: "feature-static-ip-setting" in metrics.get_other(vm.get_guest_metrics()))
        api.configure_ipv4(vif, "Static", "192.0.2.1/24", "192.0.2.9")
        setting = f"{base}/xenserver/device/vif/0/static-ip-setting"
        values = [store.read(f"{setting}/{name}") for name in ("enabled", "address", "gateway")]
        assert values == [b"1", b"192.0.2.1/24", b"192.0.2.9"]
        api.configure_ipv6(vif, "None", "", "")
        assert store.read(f"{setting}/enabled6") == b"0"
    assert api.get_ipv4_addresses(vif) == ["192.0.2.1/24"]
    assert api.get_ipv4_configuration_mode(vif) == "Static"
