from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Callable

import pytest

from agent_protocol.xenstore import StoreClosed, StoreError, StoreTimeout, WatchEvent
from guest_agent.store import wmi as module
from guest_agent.store.base import Store
from guest_agent.store.wmi import PROBE, WmiStore
from guest_agent.store.wmi_connection import MAX_WATCHES

from .fake_device import Tree
from .fake_wmi import ACCESS_DENIED, FAILED, INVALID_CLASS, NOT_FOUND, FakeWmi
from .windows_contract import CASES, DEADLINE, TOP, Place

OWN = f"xenward-{os.getpid()}"


def alive(number: int) -> bool:
    return number == os.getpid()


class FakePlace:
    """A guest with a fake WMI."""

    def __init__(self, prefix: str, unspecific: int) -> None:
        self.tree = Tree()
        self.wmi = FakeWmi(self.tree, prefix)
        self.wmi.unspecific = unspecific

    def open(self) -> Store:
        return WmiStore(self.wmi, alive)

    def get(self, path: str) -> bytes | None:
        return self.tree.get(path)

    def set(self, path: str, value: bytes) -> None:
        self.tree.put(path, value)

    def remove(self, path: str) -> None:
        self.tree.remove(path)


@pytest.mark.parametrize(("prefix", "unspecific"), [("Citrix", FAILED), ("XenProject", NOT_FOUND)])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_contract(case: Callable[[Place], None], prefix: str, unspecific: int) -> None:
    place = FakePlace(prefix, unspecific)
    case(place)
    _assert_nothing_left(place.wmi)


@pytest.fixture
def wmi() -> Iterator[FakeWmi]:
    wmi = FakeWmi(Tree())
    yield wmi
    wmi.released.set()
    assert wmi.misused == []


@pytest.fixture
def store(wmi: FakeWmi) -> Iterator[WmiStore]:
    store = WmiStore(wmi, alive)
    yield store
    store.close()


# Sessions


def test_one_thread_has_the_connection_and_one_the_events(wmi: FakeWmi, store: WmiStore) -> None:
    store.watch(TOP, "t")
    assert _event(store) == WatchEvent(TOP, "t")
    assert wmi.threads == {"xenward-wmi", "xenward-wmi-events"}
    assert wmi.session_names == [OWN]


def test_no_classes(wmi: FakeWmi) -> None:
    wmi.prefix = "Other"
    with pytest.raises(StoreClosed, match=f"Citrix: .*{INVALID_CLASS:x}.*XenProject: .*{INVALID_CLASS:x}"):
        WmiStore(wmi, alive)
    _assert_nothing_left(wmi)


@pytest.mark.parametrize(("method", "hresult"), [("connect", 0x8004100E), ("connect", 1), ("subscribe", 0x80041003)])
def test_no_connection(wmi: FakeWmi, method: str, hresult: int) -> None:
    wmi.fail[method] = hresult
    with pytest.raises(StoreClosed, match=f"{hresult:#010x}"):
        WmiStore(wmi, alive)
    _assert_nothing_left(wmi)


@pytest.mark.parametrize("method", ["SetWatch", "RemoveWatch"])
def test_a_connection_that_fails_half_way_ends_its_session(wmi: FakeWmi, method: str) -> None:
    wmi.fail[method] = FAILED
    with pytest.raises(StoreClosed, match="80041001"):
        WmiStore(wmi, alive)
    assert wmi.session_names == []
    wmi.break_events(FAILED)


def test_wmi_that_does_not_answer(wmi: FakeWmi) -> None:
    wmi.held = {"AddSession"}
    with pytest.raises(StoreClosed, match=r"did not answer in 0\.05 s"):
        WmiStore(wmi, alive, timeout=0.05, opening=0.05)
    # What comes late is ended, too.
    wmi.released.set()
    _join()
    assert "EndSession" in wmi.called
    _assert_nothing_left(wmi)


