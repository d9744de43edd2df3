"""Which of XenServer's changes are told, and of which instances."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from compute_driver.xenapi.connection import cache
from compute_driver.xenapi.connection.batches import Event
from compute_driver.xenapi.connection.cache import INSTANCE_KEY, Change, View
from compute_driver.xenapi.connection.events import Events
from compute_driver.xenapi.guests.listening import Listener


class Stream:
    """Stands for the stream of events: what a test says, happens."""

    def __init__(self) -> None:
        self.latest = cache.EMPTY
        self.told: list[str] = []
        self.error: Exception | None = None
        self._listener = Listener(cast(Events, self), self._hear)

    def subscribe(self, changed: Callable[[Change], None], listed: Callable[[View], None]) -> None:
        self.changed, self.listed = changed, listed

    def _hear(self, uuid: str) -> None:
        self.told.append(uuid)
        if self.error is not None:
            raise self.error

    def happens(self, *events: Event) -> list[str]:
        """The instances that are told then."""
        self.told.clear()
        self.latest, changes = cache.changed(self.latest, events, self.latest.generation + 1)
        for change in changes:
            self.changed(change)
        return list(self.told)


@pytest.fixture
def stream() -> Stream:
    return Stream()


def vm(ref: str, instance: str = "", **changes: Any) -> Event:
    other_config: Mapping[str, str] = {INSTANCE_KEY: instance} if instance else {}
    row = {
        "uuid": f"uuid of {ref}",
        "name_label": ref,
        "power_state": "Running",
        "resident_on": "host",
        "is_a_template": False,
        "is_a_snapshot": False,
        "is_control_domain": False,
        "other_config": other_config,
        **changes,
    }
    return Event("VM", ref, row)


def host(name: str) -> Event:
    return Event("host", "host", {"uuid": "uuid of host", "hostname": name, "enabled": True})


@pytest.mark.parametrize(
    "change",
    [{"power_state": "Halted"}, {"resident_on": "other"}, {"uuid": "another VM"}],
    ids=lambda it: next(iter(it)),
)
def test_what_get_info_says_is_told_once(stream: Stream, change: dict[str, str]) -> None:
    assert stream.happens(vm("vm", "a"), vm("other", "b")) == ["a", "b"]
    assert stream.happens(vm("vm", "a", **change)) == ["a"]
    assert stream.happens(vm("vm", "a", **change)) == []


def test_what_get_info_does_not_say_is_not_told(stream: Stream) -> None:
    stream.happens(vm("vm", "a"), host("one"))
    assert stream.happens(vm("vm", "a", name_label="renamed", tags=("x",))) == []
    assert stream.happens(Event("host", "host", {"uuid": "uuid of host", "hostname": "one", "enabled": False})) == []
    assert stream.happens(Event("VDI", "vdi", {"uuid": "x", "other_config": {INSTANCE_KEY: "a"}})) == []


def test_guests_that_come_and_go_are_told_and_strangers_are_not(stream: Stream) -> None:
    assert stream.happens(vm("vm", "a"), vm("stranger"), vm("copy", "a", is_a_snapshot=True)) == ["a"]
    assert stream.happens(Event("VM", "stranger", None), Event("VM", "copy", None)) == []
    assert stream.happens(Event("VM", "vm", None)) == ["a"]


def test_a_vm_that_becomes_another_instance_is_told_of_both(stream: Stream) -> None:
    stream.happens(vm("vm", "a"))
    assert stream.happens(vm("vm", "b")) == ["a", "b"]
    assert stream.happens(vm("vm", "b", name_label="instance-c")) == ["b", "c"]


def test_a_node_with_another_name_is_told_of_all_guests(stream: Stream) -> None:
    stream.happens(vm("vm", "a"), vm("other", "b"), host("one"))
    assert stream.happens(host("two")) == ["a", "b"]


def test_after_an_interruption_every_guest_is_told(stream: Stream) -> None:
    stream.happens(vm("vm", "a"), vm("other", "b"), vm("stranger"))
    stream.told.clear()
    stream.listed(stream.latest)
    assert stream.told == ["a", "b"]


def test_who_fails_is_logged_and_told_the_rest(stream: Stream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    stream.error = ValueError("hunter2")
    assert stream.happens(vm("vm", "a"), vm("other", "b")) == ["a", "b"]
    assert caplog.text.count("ValueError") == 2
    assert "hunter2" not in caplog.text
