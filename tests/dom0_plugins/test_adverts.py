"""What agents tell about themselves: at once, later, after a restart, never."""

from __future__ import annotations

import json
import threading
import uuid
from concurrent.futures import Future
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.xenstore import Client
from dom0_plugins.adverts import adverts
from dom0_plugins.conversation import MAX_VMS
from dom0_plugins.xapi import PluginFailure
from tests.agent_protocol.store import DEADLINE, in_background
from tests.dom0_plugins.conftest import Guest, Plugin, at
from tools.simulator.xenstore.server import XenStoreServer

ADVERT = "data/xenward/agent"
ONE = str(uuid.UUID(int=1))


def start(plugin: Plugin, *vms: str, timeout: float = 10 * DEADLINE) -> Future[dict[str, Any]]:
    """Begin a call."""

    def run() -> dict[str, Any]:
        return dict(json.loads(adverts({"vms": json.dumps(vms), "timeout": str(timeout)}, plugin.store)))

    return in_background(run)


def refused(arguments: dict[str, str]) -> None:
    with pytest.raises(PluginFailure) as caught:
        adverts(arguments, cast(Client, None))
    assert caught.value.description[0] == "XENWARD_BAD_REQUEST"


def test_those_that_are_there(plugin: Plugin, guest: Guest, other: Guest) -> None:
    guest.store.write(ADVERT, b"one")
    other.store.write(ADVERT, "zw\u00f6i".encode() + b"\xff")
    call = start(plugin, guest.vm, other.vm)
    assert call.result(DEADLINE) == {guest.vm: "one", other.vm: "zw\u00f6i\ufffd"}


def test_those_that_come_later(plugin: Plugin, guest: Guest, other: Guest) -> None:
    waiting = threading.Event()
    plugin.store.before_wait = waiting.set
    call = start(plugin, guest.vm, other.vm)
    assert waiting.wait(DEADLINE)
    other.store.write("data/xenward/other", b"no advert")
    other.store.write(ADVERT, b"two")
    guest.store.write(ADVERT, b"one")
    assert call.result(DEADLINE) == {guest.vm: "one", other.vm: "two"}


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_those_that_never_come(plugin: Plugin, guest: Guest, other: Guest, timeout: float) -> None:
    guest.store.write(ADVERT, b"one")
    call = start(plugin, guest.vm, other.vm, ONE, timeout=timeout)
    assert call.result(DEADLINE) == {guest.vm: "one", other.vm: None, ONE: None}


def test_an_advert_that_comes_right_after_the_look(plugin: Plugin, guest: Guest) -> None:
    plugin.store.before_wait = at(1, lambda: guest.store.write(ADVERT, b"one"))
    assert start(plugin, guest.vm).result(DEADLINE) == {guest.vm: "one"}


def test_a_guest_that_starts_during_the_wait(server: XenStoreServer, dom0: Client, plugin: Plugin) -> None:
    waiting = threading.Event()
    plugin.store.before_wait = waiting.set
    vm = str(uuid.UUID(int=9))
    call = start(plugin, vm)
    assert waiting.wait(DEADLINE)
    late = Guest(server, dom0, 9)
    late.store.write(ADVERT, b"late")
    assert call.result(DEADLINE) == {vm: "late"}
    late.store.close()


def test_a_guest_that_restarts_during_the_wait(
    server: XenStoreServer, dom0: Client, plugin: Plugin, guest: Guest
) -> None:
    waiting = threading.Event()
    plugin.store.before_wait = waiting.set
    call = start(plugin, guest.vm)
    assert waiting.wait(DEADLINE)
    guest.end()
    successor = Guest(server, dom0, 9)
    dom0.write(f"{successor.domain}/vm", f"/vm/{guest.vm}".encode())
    server.introduce(10)
    successor.store.write(ADVERT, b"again")
    assert call.result(DEADLINE) == {guest.vm: "again"}
    successor.store.close()


def test_a_guest_that_fires_without_end(plugin: Plugin, guest: Guest, other: Guest) -> None:
    """An advert that comes and goes in one transaction is an event and never a node."""

    def flicker() -> None:
        for _ in range(2):
            transaction = guest.store.transaction()
            transaction.write(ADVERT, b"")
            transaction.remove(ADVERT)
            assert transaction.commit()

    plugin.store.before_wait = flicker
    other.store.write(ADVERT, b"two")
    assert start(plugin, guest.vm, other.vm, timeout=0.2).result(DEADLINE) == {guest.vm: None, other.vm: "two"}


def test_nobody_to_ask(plugin: Plugin) -> None:
    assert start(plugin).result(DEADLINE) == {}


def test_twice_the_same(plugin: Plugin, guest: Guest) -> None:
    guest.store.write(ADVERT, b"one")
    assert start(plugin, guest.vm, guest.vm).result(DEADLINE) == {guest.vm: "one"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, min_size=1, max_size=3)
)


@given(JSON.map(json.dumps) | st.text())
def test_vms_that_are_none(vms: str) -> None:
    refused({"vms": vms, "timeout": "1"})


@pytest.mark.parametrize("vms", [[ONE] * (MAX_VMS + 1), [ONE + "\n"], [ONE.replace("1", "A")], {ONE: 1}, [ONE, None]])
def test_more_vms_that_are_none(vms: Any) -> None:
    refused({"vms": json.dumps(vms), "timeout": "1"})


def test_timeouts_that_are_none() -> None:
    for timeout in ("", "nan", "-1", "3601"):
        refused({"vms": json.dumps([ONE]), "timeout": timeout})
