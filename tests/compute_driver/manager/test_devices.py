"""Volumes and interfaces: recorded before they are attached, forgotten after they are gone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Refused, Unknown
from compute_driver.volumes import IscsiConnection, Volume

from ..bench import CONTEXT, INTERFACE, SECRET, UUID, VOLUME, Bench
from ..cases import CASES, Case

ATTACH = [case for case in CASES if case.name.startswith("attach_")]
OTHER = replace(INTERFACE, id="port-2", mac="00:16:3e:00:00:02")


def devices(bench: Bench) -> list[Any]:
    volumes = [(it.volume.id, it.device) for it in bench.repository.list_volumes(UUID)]
    return [volumes, [it.id for it in bench.repository.list_interfaces(UUID)]]


def test_what_is_attached_is_known_with_its_device(bench: Bench) -> None:
    bench.have()
    assert bench.manager.attach_volume(CONTEXT, "web", VOLUME) == "xvdb"
    bench.manager.attach_interface(CONTEXT, "web", INTERFACE)
    assert bench.manager.get_devices("web") == ([(replace(VOLUME, device="xvdb"), "xvdb")], [INTERFACE])
    bench.manager.detach_volume(CONTEXT, "web", VOLUME.id)
    bench.manager.detach_interface(CONTEXT, "web", INTERFACE.id)
    assert devices(bench) == [[], []]
    assert (bench.guest.volumes, bench.guest.interfaces) == ({}, [])


@pytest.mark.parametrize("case", ATTACH, ids=lambda case: case.name)
def test_it_is_known_before_it_is_attached(bench: Bench, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.have()
    attach, seen = getattr(bench.driver, case.verb), list[Any]()

    def look(*arguments: Any) -> Any:
        seen.append(devices(bench))
        return attach(*arguments)

    monkeypatch.setattr(bench.driver, case.verb, look)
    case.carry_out(bench)
    assert seen in ([[[(VOLUME.id, "")], []]], [[[], [INTERFACE.id]]])


@pytest.mark.parametrize("case", ATTACH, ids=lambda case: case.name)
@pytest.mark.parametrize("kind", [Failed, Unknown])
def test_only_what_is_certainly_not_attached_is_forgotten(bench: Bench, case: Case, kind: Any) -> None:
    bench.have()
    bench.driver.steering.fail(case.verb, kind("some_code", "some words"))
    with pytest.raises(kind):
        case.carry_out(bench)
    known = devices(bench)
    assert known in ([[[], []]] if kind is Failed else [[[(VOLUME.id, "")], []], [[], [INTERFACE.id]]])


@pytest.mark.parametrize("case", ATTACH, ids=lambda case: case.name)
def test_what_was_attached_before_stays_known(bench: Bench, case: Case) -> None:
    bench.attach(bench.have())
    before = devices(bench)
    bench.driver.steering.fail(case.verb, Failed("some_code", "some words"))
    with pytest.raises(Failed):
        case.carry_out(bench)
    assert devices(bench) == before


def test_what_is_not_attached_cannot_be_taken_away(bench: Bench) -> None:
    bench.have()
    with pytest.raises(Refused) as volume:
        bench.manager.detach_volume(CONTEXT, "web", VOLUME.id)
    with pytest.raises(Refused) as interface:
        bench.manager.detach_interface(CONTEXT, "web", INTERFACE.id)
    assert (volume.value.code, interface.value.code) == ("volume_not_attached", "interface_not_attached")
    assert bench.asked == []


@pytest.mark.parametrize("verb", ["detach_volume", "detach_interface"])
def test_what_could_not_be_taken_away_stays_known(bench: Bench, verb: str) -> None:
    bench.attach(bench.have())
    before = devices(bench)
    bench.driver.steering.fail(verb, Failed("detach_rejected", "no"))
    with pytest.raises(Failed):
        next(case for case in CASES if case.name == verb).carry_out(bench)
    assert devices(bench) == before


def test_interfaces_that_cannot_be_of_one_instance_are_refused(bench: Bench) -> None:
    bench.attach(bench.have())
    with pytest.raises(Refused) as caught:
        bench.manager.attach_interface(CONTEXT, "web", replace(OTHER, mac=INTERFACE.mac))
    assert caught.value.code == "bad_interface"
    assert devices(bench)[1] == [INTERFACE.id]
    assert bench.asked == []


def test_a_volumes_password_is_not_kept(bench: Bench, tmp_path: Any) -> None:
    bench.have()
    connection = IscsiConnection("san", "iqn.2026-01.test:one", 1, chap_user="ada", chap_password=Password(SECRET))
    bench.manager.attach_volume(CONTEXT, "web", Volume("volume-2", connection))
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.iterdir())


# The guest's view of the network


def test_the_guest_is_told_its_interfaces(bench: Bench) -> None:
    bench.attach(bench.have())
    bench.manager.inject_network_info(CONTEXT, "web")
    assert bench.guest.system.network == (INTERFACE,)
    other = replace(INTERFACE, dhcp6=True)
    bench.manager.inject_network_info(CONTEXT, "web", [other])
    assert bench.guest.system.network == (other,)
    assert bench.repository.list_interfaces(UUID) == [other]


@pytest.mark.parametrize("wanted", [[], [OTHER], [INTERFACE, OTHER], [replace(INTERFACE, mac=OTHER.mac)]])
def test_it_is_not_told_of_others(bench: Bench, wanted: Any) -> None:
    bench.attach(bench.have())
    with pytest.raises(Refused) as caught:
        bench.manager.inject_network_info(CONTEXT, "web", wanted)
    assert caught.value.code == "interfaces_differ"
    assert bench.asked == []


def test_metadata_are_changed_in_both_places(bench: Bench) -> None:
    bench.have()
    bench.manager.change_instance_metadata(CONTEXT, "web", {"a": ["+", "1"], "b": ["+", "2"]})
    assert bench.manager.change_instance_metadata(CONTEXT, "web", {"a": ["-"]}) == {"b": "2"}
    assert bench.instance.instance_metadata == bench.guest.metadata == {"b": "2"}
    for bad in (["+"], [], ["-", "x"], ["*", "1"]):
        with pytest.raises(Refused) as caught:
            bench.manager.change_instance_metadata(CONTEXT, "web", {"b": bad})
        assert caught.value.code == "bad_metadata"
    assert bench.instance.instance_metadata == {"b": "2"}
