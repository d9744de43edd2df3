from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from agent_protocol.xenstore import StoreError, connect
from compute_driver.xenapi.guests import metadata, power, vms
from compute_driver.xenapi.guests.metadata import MAX_KEYS, MAX_VALUE, PREFIX
from compute_driver.xenapi.guests.vms import VM

from ..pool import Pool


@pytest.fixture
def vm(pool: Pool) -> Iterator[VM]:
    it = pool.vm()
    yield it
    power.shut_down(pool.server, vms.again(pool.server, it), timeout=0)
    pool.server.call("VM.destroy", it.ref)


def kept(pool: Pool, vm: VM) -> dict[str, str]:
    data: dict[str, str] = pool.server.call("VM.get_xenstore_data", vm.ref)
    return {key.removeprefix(PREFIX): value for key, value in data.items() if key.startswith(PREFIX)}


def seen(pool: Pool, vm: VM, key: str) -> str | None:
    """What the running guest reads."""
    domid = pool.server.call("VM.get_domid", vm.ref)
    with connect(str(pool.simulator.xenstore_socket)) as store:
        try:
            return store.read(f"/local/domain/{domid}/{PREFIX}{key}").decode()
        except StoreError:
            return None


def test_a_running_guest_reads_changes_at_once_and_after_its_next_boot(pool: Pool, vm: VM) -> None:
    vm = power.start(pool.server, vm)
    metadata.change(pool.server, vm, {"colour": ["+", "blü"], "name.of:it": ["+", "x"]})
    assert json.loads(seen(pool, vm, "colour") or "") == "blü"
    assert seen(pool, vm, "name_of_it") == '"x"'
    metadata.change(pool.server, vm, {"colour": ["+", "red"], "name.of:it": ["-"], "never there": ["-"]})
    assert seen(pool, vm, "colour") == '"red"'
    assert seen(pool, vm, "name_of_it") is None
    vm = power.reboot(pool.server, vm, hard=True)
    assert seen(pool, vm, "colour") == '"red"'


def test_a_halted_guest_will_read_them(pool: Pool, vm: VM) -> None:
    metadata.change(pool.server, vm, {"colour": ["+", "blue"]})
    assert kept(pool, vm) == {"colour": '"blue"'}
    vm = power.start(pool.server, vm)
    assert seen(pool, vm, "colour") == '"blue"'


def test_what_others_put_there_stays(pool: Pool, vm: VM) -> None:
    pool.server.call("VM.set_xenstore_data", vm.ref, {"vm-data/networking/0016": "{}", f"{PREFIX}old": '"1"'})
    metadata.change(pool.server, vm, {"new": ["+", "2"]})
    assert pool.server.call("VM.get_xenstore_data", vm.ref) == {
        "vm-data/networking/0016": "{}",
        f"{PREFIX}old": '"1"',
        f"{PREFIX}new": '"2"',
    }


@pytest.mark.parametrize(
    "diff",
    [
        {"": ["+", "x"]},
        {"k" * 256: ["+", "x"]},
        {"a.b": ["+", "x"], "a:b": ["+", "y"]},
        {"a": ["+"]},
        {"a": ["+", 7]},
        {"a": ["+", "x", "y"]},
        {"a": ["*", "x"]},
        {"a": []},
        {"a": ["+", "x" * (MAX_VALUE - 1)]},
        {str(number): ["+", "x"] for number in range(MAX_KEYS + 1)},
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_changes(pool: Pool, vm: VM, diff: Any) -> None:
    metadata.change(pool.server, vm, {"here": ["+", "before"]})
    with pytest.raises(Refused) as caught:
        metadata.change(pool.server, vm, {"good": ["+", "x"], **diff})
    assert caught.value.code == "bad_metadata"
    assert kept(pool, vm) == {"here": '"before"'}


class Map:
    """Stands for a XenServer that only keeps one map."""

    def __init__(self) -> None:
        self.data: dict[str, str] = {}

    def call(self, method: str, *arguments: Any) -> Any:
        if method == "VM.get_xenstore_data":
            return self.data
        assert method == "VM.set_xenstore_data"
        self.data = arguments[1]
        return ""


@given(st.text(min_size=1, max_size=255), st.text(max_size=160))
def test_any_key_and_value_become_a_node_below_ours(key: str, value: str) -> None:
    server: Any = Map()
    vm: Any = type("VM", (), {"ref": "ref", "uuid": str(uuid.uuid4())})()
    metadata.change(server, vm, {key: ["+", value]})
    ((path, text),) = server.data.items()
    name = path.removeprefix(PREFIX)
    assert (
        name != path and name and set(name) <= set("-_@ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
    )
    assert json.loads(text) == value and text.isascii() and len(text) <= MAX_VALUE
    metadata.change(server, vm, {key: ["-"]})
    assert server.data == {}
