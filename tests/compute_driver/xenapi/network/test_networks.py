"""Networks of interfaces: found by name, made for VLANs once whoever asks, and removed with their last interface."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from agent_protocol.outcomes import Refused, Unsuccessful
from compute_driver.errors import NetworkAmbiguous, NetworkNotFound, XenServerFailure
from compute_driver.network import Interface, NetworkName
from compute_driver.xenapi.network import networks
from compute_driver.xenapi.network.networks import MADE_KEY, Networks

from ..faults import WAYS, Faulty, each_call
from ..pool import Pool

TRUNK = NetworkName("bridge", "xenbr0")
PLAIN = Interface("port-1", "00:16:3e:00:00:01", TRUNK)
TAGGED = Interface("port-1", "00:16:3e:00:00:01", TRUNK, vlan=42)
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def made(pool: Pool) -> Iterator[Any]:
    """Makes networks that are gone after the test."""
    refs: list[str] = []

    def make(name: str, **more: Any) -> str:
        refs.append(pool.server.call("network.create", {"name_label": name, "other_config": {}, **more}))
        return refs[-1]

    with pool.nothing_left():
        yield make
        for ref in refs:
            pool.server.call("network.destroy", ref)


def test_a_network_is_found_by_each_of_its_names(pool: Pool, made: Any) -> None:
    ref = made("blue")
    record = pool.server.call("network.get_record", ref)
    for kind, value in (("uuid", record["uuid"]), ("name_label", "blue"), ("bridge", record["bridge"])):
        assert networks.find(pool.server, NetworkName(kind, value)) == ref


@pytest.mark.parametrize("kind, value", [("uuid", UNKNOWN), ("name_label", "no such"), ("bridge", "nobridge")])
def test_a_network_that_is_not_there(pool: Pool, kind: str, value: str) -> None:
    with pytest.raises(NetworkNotFound) as caught:
        networks.find(pool.server, NetworkName(kind, value))
    assert caught.value.code == "network_not_found"
    assert value in str(caught.value)


def test_of_two_networks_with_one_name_none_is_chosen(pool: Pool, made: Any) -> None:
    made("green")
    made("green")
    with pytest.raises(NetworkAmbiguous) as caught:
        networks.find(pool.server, NetworkName("name_label", "green"))
    assert caught.value.code == "network_ambiguous"


def held(it: Networks, interface: Interface = TAGGED) -> str:
    with it.held(interface) as network:
        return network


def tags(pool: Pool, network: str) -> dict[str, int]:
    """By host, the tag with which a network is there."""
    pifs = [pool.server.call("PIF.get_record", pif) for pif in pool.server.call("network.get_PIFs", network)]
    return {pif["host"]: int(pif["VLAN"]) for pif in pifs}


def everywhere(pool: Pool, tag: int = 42) -> dict[str, int]:
    return dict.fromkeys(pool.server.call("host.get_all"), tag)


def test_without_a_vlan_the_network_itself_is_used_and_never_removed(pool: Pool) -> None:
    it = Networks(pool.server)
    with pool.nothing_left():
        network = held(it, PLAIN)
        assert network == networks.find(pool.server, TRUNK)
        it.release(network)


def test_a_vlan_is_made_on_all_hosts_and_removed_again(pool: Pool) -> None:
    it = Networks(pool.server)
    with pool.nothing_left():
        network = held(it)
        assert tags(pool, network) == everywhere(pool)
        assert held(it) == network
        assert held(Networks(pool.server)) == network
        it.release(network)
        it.release(network)


def test_a_vlan_that_somebody_made_is_used_and_stays(pool: Pool, made: Any) -> None:
    ours = made("theirs")
    (pif, *_) = pool.server.call("network.get_PIFs", networks.find(pool.server, TRUNK))
    pifs = pool.server.call("pool.create_VLAN_from_PIF", pif, ours, "42")
    it = Networks(pool.server)
    assert held(it) == ours
    it.release(ours)
    assert tags(pool, ours) == everywhere(pool)
    for each in pifs:
        pool.server.call("VLAN.destroy", pool.server.call("PIF.get_VLAN_master_of", each))


def test_a_vlan_that_a_host_lacks_is_completed(pool: Pool) -> None:
    it = Networks(pool.server)
    with pool.nothing_left():
        network = held(it)
        (pif, *_) = pool.server.call("network.get_PIFs", network)
        pool.server.call("VLAN.destroy", pool.server.call("PIF.get_VLAN_master_of", pif))
        assert len(tags(pool, network)) == 1
        assert held(it) == network
        assert tags(pool, network) == everywhere(pool)
        it.release(network)


def test_other_tags_are_other_networks(pool: Pool) -> None:
    it = Networks(pool.server)
    with pool.nothing_left():
        other = Interface("port-2", "00:16:3e:00:00:02", TRUNK, vlan=43)
        found = {held(it), held(it, other)}
        assert len(found) == 2
        for network in found:
            it.release(network)


def test_a_vlan_needs_a_physical_interface(pool: Pool, made: Any) -> None:
    made("internal")
    interface = Interface("port-1", "00:16:3e:00:00:01", NetworkName("name_label", "internal"), vlan=42)
    with pytest.raises(Refused) as caught:
        held(Networks(pool.server), interface)
    assert caught.value.code == "network_without_interface"


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_whichever_call_goes_wrong(pool: Pool, way: str) -> None:
    def operation(server: Any) -> None:
        it = Networks(server)
        network = held(it)
        made.append(network)

    made: list[str] = []
    with pool.nothing_left():
        before = pool.inventory()
        for faulty in each_call(pool.server, operation, way):
            assert pool.inventory() == before, faulty.methods
        Networks(pool.server).release(made[0])


@pytest.mark.parametrize("at", ["network.create", "pool.create_VLAN_from_PIF"])
def test_of_two_processes_that_make_one_vlan_at_once_one_wins(pool: Pool, at: str) -> None:
    """Both stop before the same call and go on together, so that the loser finds what the winner made."""
    barrier = threading.Barrier(2, timeout=20.0)
    found: list[str] = []
    errors: list[BaseException] = []

    def process() -> None:
        server = pool.connected()
        faulty = Faulty(server)
        faulty.before = lambda method: meet(method, faulty)
        try:
            it: Any = faulty
            found.append(held(Networks(it)))
        except BaseException as error:
            errors.append(error)
        finally:
            server.close()

    def meet(method: str, faulty: Faulty) -> None:
        if method == at and faulty.methods.count(at) == 1:
            barrier.wait()

    with pool.nothing_left():
        threads = [threading.Thread(target=process) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert len(found) == 2
        assert len(set(found)) == 1
        assert tags(pool, found[0]) == everywhere(pool)
        ours = [
            ref for ref, it in pool.server.call("network.get_all_records").items() if MADE_KEY in it["other_config"]
        ]
        assert ours == [found[0]]
        Networks(pool.server).release(found[0])


def test_two_halves_of_a_vlan_become_one(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes got one host each: the network with the lower uuid stays, the other one gives way."""
    monkeypatch.setattr(networks, "_FIRST_WAIT", 0.0)
    trunk = networks.find(pool.server, TRUNK)
    pifs = pool.server.call("network.get_PIFs", trunk)
    with pool.nothing_left():
        refs = []
        for pif in pifs:
            record = {"name_label": "half", "other_config": {MADE_KEY: pif}}
            refs.append(pool.server.call("network.create", record))
            pool.server.call("VLAN.create", pif, "42", refs[-1])
        with pytest.raises(NetworkAmbiguous):
            held(Networks(pool.server))
        low, high = sorted(refs, key=lambda ref: str(pool.server.call("network.get_uuid", ref)))
        it = Networks(pool.server)
        it._give_way(trunk, 42, low)
        it._give_way(trunk, 42, high)
        assert held(it) == low
        assert tags(pool, low) == everywhere(pool)
        it.release(low)


def test_a_network_in_use_is_not_removed(pool: Pool) -> None:
    it = Networks(pool.server)
    with pool.nothing_left():
        vm = pool.vm()
        network = held(it)
        pool.server.call(
            "VIF.create",
            {
                "VM": vm.ref,
                "network": network,
                "device": "0",
                "MAC": "",
                "MTU": "1500",
                "other_config": {},
                "qos_algorithm_type": "",
                "qos_algorithm_params": {},
            },
        )
        it.release(network)
        assert tags(pool, network) == everywhere(pool)
        pool.destroy(vm)
        it.release(network)


def test_somebody_uses_it_while_it_is_removed(pool: Pool) -> None:
    network = held(Networks(pool.server))
    faulty: Any = Faulty(pool.server)
    faulty.replies["VLAN.destroy"] = XenServerFailure(["VIF_IN_USE", network, "OpaqueRef:vif"])
    Networks(faulty).release(network)
    faulty.replies["VLAN.destroy"] = XenServerFailure(["SOME_FAILURE"])
    with pytest.raises(Unsuccessful):
        Networks(faulty).release(network)
    Networks(pool.server).release(network)
