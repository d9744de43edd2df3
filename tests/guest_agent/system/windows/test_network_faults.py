"""Errors and the agent's end at every single call, going forward, going back, and starting again."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_protocol.outcomes import Failed, Refused, Unsuccessful
from guest_agent.network.data import NetworkData
from guest_agent.system.windows.network_model import IPV6
from guest_agent.system.windows.network_record import RECORD

from ...network.strategies import networks
from .fake_network import FakeWindows, MemoryState
from .fake_network_guest import (
    NEW,
    OLD,
    OLD_USABLE,
    Crash,
    Faults,
    Guest,
    crash_half_way,
    crashing,
    divide_by_zero,
    fail,
    failing,
)


@pytest.fixture(params=[False, True], ids=["model", "running"])
def guest(request: pytest.FixtureRequest) -> Guest:
    """As the agent's own types tell it, and as CIM and netsh do: all must hold for both."""
    return Guest(request.param)


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("reboot", [False, True])
def test_a_crash_at_every_call(reboot: bool, running: bool) -> None:
    before = Guest().picture()
    at = 0
    while True:
        guest = Guest(running)
        restart = crashing(guest, at)
        try:
            guest.apply(NEW)
            break
        except Crash:
            restart()
        if reboot:
            guest.windows.reboot()
        guest.recover()
        assert guest.picture() == before, at
        assert guest.state.files == {}, at
        assert guest.usable() == (OLD_USABLE - {"192.0.2.200/24"} if reboot else OLD_USABLE), at
        at += 1
    assert at > 40
    assert guest.state.files == {}


@pytest.mark.parametrize("running", [False, True])
def test_a_crash_at_every_call_of_going_back(running: bool) -> None:
    before = Guest().picture()
    at = 0
    ended = False
    while not ended:
        guest = Guest(running)
        guest.windows.duplicates = {ip_address("198.51.100.6")}
        restart = crashing(guest, at)
        try:
            failing(guest, "network_failed")
            ended = True
        except Crash:
            pass
        restart()
        # And once more, while it recovers.
        restart = crashing(guest, at % 40)
        try:
            guest.recover()
        except Crash:
            pass
        restart()
        guest.recover()
        assert (guest.picture(), guest.state.files) == (before, {}), at
        at += 1
    assert at > 80


@pytest.mark.parametrize("kind", ["refused", "done but refused", "ignored", "broken"])
@pytest.mark.parametrize("running", [False, True])
def test_a_fault_at_every_call(kind: str, running: bool) -> None:
    before = Guest().picture()
    done = Guest()
    done.apply(NEW)
    after = done.picture()
    at, failures, ended = 0, 0, False
    while not ended:
        guest = Guest(running)
        faults = Faults(guest, at, {"broken": divide_by_zero, "ignored": lambda: True}.get(kind, fail))
        if kind == "done but refused":
            faults.after()
        try:
            guest.apply(NEW)
            assert guest.picture() == after, at
        except (Unsuccessful, ZeroDivisionError) as error:
            failures += 1
            if isinstance(error, Unsuccessful):
                assert error.code in {"network_failed", "network_undo_pending"}, (at, error)
            assert guest.picture() == before, at
            # What is in force, too; addresses that no lease brings.
            assert guest.usable() == OLD_USABLE, at
        assert guest.state.files == {}, at
        ended = not faults.happened()
        at += 1
    assert failures > 10


@pytest.mark.parametrize("running", [False, True])
def test_a_fault_of_going_back_at_every_call(running: bool) -> None:
    """Whatever happens, what is told is true, and the next start brings the old configuration back."""
    before = Guest().picture()
    at, lost, ended = 0, 0, False
    while not ended:
        guest = Guest(running)
        guest.windows.duplicates = {ip_address("198.51.100.6")}
        faults = Faults(guest, at, fail)
        with pytest.raises(Unsuccessful) as caught:
            guest.apply(NEW)
        faults.end()
        if caught.value.code == "network_lost":
            lost += 1
        else:
            assert guest.picture() == before, at
            assert guest.state.files == {}
        guest.recover()
        assert (guest.picture(), guest.state.files) == (before, {}), at
        ended = not faults.happened()
        at += 1
    assert lost > 5


def test_adapters_that_appear_late(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    before = guest.picture()
    crash_half_way(guest)
    late = guest.windows.present.pop(6)
    guest.recover()
    assert "1 of its adapters are not there yet" in caplog.text
    assert list(json.loads(guest.state.files[RECORD])["adapters"]) == [late.guid]
    # An adapter that is back as it was is not touched by it any more.
    guest.eth0.suffix = "repaired.example"
    guest.windows.present[16] = late
    guest.recover()
    assert (guest.eth0.suffix, guest.state.files) == ("repaired.example", {})
    guest.eth0.suffix = "old.example"
    assert guest.picture() == before


def test_adapters_that_are_gone_for_good(guest: Guest) -> None:
    crash_half_way(guest)
    del guest.windows.present[6]
    guest.recover()
    guest.apply(OLD)
    assert guest.state.files == {}


def test_a_protocol_that_was_switched_off_meanwhile(guest: Guest) -> None:
    crash_half_way(guest)
    del guest.eth0.protocols[IPV6]
    guest.recover()
    assert guest.state.files == {}


def with_macs(network: NetworkData) -> FakeWindows:
    windows = FakeWindows()
    for number, interface in enumerate(network.interfaces):
        adapter = windows.add(number + 1, interface.mac, name=f"net {number}")
        for protocol in adapter.protocols.values():
            protocol.start(0)
    return windows


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=networks(), second=networks(), fault=st.none() | st.integers(0, 120))
def test_random_networks(first: NetworkData, second: NetworkData, fault: int | None) -> None:
    windows, state = with_macs(max(first, second, key=lambda each: len(each.interfaces))), MemoryState()
    guest = Guest.__new__(Guest)
    guest.windows = guest.network = windows
    guest.state = state
    try:
        guest.apply(first)
    except Refused as error:
        assert error.code == "bad_network_data"
    except Failed as error:
        # An MTU beyond that of the link.
        assert error.code == "network_failed"
    before, usable = guest.picture(), guest.usable()
    assert state.files == {}
    faults = Faults(guest, fault, fail)
    try:
        applied = guest.apply(second)
    except Unsuccessful as error:
        assert error.code in {"bad_network_data", "network_failed", "network_lost", "network_undo_pending"}
        assert (error.code == "network_lost") <= (fault is not None)
        faults.end()
        guest.recover()
        assert (guest.picture(), guest.usable()) == (before, usable)
        return
    faults.end()
    wanted = {str(address) for interface in second.interfaces for address in interface.addresses}
    assert applied.seen == len(wanted)
    assert wanted <= guest.usable()
    windows.reboot()
    assert wanted <= guest.usable()
    stored = guest.picture()
    assert guest.apply(second).changed == ()
    assert guest.picture() == stored