def test_events_that_do_not_come_at_first(wmi: FakeWmi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_PAUSE", 0.01)
    wmi.deaf = 3
    store = WmiStore(wmi, alive)
    assert wmi.called.count("SetWatch") == 4
    store.watch(TOP, "t")
    assert _event(store).token == "t"
    store.close()


def test_events_that_never_come(wmi: FakeWmi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_PAUSE", 0.001)
    monkeypatch.setattr(module, "LISTENING", 0.01)
    wmi.deaf = 1000
    with pytest.raises(StoreClosed, match="tells nothing"):
        WmiStore(wmi, alive)
    _join()
    _assert_nothing_left(wmi)


def test_sessions_of_the_dead_are_ended(wmi: FakeWmi) -> None:
    wmi.leave("xenward-999999", TOP, "data/b")
    for name in (OWN, "xenward-", "other", "xenward-12x", "Xxenward-12"):
        wmi.leave(name)
    WmiStore(wmi, alive).close()
    assert wmi.session_names == [OWN, "xenward-", "other", "xenward-12x", "Xxenward-12"]
    assert wmi.tree.watches == 0


def test_a_session_of_the_dead_that_cannot_be_ended_harms_nobody(wmi: FakeWmi) -> None:
    wmi.leave("xenward-999999")
    wmi.fail["EndSession"] = NOT_FOUND
    store = WmiStore(wmi, alive)
    wmi.fail.clear()
    store.close()
    assert wmi.session_names == ["xenward-999999"]


def test_a_session_that_is_gone_ends_the_connection(wmi: FakeWmi, store: WmiStore) -> None:
    ended: list[Exception] = []
    reader = threading.Thread(target=_wait, args=(store, ended))
    reader.start()
    wmi.lose_sessions()
    with pytest.raises(StoreClosed, match=f"session is gone.*{NOT_FOUND:x}"):
        store.read("data/a")
    reader.join(DEADLINE)
    assert not reader.is_alive()
    assert [type(error) for error in ended] == [StoreClosed]
    with pytest.raises(StoreClosed, match="session is gone"):
        store.write("data/a", b"")
    wmi.break_events(FAILED)


@pytest.mark.parametrize("hresult", [0x80010108, 0x800706BA, 0x800706BE, 0x8004100C, 0x80041010, 0x80041033])
@pytest.mark.parametrize("method", ["GetValue", "SetValue", "GetChildren", "RemoveValue", "SetWatch", "RemoveWatch"])
def test_wmi_that_is_gone_ends_the_connection(wmi: FakeWmi, store: WmiStore, method: str, hresult: int) -> None:
    calls: dict[str, Callable[[], object]] = {
        "GetValue": lambda: store.read("data/a"),
        "SetValue": lambda: store.write("data/a", b""),
        "GetChildren": lambda: store.directory("data/a"),
        "RemoveValue": lambda: store.remove("data/a"),
        "SetWatch": lambda: store.watch("data/b", "t"),
        "RemoveWatch": lambda: store.unwatch("data/a", "t"),
    }
    store.watch("data/a", "t")
    wmi.fail[method] = hresult
    with pytest.raises(StoreClosed, match=f"WMI: .*{hresult:x}"):
        calls[method]()
    wmi.fail.clear()
    with pytest.raises(StoreClosed):
        store.next_event(None)


def test_events_that_end_end_the_connection(wmi: FakeWmi, store: WmiStore) -> None:
    wmi.break_events(0x800706BA)
    with pytest.raises(StoreClosed, match=r"no more watches.*800706ba"):
        store.next_event(None)
    store.close()
    _assert_nothing_left(wmi)


def test_a_call_that_hangs(wmi: FakeWmi) -> None:
    store = WmiStore(wmi, alive, timeout=0.05)
    wmi.held = {"SetValue"}
    with pytest.raises(StoreTimeout, match=r"WRITE data/a: no answer in 0\.05 s") as error:
        store.write("data/a", b"secret")
    assert "secret" not in str(error.value)
    store.close()
    assert wmi.session_names == [OWN]
    # What hung is ended later, in its own thread.
    wmi.released.set()
    _join()
    assert wmi.tree.get("data/a") == b"secret"
    _assert_nothing_left(wmi)


def test_close_ends_all_even_when_the_session_cannot_be_ended(wmi: FakeWmi) -> None:
    store = WmiStore(wmi, alive)
    wmi.fail["EndSession"] = FAILED
    store.close()
    assert (wmi.connections, wmi.subscriptions) == (0, 0)


# Nodes


def test_codes(wmi: FakeWmi, store: WmiStore) -> None:
    wmi.tree.put("data/a", b"")
    wmi.tree.forbidden.add("data/a")
    for call in (
        lambda: store.read("data/a"),
        lambda: store.write("data/a", b""),
        lambda: store.directory("data/a"),
    ):
        with pytest.raises(StoreError) as error:
            call()
        assert error.value.code == "EACCES"
    wmi.fail = {"SetValue": 0x80041008, "RemoveValue": ACCESS_DENIED, "GetChildren": 0x80041006}
    assert _code(lambda: store.write("data/a", b"")) == "EINVAL"
    assert _code(lambda: store.remove("data/a")) == "EACCES"
    assert _code(lambda: store.directory("data")) == "ENOMEM"
    # Why a node is missing cannot be told when its parent may not be listed.
    wmi.fail = {"GetChildren": ACCESS_DENIED}
    assert _code(lambda: store.read("data/missing")) == "EACCES"


def test_what_cannot_be_explained_is_eio(wmi: FakeWmi, store: WmiStore) -> None:
    wmi.tree.put("data/a", b"")
    store.watch("data/w", "t")
    wmi.fail = dict.fromkeys(("SetValue", "RemoveValue", "SetWatch", "RemoveWatch"), FAILED)
    assert _code(lambda: store.write("data/a", b"")) == "EIO"
    assert _code(lambda: store.remove("data/a")) == "EIO"
    assert _code(lambda: store.watch("data/b", "t")) == "EIO"
    assert _code(lambda: store.unwatch("data/w", "t")) == "EIO"
    wmi.fail.clear()
    store.watch("data/b", "t")


def test_a_node_that_cannot_be_read_is_not_missing(wmi: FakeWmi, store: WmiStore) -> None:
    wmi.tree.put("data/a", b"v")
    original = wmi.tree.get
    wmi.tree.get = lambda path: None if path == "data/a" else original(path)  # type: ignore[method-assign]
    assert _code(lambda: store.read("data/a")) == "EIO"
    assert _code(lambda: store.directory("data/a")) == "EIO"


def test_a_node_that_comes_while_it_is_looked_for(wmi: FakeWmi, store: WmiStore) -> None:
    original, missing = wmi.tree.get, ["data/a"]
    wmi.tree.put("data/a", b"v")

    def get(path: str) -> bytes | None:
        if path in missing:
            missing.remove(path)
            return None
        return original(path)

    wmi.tree.get = get  # type: ignore[method-assign]
    assert store.read("data/a") == b"v"


def test_top_level_nodes(wmi: FakeWmi, store: WmiStore) -> None:
    assert store.read("domid") == b"7"
    assert _code(lambda: store.read("vm")) == "ENOENT"
    assert _code(lambda: store.directory("vm")) == "ENOENT"
    assert store.directory("domid") == []


def test_values_are_utf8(wmi: FakeWmi, store: WmiStore) -> None:
    wmi.tree.put("data/a", "zwölf\n".encode())
    assert store.read("data/a") == "zwölf\n".encode()


# Watches


def test_no_more_watches_than_a_session_may_have(wmi: FakeWmi, store: WmiStore) -> None:
    for number in range(MAX_WATCHES):
        store.watch(f"data/{number}", "t")
    assert _code(lambda: store.watch("data/more", "t")) == "E2BIG"
    # Another token of a path that is watched costs the driver nothing.
    store.watch("data/0", "u")
    store.unwatch("data/1", "t")
    store.watch("data/more", "t")


def test_events_of_others_are_not_ours(wmi: FakeWmi, store: WmiStore) -> None:
    wmi.leave("other", "data/theirs")
    store.watch("data/ours", "t")
    wmi.tree.put("data/theirs", b"")
    wmi.tree.put("data/ours", b"")
    assert _event(store) == WatchEvent("data/ours", "t")


def test_the_probe_can_be_watched(wmi: FakeWmi, store: WmiStore) -> None:
    store.watch(PROBE, "t")
    assert _event(store) == WatchEvent(PROBE, "t")


def test_events_come_after_a_suspend(wmi: FakeWmi, store: WmiStore) -> None:
    store.watch("data/a", "t")
    assert _event(store).token == "t"
    wmi.tree.renew_watches()
    assert _event(store).token == "t"


def test_two_tokens_of_one_path_cost_one_watch(wmi: FakeWmi, store: WmiStore) -> None:
    store.watch("data/a", "one")
    store.watch("data/a", "two")
    assert wmi.tree.watches == 1
    store.unwatch("data/a", "one")
    assert wmi.tree.watches == 1
    store.unwatch("data/a", "two")
    assert wmi.tree.watches == 0


def _assert_nothing_left(wmi: FakeWmi) -> None:
    assert wmi.misused == []
    assert wmi.session_names == []
    assert (wmi.connections, wmi.subscriptions, wmi.tree.watches) == (0, 0, 0)


def _join() -> None:
    """Wait for the threads that a store left behind."""
    for thread in threading.enumerate():
        if thread.name.startswith("xenward-wmi"):
            thread.join(DEADLINE)
            assert not thread.is_alive()


def _event(store: WmiStore) -> WatchEvent:
    event = store.next_event(DEADLINE)
    assert event is not None
    return event


def _code(call: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as error:
        call()
    return error.value.code


def _wait(store: WmiStore, ended: list[Exception]) -> None:
    try:
        store.next_event(None)
    except StoreClosed as error:
        ended.append(error)
