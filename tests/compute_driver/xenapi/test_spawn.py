"""Whatever goes wrong while a guest is made, at whichever call: nothing of it is left, and the first error is told."""

from __future__ import annotations

import logging

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Unsuccessful
from compute_driver.agents import AgentsInMemory
from compute_driver.driver import InjectedFile, Instance
from compute_driver.errors import XenServerAnswerLost, XenServerFailure, XenServerUnreachable
from compute_driver.xenapi import vms
from compute_driver.xenapi.driver import XenServerDriver
from compute_driver.xenapi.session import Connection, XenServer

from ..sealed_agent import SealedAgent
from .conftest import NOTHING, Calls, Objects, Steps, Wanted
from .plugin import Plugin

PASSWORD = "hunter2 & <Secret>"

METHODS = [
    "VM.create",
    "pool.get_all",
    "pool.get_default_SR",
    "VDI.create",
    "VBD.create",
    "network.get_all_records",
    "VIF.create",
    "VM.get_record",
    "VM.start",
    "VM.get_by_name_label",
    "VM.get_record",
    # version, adverts, and one for each of password, keys and file
    *["host.call_plugin"] * 5,
]
"""The calls that a guest takes, in order."""

LEGACY_METHODS = [
    *METHODS[:-5],
    # version, features, keyinit, password; version, features, ssh_keys; version, features, file_put
    *["host.call_plugin"] * 10,
]
"""Likewise, one whose agent is spoken to in the old protocol."""


@pytest.fixture
def driver(
    connection: Connection, objects: Objects, calls: Calls, plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> XenServerDriver:
    plugin.agent = SealedAgent()
    find = vms.find

    def found(server: XenServer, instance: Instance) -> vms.VM:
        vm = find(server, instance)
        # The agent, which the simulator knows nothing of, signs for the VM that it is in.
        assert plugin.agent
        if plugin.agent.vm != vm.uuid:
            plugin.agent = SealedAgent(vm.uuid)
        return vm

    monkeypatch.setattr(vms, "find", found)
    return XenServerDriver(connection, AgentsInMemory(), agent_timeout=5.0, boot_timeout=5.0)


@pytest.fixture
def legacy_driver(connection: Connection, objects: Objects, calls: Calls) -> XenServerDriver:
    return XenServerDriver(connection, AgentsInMemory(), agent_policy="legacy", agent_timeout=5.0, boot_timeout=5.0)


def spawn(driver: XenServerDriver, steps: Steps | None = None, instance: Wanted | None = None) -> None:
    driver.spawn(
        instance or Wanted(),
        admin_password=Password(PASSWORD),
        injected_files=[InjectedFile("/etc/motd", b"hello")],
        ssh_keys=["ssh-ed25519 AAAA"],
        progress=steps or Steps(),
    )


def test_these_are_the_calls(driver: XenServerDriver, calls: Calls, plugin: Plugin) -> None:
    spawn(driver)
    assert calls.methods == METHODS
    assert plugin.functions == ["exchange", "adverts", "exchange", "exchange", "exchange"]
    assert plugin.names() == ["version", "sealed", "sealed", "sealed"]
    assert plugin.agent
    assert [name for name, _ in plugin.agent.done] == ["password", "ssh_keys", "file_put"]


def test_these_are_the_calls_for_an_old_agent(legacy_driver: XenServerDriver, calls: Calls) -> None:
    spawn(legacy_driver)
    assert calls.methods == LEGACY_METHODS


def numbered(methods: list[str] = METHODS) -> list[object]:
    # Before the first plugin call both kinds are the same.
    start = 1 if methods is METHODS else methods.index("host.call_plugin") + 1
    return [pytest.param(n, id=f"{n}-{method}") for n, method in enumerate(methods[start - 1 :], start)]


def test_without_a_password_none_is_set(driver: XenServerDriver, plugin: Plugin) -> None:
    steps = Steps()
    driver.spawn(Wanted(), admin_password=None, injected_files=[], ssh_keys=[], progress=steps)
    assert steps.names == ["create_vm", "boot", "wait_for_agent"]
    assert plugin.names() == ["version"]


@pytest.mark.parametrize("number", numbered())
def test_a_call_that_fails_leaves_nothing(driver: XenServerDriver, calls: Calls, objects: Objects, number: int) -> None:
    calls.fail_at, calls.error = number, XenServerFailure(["SOME_FAILURE", "x"])
    steps = Steps()
    with pytest.raises(Unsuccessful) as caught:
        spawn(driver, steps)
    # Only the question for its features may go unanswered by an agent that is too old for it.
    assert caught.value.code == "xenserver_some_failure"
    assert steps.names[-1] == "undo"
    assert objects.all() == NOTHING


@pytest.mark.parametrize("number", numbered(LEGACY_METHODS))
def test_a_call_that_fails_leaves_nothing_of_a_guest_with_an_old_agent(
    legacy_driver: XenServerDriver, calls: Calls, objects: Objects, number: int
) -> None:
    test_a_call_that_fails_leaves_nothing(legacy_driver, calls, objects, number)


@pytest.mark.parametrize("number", numbered())
def test_a_call_whose_answer_is_lost_leaves_nothing(
    driver: XenServerDriver, calls: Calls, objects: Objects, number: int
) -> None:
    method = METHODS[number - 1]
    calls.lost = True
    calls.fail_at = number
    calls.error = XenServerUnreachable("xen-1", "gone") if ".get_" in method else XenServerAnswerLost(method)
    with pytest.raises(Unsuccessful):
        spawn(driver)
    assert objects.all() == NOTHING


@pytest.mark.parametrize("error", [ValueError("unforeseen"), KeyboardInterrupt()])
def test_what_nobody_foresaw_leaves_nothing_either(
    driver: XenServerDriver, calls: Calls, objects: Objects, error: BaseException
) -> None:
    calls.fail_at, calls.error = METHODS.index("VM.start") + 1, error
    with pytest.raises(type(error)):
        spawn(driver)
    assert objects.all() == NOTHING


@pytest.mark.parametrize("undoing", range(1, 7))
def test_when_undoing_fails_too_the_first_error_is_told_and_destroy_can_finish_it(
    driver: XenServerDriver, calls: Calls, objects: Objects, caplog: pytest.LogCaptureFixture, undoing: int
) -> None:
    caplog.set_level(logging.ERROR)
    real_raise = calls.error = XenServerFailure(["FIRST_FAILURE"])
    calls.fail_at = len(METHODS)
    instance = Wanted()

    class Undo(Steps):
        def step(self, name: str):  # type: ignore[no-untyped-def]
            if name == "undo":
                calls.fail_at, calls.error = len(calls.methods) + undoing, XenServerFailure(["SECOND_FAILURE"])
            return super().step(name)

    with pytest.raises(XenServerFailure) as caught:
        spawn(driver, Undo(), instance)
    assert caught.value is real_raise
    assert "xenserver_second_failure" in caplog.text
    assert "hunter2" not in caplog.text
    driver.destroy(instance)
    assert objects.all() == NOTHING
