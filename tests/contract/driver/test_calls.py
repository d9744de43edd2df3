"""What the XenServer driver asks of XenServer, by the log of a simulated one: never more than it needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from compute_driver.states import PowerState
from compute_driver.xenapi.connection.session import ORIGINATOR, Connection, XenServer
from tests.compute_driver.xenapi.waiting import vm_record
from tools.simulator.faults.call_log import LoggedCall

from .wanted import Steps, Wanted, image
from .xenserver import XenServerEnvironment, simulator

INSTANCES = 1000


@pytest.fixture(scope="module")
def xenserver() -> Iterator[XenServerEnvironment]:
    with simulator("--no-agent") as it:
        it.simulator.control.log_calls()
        yield it


def calls(it: XenServerEnvironment) -> list[LoggedCall]:
    """What drivers asked for since the log was cleared, but for the events that they wait for."""
    found = it.simulator.control.read_calls()
    return [call for call in found if call.originator == ORIGINATOR and not call.name.startswith("event.")]


def test_a_second_instance_of_an_image_copies_no_data(xenserver: XenServerEnvironment) -> None:
    wanted, first, second = image("fresh", img_use_agent="no"), Wanted(), Wanted()
    transfers = []
    for instance in (first, second):
        xenserver.simulator.control.clear_calls()
        xenserver.driver.spawn(instance, image=wanted, progress=Steps())
        transfers.append([call.name for call in calls(xenserver) if call.name in ("import_raw_vdi", "VDI.copy")])
    assert transfers == [["import_raw_vdi"], []]
    for instance in (first, second):
        xenserver.driver.destroy(instance)
    # The image stays for the next one, until nobody used it for long enough.
    assert xenserver.driver.manage_image_cache(unused_for=3600.0) == []
    assert "fresh" in xenserver.driver.manage_image_cache(unused_for=0.0)
    assert [left.name for left in xenserver.simulator.control.leftovers() if left.cls == "VDI"] == []


def test_1000_instances_are_listed_and_their_states_told_without_a_call(xenserver: XenServerEnvironment) -> None:
    connection = Connection(xenserver.simulator.url, xenserver.simulator.username, xenserver.simulator.password)
    server = XenServer(connection)
    instances = [Wanted() for _ in range(INSTANCES)]

    def create(instance: Wanted) -> str:
        mark = {"xenward:instance": instance.uuid}
        return str(server.call("VM.create", vm_record(f"instance-{instance.uuid}", other_config=mark)))

    try:
        with ThreadPoolExecutor(4) as pool:
            refs = list(pool.map(create, instances))
        driver, uuids = xenserver.driver, {instance.uuid for instance in instances}
        deadline = time.monotonic() + 60.0
        while not uuids <= set(driver.list_instance_uuids()):
            assert time.monotonic() < deadline
        xenserver.simulator.control.clear_calls()
        assert uuids <= set(driver.list_instance_uuids())
        assert {f"instance-{uuid}" for uuid in uuids} <= set(driver.list_instances())
        assert calls(xenserver) == []
        assert {driver.get_info(instance).state for instance in instances} == {PowerState.SHUTDOWN}
        assert calls(xenserver) == []
        assert driver.get_info(instances[-1]).internal_id == server.call("VM.get_uuid", refs[-1])
    finally:
        server.close()
