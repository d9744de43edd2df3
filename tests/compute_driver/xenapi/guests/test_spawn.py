"""A guest that is made whole, or not at all. What one fault at each call does is in tests/contract/test_faults.py."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused, Unknown, Unreachable
from compute_driver.agents import AgentsInMemory
from compute_driver.errors import XenServerFailure
from compute_driver.files import InjectedFile
from compute_driver.states import PowerState
from compute_driver.volumes import VdiConnection, Volume
from compute_driver.xenapi.connection.session import Connection, XenServer
from compute_driver.xenapi.driver import XenServerDriver
from compute_driver.xenapi.guests import vms
from tests.contract.faults import image

from ..conftest import NOTHING, Calls, Objects, Steps, Wanted
from ..plugin import Plugin

PASSWORD = Password("hunter2 & <Secret>")
DEVICES = ["create_vm", "create_root_disk", "attach_interfaces"]


@pytest.fixture
def memory() -> AgentsInMemory:
    return AgentsInMemory()


@pytest.fixture
def driver(connection: Connection, objects: Objects, calls: Calls, memory: AgentsInMemory) -> Iterator[XenServerDriver]:
    """One whose guests have an old agent."""
    it = XenServerDriver(connection, memory, agent_policy="legacy", agent_timeout=5.0, boot_timeout=5.0)
    yield it
    it.close()


def devices(server: XenServer, instance: Wanted) -> dict[str, dict[str, Any]]:
    """The records of the VDIs that a guest has, by device number."""
    records = [server.call("VBD.get_record", vbd) for vbd in vms.find(server, instance).vbds]
    return {it["userdevice"]: {**server.call("VDI.get_record", it["VDI"]), "VBD": it} for it in records}


def volume(server: XenServer, name: str, **more: Any) -> Volume:
    """A volume that lies in the pool already."""
    (pool,) = server.call("pool.get_all")
    record = {
        "name_label": name,
        "name_description": "",
        "SR": server.call("pool.get_default_SR", pool),
        "virtual_size": str(1024**3),
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
    }
    vdi = server.call("VDI.create", record)
    return Volume(id=name, connection=VdiConnection(server.call("VDI.get_uuid", vdi)), **more)


def test_a_guest_is_made_whole(driver: XenServerDriver, plugin: Plugin, xenserver: XenServer) -> None:
    steps, instance = Steps(), Wanted()
    driver.spawn(
        instance,
        admin_password=PASSWORD,
        injected_files=[InjectedFile("/a", b""), InjectedFile("/b", b"")],
        ssh_keys=["ssh-ed25519 AAAA"],
        progress=steps,
    )
    told = ["wait_for_agent", "set_admin_password", "add_ssh_keys", "inject_file", "inject_file"]
    assert steps.names == [*DEVICES, "boot", *told]
    assert plugin.passwords == [PASSWORD.value]
    assert plugin.names().count("file_put") == 2
    root = devices(xenserver, instance)["0"]
    assert root["virtual_size"] == str(3 * 1024**3)
    assert (root["VBD"]["bootable"], root["VBD"]["mode"]) == (True, "RW")
    (vif,) = xenserver.call("VM.get_VIFs", vms.find(xenserver, instance).ref)
    assert xenserver.call("network.get_PIFs", xenserver.call("VIF.get_network", vif))


def test_without_anything_to_tell_its_agent_is_waited_for_all_the_same(driver: XenServerDriver) -> None:
    steps = Steps()
    driver.spawn(Wanted(), progress=steps)
    assert steps.names == [*DEVICES, "boot", "wait_for_agent"]


def test_an_image_without_an_agent_is_not_waited_for(driver: XenServerDriver, plugin: Plugin) -> None:
    steps, instance = Steps(), Wanted()
    driver.spawn(instance, image=image("plain", img_use_agent="no"), progress=steps)
    assert steps.names == [*DEVICES, "boot"]
    assert driver.get_info(instance).state is PowerState.RUNNING
    assert plugin.calls == []
    driver.destroy(instance)


@pytest.mark.parametrize(
    "wanted",
    [{"admin_password": PASSWORD}, {"ssh_keys": ["ssh-ed25519 A"]}, {"injected_files": [InjectedFile("/a", b"")]}],
)
@pytest.mark.parametrize("why", ["agent_not_in_image", "agent_not_running"])
def test_what_no_agent_can_do_is_refused_before_anything_is_done(
    driver: XenServerDriver, calls: Calls, wanted: dict[str, Any], why: str
) -> None:
    how: dict[str, Any] = {"power_on": False} if why == "agent_not_running" else {}
    how["image"] = image("plain", img_use_agent="no" if why == "agent_not_in_image" else "yes")
    with pytest.raises(Refused) as caught:
        driver.spawn(Wanted(), progress=Steps(), **how, **wanted)
    assert caught.value.code == why
    assert calls.methods == []


def test_a_guest_can_be_made_without_being_started(driver: XenServerDriver) -> None:
    steps, instance = Steps(), Wanted()
    driver.spawn(instance, power_on=False, progress=steps)
    assert steps.names == DEVICES
    assert driver.get_info(instance).state is PowerState.SHUTDOWN


def test_a_guest_that_is_there_already_is_left_alone(driver: XenServerDriver, objects: Objects) -> None:
    instance, steps = Wanted(), Steps()
    driver.spawn(instance, progress=Steps())
    before = objects.all()
    with pytest.raises(Refused) as caught:
        driver.spawn(instance, progress=steps)
    assert caught.value.code == "guest_exists"
    assert steps.names == []
    assert objects.all() == before
    assert driver.get_info(instance).state is PowerState.RUNNING


def test_it_starts_on_the_node_that_was_chosen(driver: XenServerDriver, calls: Calls) -> None:
    driver.spawn(Wanted(), node="simulated-1", progress=Steps())
    assert "Async.VM.start_on" in calls.methods
    with pytest.raises(Refused) as caught:
        driver.spawn(Wanted(), node="elsewhere", progress=Steps())
    assert caught.value.code == "node_not_found"


def test_it_can_have_no_interface(driver: XenServerDriver, objects: Objects) -> None:
    driver.spawn(Wanted(), interfaces=[], progress=Steps())
    assert objects.all()["VIF"] == 0


def test_volumes_are_there_at_the_first_boot_and_stay_after_the_last(
    driver: XenServerDriver, xenserver: XenServer, objects: Objects
) -> None:
    instance, data = Wanted(), volume(xenserver, "data")
    driver.spawn(instance, volumes=[data], progress=Steps())
    found = devices(xenserver, instance)
    assert {number: it["name_label"] for number, it in found.items()} == {
        "0": f"instance-{instance.uuid} root",
        "1": "data",
    }
    driver.destroy(instance, volumes=[data])
    assert objects.all() == {**NOTHING, "VDI": 1}


def test_a_volume_can_be_booted_from_in_place_of_a_root_disk(driver: XenServerDriver, xenserver: XenServer) -> None:
    instance, steps = Wanted(), Steps()
    system, data = volume(xenserver, "system", boot_index=0), volume(xenserver, "data")
    driver.spawn(instance, volumes=[data, system], progress=steps)
    found = devices(xenserver, instance)
    assert {number: it["name_label"] for number, it in found.items()} == {"0": "system", "1": "data"}
    assert "create_root_disk" not in steps.names
    with pytest.raises(Refused) as caught:
        driver.rebuild(instance, image=None, progress=Steps())
    assert caught.value.code == "root_disk_is_volume"


def test_a_config_drive_is_in_its_drive(driver: XenServerDriver, xenserver: XenServer, objects: Objects) -> None:
    instance, steps = Wanted(), Steps()
    driver.spawn(instance, config_drive={"openstack/latest/meta_data.json": b"{}"}, progress=steps)
    assert "config_drive" in steps.names
    drive = devices(xenserver, instance)["3"]
    assert drive["VBD"]["type"] == "CD"
    driver.destroy(instance)
    assert objects.all() == NOTHING


@pytest.mark.parametrize("path", ["meta_data.json", "openstack/latest/", "openstack/latest/a/b", "/etc/passwd"])
def test_a_config_drive_has_its_files_where_they_are_looked_for(driver: XenServerDriver, path: str) -> None:
    with pytest.raises(Refused) as caught:
        driver.spawn(Wanted(), config_drive={path: b""}, progress=Steps())
    assert caught.value.code == "bad_config_drive"


# What goes wrong


@pytest.mark.parametrize("name", ["version", "keyinit", "password", "ssh_keys", "file_put"])
def test_an_agent_that_does_not_answer_leaves_no_guest(
    driver: XenServerDriver, plugin: Plugin, objects: Objects, memory: AgentsInMemory, name: str
) -> None:
    plugin.say(name, "unanswered")
    steps = Steps()
    with pytest.raises((Unknown, Unreachable)):
        driver.spawn(
            Wanted(),
            admin_password=PASSWORD,
            injected_files=[InjectedFile("/a", b"")],
            ssh_keys=["ssh-ed25519 AAAA"],
            progress=steps,
        )
    assert steps.names[-1] == "undo"
    assert objects.all() == NOTHING
    assert memory == {}


@pytest.mark.parametrize("error", [ValueError("unforeseen"), KeyboardInterrupt()])
def test_what_nobody_foresaw_leaves_nothing_either(
    driver: XenServerDriver, plugin: Plugin, objects: Objects, error: BaseException
) -> None:
    plugin.say("version", error)
    with pytest.raises(type(error)):
        driver.spawn(Wanted(), progress=Steps())
    assert objects.all() == NOTHING


class Recorded(Steps):
    """Remembers the errors of steps as well. unrecordable: a step that cannot even begin."""

    def __init__(self, unrecordable: str = "") -> None:
        super().__init__()
        self.errors: dict[str, BaseException] = {}
        self.unrecordable = unrecordable

    def step(self, name: str) -> AbstractContextManager[None]:
        if name == self.unrecordable:
            raise Unreachable("database_unavailable", "away")
        super().step(name)
        return _Watched(self.errors, name)


class _Watched(AbstractContextManager[None]):
    def __init__(self, errors: dict[str, BaseException], name: str) -> None:
        self._errors, self._name = errors, name

    def __exit__(self, kind: Any, value: BaseException | None, trace: Any) -> None:
        if value is not None:
            self._errors[self._name] = value


def test_what_cannot_be_undone_is_named_and_the_first_error_is_told(
    driver: XenServerDriver,
    plugin: Plugin,
    objects: Objects,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    first = XenServerFailure(["FIRST_FAILURE"])
    plugin.say("version", first)
    instance, steps = Wanted(), Recorded()
    real = XenServer.call

    def call(server: XenServer, name: str, *arguments: Any, timeout: float | None = None) -> Any:
        if name == "Async.VDI.destroy":
            raise XenServerFailure(["SR_BACKEND_FAILURE_47", "", "no", "no"])
        return real(server, name, *arguments, timeout=timeout)

    monkeypatch.setattr(XenServer, "call", call)
    with pytest.raises(XenServerFailure) as caught:
        driver.spawn(instance, progress=steps)
    assert caught.value is first
    (vdi,) = driver._server.call("VDI.get_all")
    uuid = driver._server.call("VDI.get_uuid", vdi)
    told = steps.errors["undo"]
    assert f"VDI {uuid} (xenserver_sr_backend_failure_47)" in str(told)
    assert uuid in caplog.text
    # Its VM leads there, for when it can be removed.
    assert driver.get_info(instance).state is PowerState.SHUTDOWN
    monkeypatch.setattr(XenServer, "call", real)
    driver.destroy(instance)
    assert objects.all() == NOTHING


def test_an_undo_that_cannot_be_recorded_is_done_all_the_same(
    driver: XenServerDriver, plugin: Plugin, objects: Objects
) -> None:
    first = XenServerFailure(["FIRST_FAILURE"])
    plugin.say("version", first)
    with pytest.raises(XenServerFailure) as caught:
        driver.spawn(Wanted(), progress=Recorded(unrecordable="undo"))
    assert caught.value is first
    assert objects.all() == NOTHING
