from __future__ import annotations

import threading
from typing import Callable

import pytest

from agent_protocol.xenstore import StoreClosed, StoreError, WatchEvent
from guest_agent.store import xeniface_calls as calls
from guest_agent.store.base import Store
from guest_agent.store.xeniface import MAX_WATCHES, XenifaceStore
from guest_agent.store.xeniface_calls import DeviceError

from .fake_device import FakeDevice, Tree
from .windows_contract import CASES, DEADLINE, TOP, Place


class FakePlace:
    """A guest with a fake device; each connection has a handle of its own."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.devices: list[FakeDevice] = []

    def open(self) -> Store:
        self.devices.append(FakeDevice(self.tree))
        return XenifaceStore(self.devices[-1])

    def get(self, path: str) -> bytes | None:
        return self.tree.get(path)

    def set(self, path: str, value: bytes) -> None:
        self.tree.put(path, value)

    def remove(self, path: str) -> None:
        self.tree.remove(path)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_contract(case: Callable[[Place], None]) -> None:
    place = FakePlace()
    case(place)
    for device in place.devices:
        assert (device.closed, device.open_events, device.watches) == (1, 0, 0)
    assert place.tree.watches == 0


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice(Tree())


@pytest.fixture
def store(device: FakeDevice) -> XenifaceStore:
    return XenifaceStore(device)


# Nodes


def test_answers_larger_than_one_packet_are_asked_for_again(device: FakeDevice, store: XenifaceStore) -> None:
    device.tree.put("data/large", b"x" * 20000)
    assert store.read("data/large") == b"x" * 20000
    names = [f"n{number:099d}" for number in range(100)]
    for name in names:
        device.tree.put(f"data/list/{name}", b"")
    assert sorted(store.directory("data/list")) == names


def test_ordinary_answers_take_one_call(device: FakeDevice, store: XenifaceStore) -> None:
    device.tree.put("data/a", b"x" * 4096)
    assert len(store.read("data/a")) == 4096
    assert store.directory("data") == ["a"]
    assert device.sent == [calls.READ, calls.DIRECTORY]


def test_an_answer_that_always_grows_is_given_up(device: FakeDevice, store: XenifaceStore) -> None:
    size = 5000

    def grow(code: int, data: bytes, out_size: int) -> bytes:
        nonlocal size
        size += 1
        raise DeviceError(87 if out_size else 234, size)

    device.ioctl = grow  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="EIO"):
        store.read("data/a")


def test_what_the_host_writes_need_not_be_ascii(device: FakeDevice, store: XenifaceStore) -> None:
    device.tree.put("data/a", "zwei\nä\xff".encode("latin-1") + b"\0cut")
    assert store.read("data/a") == "zwei\nä\xff".encode("latin-1")


@pytest.mark.parametrize(
    ("winerror", "code"),
    [
        (1, "ENOSYS"),
        (2, "ENOENT"),
        (3, "ENOENT"),
        (5, "EACCES"),
        (8, "ENOMEM"),
        (31, "EIO"),
        (87, "EINVAL"),
        (170, "EBUSY"),
        (1450, "ENOSPC"),
        (1784, "EINVAL"),
        (1816, "EQUOTA"),
        (123456, "EIO"),
    ],
)
def test_errors_have_the_daemons_names(device: FakeDevice, store: XenifaceStore, winerror: int, code: str) -> None:
    for ioctl in (calls.READ, calls.WRITE, calls.REMOVE, calls.ADD_WATCH):
        device.fail[ioctl] = winerror
    for call in (
        lambda: store.read("data/a"),
        lambda: store.write("data/a", b"secret"),
        lambda: store.remove("data/a"),
        lambda: store.watch("data/a", "t"),
    ):
        with pytest.raises(StoreError, match="data/a") as error:
            call()
        assert error.value.code == code
        assert "secret" not in str(error.value)
    # A watch that could not be set leaves nothing behind, and can be set later.
    assert device.open_events == 1
    del device.fail[calls.ADD_WATCH]
    store.watch("data/a", "t")
    assert store.next_event(DEADLINE) == WatchEvent("data/a", "t")


def test_forbidden_nodes(device: FakeDevice, store: XenifaceStore) -> None:
    device.tree.put("data/a", b"")
    device.tree.forbidden.add("data/a")
    for call in (
        lambda: store.read("data/a"),
        lambda: store.directory("data/a"),
        lambda: store.write("data/a", b""),
        lambda: store.remove("data/a"),
    ):
        with pytest.raises(StoreError) as error:
            call()
        assert error.value.code == "EACCES"


def test_answers_are_not_trusted(device: FakeDevice, store: XenifaceStore) -> None:
    for answer in (b"", b"a", b"a\0b\0"):
        device.ioctl = lambda code, data, out_size, answer=answer: answer  # type: ignore[method-assign, misc]
        with pytest.raises(StoreError, match="DIRECTORY data: EIO"):
            store.directory("data")
        with pytest.raises(StoreError, match="WATCH data: EIO"):
            store.watch("data", "t")
    device.ioctl = lambda code, data, out_size: b"no end"  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="READ data: EIO"):
        store.read("data")
    # What an older driver answers for a node without children.
    device.ioctl = lambda code, data, out_size: b"\0\0"  # type: ignore[method-assign]
    assert store.directory("data") == []
    assert device.open_events == 1


def test_nothing_is_sent_that_the_driver_refuses(device: FakeDevice, store: XenifaceStore) -> None:
    with pytest.raises(StoreError):
        store.write("data/a", b"\n")
    with pytest.raises(StoreError):
        store.write("data/a", b"v" * 4096)
    with pytest.raises(StoreError):
        store.watch("data/ä", "t")
    assert device.sent == []


# The end of a device


@pytest.mark.parametrize("winerror", [6, 21, 433, 995, 1167, 1617])
def test_a_device_that_is_gone_ends_the_connection(device: FakeDevice, store: XenifaceStore, winerror: int) -> None:
    ended: list[Exception] = []
    reader = threading.Thread(target=_wait, args=(store, ended))
    reader.start()
    assert device.waiting.wait(DEADLINE)
    device.fail[calls.READ] = winerror
    with pytest.raises(StoreClosed, match=f"XENIFACE: .*{winerror}"):
        store.read("data/a")
    reader.join(DEADLINE)
    assert not reader.is_alive()
    assert [str(winerror) in str(error) for error in ended] == [True]
    assert isinstance(ended[0], StoreClosed)
    device.fail.clear()
    with pytest.raises(StoreClosed):
        store.write("data/a", b"")
    assert device.closed == 0
    store.close()
    assert (device.closed, device.open_events) == (1, 0)


def test_events_that_cannot_be_waited_for_end_the_connection(device: FakeDevice, store: XenifaceStore) -> None:
    def fail(events: object, timeout: object) -> None:
        raise DeviceError(5)

    device.wait = fail  # type: ignore[method-assign]
    with pytest.raises(StoreClosed, match="events"):
        store.next_event(None)


def test_a_device_without_events_is_closed(device: FakeDevice) -> None:
    def fail() -> int:
        raise DeviceError(1450)

    device.new_event = fail  # type: ignore[method-assign]
    with pytest.raises(StoreClosed, match="1450"):
        XenifaceStore(device)
    assert device.closed == 1


def test_close_does_not_wait_for_a_call_that_hangs(device: FakeDevice, store: XenifaceStore) -> None:
    store.watch("data/a", "t")
    device.held = {calls.READ}
    device.tree.put("data/a", b"late")
    values: list[bytes] = []
    caller = threading.Thread(target=lambda: values.append(store.read("data/a")))
    caller.start()
    assert device.hanging.wait(DEADLINE)
    store.close()
    # What the call still uses is there, and given back as soon as it returns.
    assert device.closed == 0
    device.released.set()
    caller.join(DEADLINE)
    assert values == [b"late"]
    assert (device.closed, device.open_events, device.watches) == (1, 0, 0)


def test_close_while_a_watch_is_set(device: FakeDevice, store: XenifaceStore) -> None:
    device.held = {calls.ADD_WATCH}
    caller = threading.Thread(target=lambda: store.watch("data/a", "t"))
    caller.start()
    assert device.hanging.wait(DEADLINE)
    with pytest.raises(StoreError, match="ENOENT"):
        store.unwatch("data/a", "t")
    store.close()
    device.released.set()
    caller.join(DEADLINE)
    assert (device.closed, device.open_events, device.watches) == (1, 0, 0)


def test_close_releases_what_it_can(device: FakeDevice, store: XenifaceStore) -> None:
    for name in "abc":
        store.watch(f"data/{name}", name)
    device.fail[calls.REMOVE_WATCH] = 1167
    store.close()
    assert (device.closed, device.open_events) == (1, 0)
    assert device.tree.watches == 0
    assert device.sent.count(calls.REMOVE_WATCH) == 3


# Watches


def test_no_more_watches_than_can_be_waited_for(device: FakeDevice, store: XenifaceStore) -> None:
    for number in range(MAX_WATCHES):
        store.watch(f"data/{number}", "t")
    with pytest.raises(StoreError) as error:
        store.watch("data/more", "t")
    assert error.value.code == "E2BIG"
    seen = {_event(store).path for _ in range(MAX_WATCHES)}
    assert len(seen) == MAX_WATCHES
    store.unwatch("data/5", "t")
    store.watch("data/more", "t")
    assert _event(store) == WatchEvent("data/more", "t")
    assert device.open_events == 1 + MAX_WATCHES
    store.close()
    assert device.open_events == 0


def test_a_watch_is_waited_for_at_once(device: FakeDevice, store: XenifaceStore) -> None:
    events: list[WatchEvent | None] = []
    reader = threading.Thread(target=lambda: events.append(store.next_event(None)), daemon=True)
    reader.start()
    assert device.waiting.wait(DEADLINE)
    store.watch("data/a", "t")
    reader.join(DEADLINE)
    assert events == [WatchEvent("data/a", "t")]


def test_who_waits_for_its_turn_gets_the_next_event(device: FakeDevice, store: XenifaceStore) -> None:
    for number in range(3):
        store.watch(f"data/{number}", "t")
        _event(store)
    events: list[WatchEvent] = []
    readers = [threading.Thread(target=lambda: events.append(_event(store))) for _ in range(3)]
    for reader in readers:
        reader.start()
    assert device.waiting.wait(DEADLINE)
    for number in range(3):
        device.tree.put(f"data/{number}", b"")
    for reader in readers:
        reader.join(DEADLINE)
        assert not reader.is_alive()
    assert sorted(event.path for event in events) == ["data/0", "data/1", "data/2"]


def test_an_event_is_closed_only_when_nobody_waits_for_it(device: FakeDevice, store: XenifaceStore) -> None:
    # The fake asserts it; here a thread waits all the time.
    ended: list[Exception] = []
    reader = threading.Thread(target=_wait, args=(store, ended))
    reader.start()
    for _ in range(200):
        assert device.waiting.wait(DEADLINE)
        store.watch(TOP, "t")
        store.unwatch(TOP, "t")
    store.close()
    reader.join(DEADLINE)
    assert not reader.is_alive()
    assert [type(error) for error in ended] == [StoreClosed]
    assert (device.closed, device.open_events, device.watches) == (1, 0, 0)


def test_events_come_after_a_suspend(device: FakeDevice, store: XenifaceStore) -> None:
    store.watch("data/a", "t")
    assert _event(store).token == "t"
    device.tree.renew_watches()
    assert _event(store).token == "t"


def test_an_unwatch_that_fails_is_told(device: FakeDevice, store: XenifaceStore) -> None:
    store.watch("data/a", "t")
    device.fail[calls.REMOVE_WATCH] = 170
    with pytest.raises(StoreError) as error:
        store.unwatch("data/a", "t")
    assert error.value.code == "EBUSY"
    # The driver may still set the event; nobody waits for it any more.
    assert device.open_events == 1


def test_a_wait_may_end_early(device: FakeDevice, store: XenifaceStore) -> None:
    # WaitForMultipleObjects goes by the ticks of the system's clock.
    device.early_timeouts = 3
    device.tree.put("data/a", b"")
    timer = threading.Timer(0.05, lambda: store.watch("data/a", "t"))
    timer.start()
    assert _event(store).token == "t"


def test_a_token_may_hold_anything(store: XenifaceStore) -> None:
    # It never leaves this process.
    store.watch("data/a", "ä\n")
    assert _event(store).token == "ä\n"


def test_waiting_events_are_kept_once(device: FakeDevice, store: XenifaceStore) -> None:
    store.watch("data/a", "a")
    store.watch("data/b", "b")
    for _ in range(5):
        device.tree.put("data/a", b"")
    assert [_event(store).token for _ in range(2)] == ["a", "b"]
    assert store.next_event(0) is None


def _event(store: XenifaceStore) -> WatchEvent:
    event = store.next_event(DEADLINE)
    assert event is not None
    return event


def _wait(store: XenifaceStore, ended: list[Exception]) -> None:
    try:
        while True:
            store.next_event(None)
    except StoreClosed as error:
        ended.append(error)
