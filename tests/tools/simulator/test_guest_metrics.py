"""guest_metrics.py and guest_watch.py: what clients learn from what a guest writes into XenStore."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import XenAPI
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.xenstore import Client, connect
from tools.simulator.guest_metrics import derive
from tools.simulator.process import SimulatorProcess

from .support import Vm, until


def test_nothing_said() -> None:
    fields = derive({})
    assert fields.pop("can_use_hotplug_vbd") == fields.pop("can_use_hotplug_vif") == "unspecified"
    assert not any(fields.values())


@pytest.mark.parametrize(
    ("nodes", "field", "value"),
    [
        (
            {"data/os_name": "Debian GNU/Linux 12", "data/os_distro": "debian", "data/os_majorver": "12"},
            "os_version",
            {"name": "Debian GNU/Linux 12", "distro": "debian", "major": "12"},
        ),
        (
            {"data/os_minorver": "0", "data/os_uname": "6.1", "attr/os/spmajor": "1", "attr/os/spminor": "2"},
            "os_version",
            {"minor": "0", "uname": "6.1", "spmajor": "1", "spminor": "2"},
        ),
        ({"data/host_name_dns": "web"}, "netbios_name", {"host_name": "web"}),
        (
            {"data/host_name_dns": "web", "data/domain": "example.org"},
            "netbios_name",
            {"host_name": "web.example.org"},
        ),
        (
            {"attr/PVAddons/MajorVersion": "1", "attr/PVAddons/MinorVersion": "2", "attr/PVAddons/BuildVersion": "77"},
            "PV_drivers_version",
            {"major": "1", "minor": "2", "micro": "-1", "build": "77"},
        ),
        ({"drivers/0": "XenServer XENVBD 9.1.0.5 (DEBUG)"}, "PV_drivers_version", {"xenvbd": "9.1.0.5"}),
        (
            {"attr/vif/0/ipv4/0": "192.0.2.1", "attr/vif/0/ipv4/1": "192.0.2.2", "attr/vif/0/ipv6/0": "2001:db8::1"},
            "networks",
            {"0/ip": "192.0.2.1", "0/ipv4/0": "192.0.2.1", "0/ipv4/1": "192.0.2.2", "0/ipv6/0": "2001:db8::1"},
        ),
        (
            {"attr/eth1/ip": "192.0.2.9", "attr/eth1/ipv6/0/addr": "2001:db8::9"},
            "networks",
            {"1/ip": "192.0.2.9", "1/ipv4/0": "192.0.2.9", "1/ipv6/0": "2001:db8::9"},
        ),
        (
            {"xenserver/attr/net-sriov-vf/2/ipv4/0": "192.0.2.3"},
            "networks",
            {"2/ip": "192.0.2.3", "2/ipv4/0": "192.0.2.3"},
        ),
        (
            {"control/feature-suspend": "1", "control/x": "y", "data/ts": "1"},
            "other",
            {"feature-suspend": "1", "x": "y", "data-ts": "1"},
        ),
        (
            {"control/feature-suspend": "1", "data/cant_suspend_reason": "vgpu"},
            "other",
            {"data-cant-suspend-reason": "vgpu"},
        ),
        ({"data/service/ssh/port": "22", "data/service/ssh": ""}, "services", {"ssh/port": "22"}),
        ({"feature/hotplug/vbd": "1"}, "can_use_hotplug_vbd", "yes"),
        ({"feature/hotplug/vif": "0"}, "can_use_hotplug_vif", "no"),
        ({"feature/hotplug/vif": "maybe"}, "can_use_hotplug_vif", "unspecified"),
    ],
)
def test_fields(nodes: dict[str, str], field: str, value: Any) -> None:
    assert derive(nodes)[field] == value


words = st.sampled_from(
    ["attr", "vif", "eth0", "ip", "ipv4", "ipv6", "0", "drivers", "data", "service", "control", "x"]
)


@given(st.dictionaries(st.lists(words, min_size=1, max_size=6).map("/".join), st.text(max_size=20)))
def test_any_nodes_are_borne(nodes: dict[str, str]) -> None:
    fields = derive(nodes)
    for name in ("os_version", "networks", "other", "services", "PV_drivers_version", "netbios_name"):
        assert all(isinstance(key, str) and isinstance(value, str) for key, value in fields[name].items())


@pytest.fixture
def running(session: XenAPI.Session, vm: Vm) -> Vm:
    vm.start(False, False)
    return vm


@pytest.fixture
def store(simulator: SimulatorProcess) -> Iterator[Client]:
    with connect(str(simulator.xenstore_socket), timeout=5.0) as client:
        yield client


def test_metrics_follow_the_guest(session: XenAPI.Session, store: Client, running: Vm) -> None:
    api = session.xenapi.VM_guest_metrics
    metrics = running.get_guest_metrics()
    record = api.get_record(metrics)
    assert record["live"] is True
    assert record["other"]["feature-shutdown" if "feature-shutdown" in record["other"] else "feature-poweroff"] == "1"
    assert record["os_version"] == {}
    base = f"/local/domain/{running.get_domid()}"
    store.write(f"{base}/attr/vif/0/ipv4/0", b"192.0.2.1")
    until(lambda: api.get_networks(metrics) == {"0/ip": "192.0.2.1", "0/ipv4/0": "192.0.2.1"})
    store.write(f"{base}/data/os_name", "Dübian".encode())
    store.write(f"{base}/data/updated", b"1")
    until(lambda: api.get_os_version(metrics) == {"name": "Dübian"})
    store.write(f"{base}/data/os_name", b"\xff\xfe")
    store.write(f"{base}/data/updated", b"2")
    until(lambda: api.get_os_version(metrics) == {"name": "\ufffd\ufffd"})
    store.remove(f"{base}/attr/vif")
    until(lambda: api.get_networks(metrics) == {})


def test_metrics_stay_until_the_next_start(session: XenAPI.Session, store: Client, running: Vm) -> None:
    api = session.xenapi.VM_guest_metrics
    metrics = running.get_guest_metrics()
    store.write(f"/local/domain/{running.get_domid()}/attr/vif/0/ipv4/0", b"192.0.2.1")
    until(lambda: api.get_networks(metrics))
    running.hard_shutdown()
    assert running.get_guest_metrics() == metrics
    assert api.get_networks(metrics)
    running.start(False, False)
    assert running.get_guest_metrics() != metrics
    assert api.get_networks(running.get_guest_metrics()) == {}


def test_channels_of_agents_are_nobodys_business(session: XenAPI.Session, store: Client, running: Vm) -> None:
    base = f"/local/domain/{running.get_domid()}"
    metrics = running.get_guest_metrics()
    before = session.xenapi.VM_guest_metrics.get_record(metrics)
    for number in range(20):
        store.write(f"{base}/data/host/{number}", b"secret")
        store.write(f"{base}/data/guest/{number}", b"secret")
    # Whatever is written after that is seen, so all before it would have been.
    store.write(f"{base}/data/ts", b"1")
    until(lambda: session.xenapi.VM_guest_metrics.get_other(metrics).get("data-ts") == "1")
    after = session.xenapi.VM_guest_metrics.get_record(metrics)
    for record in (before, after):
        del record["other"], record["last_updated"]
    assert before == after
    assert "secret" not in str(running.get_record())


def test_vm_data_comes_back(store: Client, running: Vm) -> None:
    base = f"/local/domain/{running.get_domid()}"
    assert running.get_xenstore_data() == {"vm-data": "", "vm-data/site": "here"}
    store.write(f"{base}/vm-data/token/of", b"guest")
    expected = {"vm-data": "", "vm-data/site": "here", "vm-data/token": "", "vm-data/token/of": "guest"}
    until(lambda: running.get_xenstore_data() == expected)
    running.set_xenstore_data({"vm-data/a": "1", "FIST/b": "2", "elsewhere": "3"})
    assert running.get_xenstore_data() == {"vm-data": "", "vm-data/a": "1", "FIST/b": "2"}
    running.add_to_xenstore_data("vm-data/later", "x")
    assert "vm-data/later" in running.get_xenstore_data()
    store.write(f"{base}/vm-data/now", b"y")
    until(lambda: running.get_xenstore_data() == {"vm-data": "", "vm-data/a": "1", "vm-data/now": "y", "FIST/b": "2"})


def test_what_happens_to_an_ending_domain_is_not_believed(store: Client, running: Vm) -> None:
    data = running.get_xenstore_data()
    metrics = running.get_guest_metrics()
    networks = running.session.xenapi.VM_guest_metrics.get_other(metrics)
    for _ in range(5):
        running.hard_reboot()
    running.hard_shutdown()
    assert running.get_xenstore_data() == data
    assert running.session.xenapi.VM_guest_metrics.get_other(running.get_guest_metrics()) == networks
