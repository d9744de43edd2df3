"""What a Windows guest's store must do, whichever way it is reached: on a fake, on a fake driver, on a real one.

Nothing but Python is needed, so it runs inside the guest as well:

    python -m tests.guest_agent.store.windows_contract [xeniface|wmi|windows]

There a second connection plays the host's part. Its output goes to standard output, one line per case; the exit
status tells whether all went well. It writes below TOP only.
"""

from __future__ import annotations

import sys
import threading
import traceback
from contextlib import closing
from functools import partial
from typing import Callable, Protocol

from agent_protocol.wire import WireError
from agent_protocol.xenstore import StoreClosed, StoreError
from guest_agent.store.base import Store
from guest_agent.store.windows import open_windows_store

TOP = "data/xenward-contract"
DEADLINE = 30.0
"""Seconds that anything may take before it counts as not happening."""


class Place(Protocol):
    """Where a guest's store is, seen from both sides."""

    def open(self) -> Store:
        """A new connection of the guest's."""

    def get(self, path: str) -> bytes | None:
        """A node's value as the host sees it; None when it is missing."""

    def set(self, path: str, value: bytes) -> None:
        """The host writes a node."""

    def remove(self, path: str) -> None:
        """The host removes a node, if it is there, and all below it."""


def value_is_read_and_written(place: Place) -> None:
    with closing(place.open()) as store:
        store.write(f"{TOP}/a", b"one")
        assert place.get(f"{TOP}/a") == b"one"
        assert store.read(f"{TOP}/a") == b"one"
        place.set(f"{TOP}/a", b"two")
        assert store.read(f"{TOP}/a") == b"two"


def value_may_be_empty(place: Place) -> None:
    with closing(place.open()) as store:
        store.write(f"{TOP}/a", b"full")
        store.write(f"{TOP}/a", b"")
        assert store.read(f"{TOP}/a") == b""
        assert store.directory(TOP) == ["a"]


def value_holds_all_printable_characters(place: Place) -> None:
    printable = bytes(range(0x20, 0x7F))
    with closing(place.open()) as store:
        store.write(f"{TOP}/a", printable)
        assert store.read(f"{TOP}/a") == printable


def value_may_be_long(place: Place) -> None:
    value = b"v" * 2000
    with closing(place.open()) as store:
        store.write(f"{TOP}/a", value)
        assert place.get(f"{TOP}/a") == value
        assert store.read(f"{TOP}/a") == value


def value_that_is_not_printable_is_refused(place: Place) -> None:
    with closing(place.open()) as store:
        store.write(f"{TOP}/a", b"old")
        for value in (b"a\nb", b"a\0b", b"\x7f", "ä".encode(), b"\xff", b"\t"):
            assert _code(partial(store.write, f"{TOP}/a", value)) == "EINVAL"
        assert store.read(f"{TOP}/a") == b"old"


def value_that_fits_no_packet_is_refused(place: Place) -> None:
    path = f"{TOP}/a"
    with closing(place.open()) as store:
        assert _code(lambda: store.write(path, b"v" * (4096 - len(path)))) == "E2BIG"
        assert _code(lambda: store.read(path)) == "ENOENT"


def path_that_can_be_none_is_refused(place: Place) -> None:
    with closing(place.open()) as store:
        for path in (f"{TOP}/ä", f"{TOP}/a\nb", f"{TOP}/a\0b"):
            for call in _all_calls(store, path):
                assert _code(call) == "EINVAL"
        for path in ("", f"{TOP}/", f"{TOP}//a", f"{TOP}/a b", "data/" + "x" * 2048):
            for call in _all_calls(store, path):
                try:
                    call()
                except WireError:
                    continue
                raise AssertionError(f"no WireError for {path[:40]!r}")


def missing_node_is_told(place: Place) -> None:
    with closing(place.open()) as store:
        for path in (TOP, f"{TOP}/a", f"{TOP}/a/b/c"):
            assert _code(partial(store.read, path)) == "ENOENT"
            assert _code(partial(store.directory, path)) == "ENOENT"
        assert _code(lambda: store.remove(f"{TOP}/a/b")) == "ENOENT"
        store.write(f"{TOP}/other", b"")
        assert _code(lambda: store.read(f"{TOP}/a")) == "ENOENT"
        assert _code(lambda: store.directory(f"{TOP}/a")) == "ENOENT"
        # Its parent is there and empty, which looks much the same to a driver.
        assert _code(lambda: store.read(f"{TOP}/other/a")) == "ENOENT"


def names_are_listed(place: Place) -> None:
    with closing(place.open()) as store:
        for name in ("b", "a", "c@1", "A_-"):
            place.set(f"{TOP}/{name}/below", b"x")
        assert sorted(store.directory(TOP)) == ["A_-", "a", "b", "c@1"]
        assert store.directory(f"{TOP}/a") == ["below"]
        assert store.directory(f"{TOP}/a/below") == []


def many_names_are_listed(place: Place) -> None:
    # The names of its children count towards the 2048 bytes that a guest's node may have.
    names = [f"{number:036d}" for number in range(40)]
    with closing(place.open()) as store:
        for name in names:
            store.write(f"{TOP}/{name}", b"")
        assert sorted(store.directory(TOP)) == names


def node_is_removed_with_all_below(place: Place) -> None:
    with closing(place.open()) as store:
        store.write(f"{TOP}/a/b/c", b"x")
        store.write(f"{TOP}/ab", b"x")
        store.remove(f"{TOP}/a")
        assert store.directory(TOP) == ["ab"]
        assert place.get(f"{TOP}/a/b/c") is None


def watch_fires_once_when_it_is_set(place: Place) -> None:
    with closing(place.open()) as store:
        store.watch(f"{TOP}/missing", "first")
        event = store.next_event(DEADLINE)
        assert event is not None
        assert event == (f"{TOP}/missing", "first")
        store.watch(TOP, "second")
        assert _tokens_until(store, "second") == ["second"]
        assert store.next_event(0) is None


def watch_fires_at_each_change(place: Place) -> None:
    with closing(place.open()) as store:
        store.watch(f"{TOP}/a", "t")
        _tokens_until(store, "t")
        changes: list[Callable[[], None]] = [
            lambda: place.set(f"{TOP}/a", b"made"),
            lambda: place.set(f"{TOP}/a", b"changed"),
            lambda: place.set(f"{TOP}/a/b/c", b"below"),
            lambda: place.remove(f"{TOP}/a/b"),
            lambda: place.remove(f"{TOP}/a"),
            lambda: store.write(f"{TOP}/a", b"by the guest"),
        ]
        for change in changes:
            change()
            event = store.next_event(DEADLINE)
            assert event is not None
            # Which node below it was need not be told.
            assert (event.path.startswith(f"{TOP}/a"), event.token) == (True, "t")
            # More than one may come where more than one node changed.
            _drain(store)


def watch_tells_its_own_changes_only(place: Place) -> None:
    with closing(place.open()) as store:
        for name in ("a", "ab", "b"):
            store.watch(f"{TOP}/{name}", name)
            _tokens_until(store, name)
        place.set(f"{TOP}/ab", b"")
        place.set(f"{TOP}/b/c", b"")
        _tokens_until(store, "b", but_not="a")


def watches_of_one_path_all_fire(place: Place) -> None:
    with closing(place.open()) as store:
        store.watch(TOP, "one")
        assert _tokens_until(store, "one") == ["one"]
        store.watch(TOP, "two")
        _tokens_until(store, "two")
        _drain(store)
        place.set(f"{TOP}/a", b"")
        seen = {_token(store), _token(store)}
        assert seen == {"one", "two"}
        assert _code(lambda: store.watch(TOP, "two")) == "EEXIST"


def no_watch_hides_another(place: Place) -> None:
    names = [str(number) for number in range(10)]
    with closing(place.open()) as store:
        for name in names:
            store.watch(f"{TOP}/{name}", name)
        missing = set(names)
        while missing:
            missing.discard(_token(store))
        _drain(store)
        for name in names:
            place.set(f"{TOP}/{name}", b"")
        missing = set(names)
        while missing:
            # The first one never stands still.
            place.set(f"{TOP}/0", b"")
            missing.discard(_token(store))


def watch_ends(place: Place) -> None:
    with closing(place.open()) as store:
        store.watch(f"{TOP}/a", "gone")
        store.watch(f"{TOP}/a", "stays")
        store.unwatch(f"{TOP}/a", "gone")
        assert _code(lambda: store.unwatch(f"{TOP}/a", "gone")) == "ENOENT"
        assert _code(lambda: store.unwatch(f"{TOP}/b", "stays")) == "ENOENT"
        _tokens_until(store, "stays")
        _drain(store)
        place.set(f"{TOP}/a", b"")
        _tokens_until(store, "stays", but_not="gone")
        store.unwatch(f"{TOP}/a", "stays")
        # It can be set again, and tells itself again.
        store.watch(f"{TOP}/a", "gone")
        _tokens_until(store, "gone")


def watches_change_while_another_thread_waits(place: Place) -> None:
    with closing(place.open()) as store:
        store.watch(f"{TOP}/a", "a")
        _tokens_until(store, "a")
        seen: list[str] = []
        reader = threading.Thread(target=lambda: seen.extend(_tokens_until(store, "end")))
        reader.start()
        store.watch(f"{TOP}/b", "b")
        store.unwatch(f"{TOP}/a", "a")
        place.set(f"{TOP}/a", b"")
        store.watch(f"{TOP}/end", "end")
        reader.join(DEADLINE)
        assert not reader.is_alive()
        assert "b" in seen
        assert "a" not in seen


def no_change_is_missed(place: Place) -> None:
    rounds = 50
    with closing(place.open()) as store:
        store.watch(f"{TOP}/n", "n")

        def change() -> None:
            for number in range(rounds + 1):
                place.set(f"{TOP}/n", str(number).encode())

        host = threading.Thread(target=change)
        host.start()
        # Whoever looks after each event sees the last value.
        while _token(store) != "n" or _read(store, f"{TOP}/n") != str(rounds).encode():
            pass
        host.join(DEADLINE)


def close_wakes_who_waits(place: Place) -> None:
    store = place.open()
    store.watch(TOP, "t")
    _tokens_until(store, "t")
    ended: list[Exception] = []
    readers = [threading.Thread(target=_wait_for_ever, args=(store, ended)) for _ in range(3)]
    for reader in readers:
        reader.start()
    store.close()
    for reader in readers:
        reader.join(DEADLINE)
        assert not reader.is_alive()
    assert [type(error) for error in ended] == [StoreClosed] * 3


def closed_store_is_closed(place: Place) -> None:
    store = place.open()
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [*_all_calls(store, TOP), lambda: store.next_event(0)]
    for call in calls:
        try:
            call()
        except StoreClosed:
            continue
        except StoreError as error:
            raise AssertionError(f"not StoreClosed but {error}") from None
        raise AssertionError("a call after close")


def connections_are_independent(place: Place) -> None:
    with closing(place.open()) as one, closing(place.open()) as other:
        one.watch(f"{TOP}/a", "one")
        other.watch(f"{TOP}/b", "other")
        assert _tokens_until(one, "one") == ["one"]
        assert _tokens_until(other, "other") == ["other"]
        one.close()
        place.set(f"{TOP}/b", b"still")
        _tokens_until(other, "other")
        assert other.read(f"{TOP}/b") == b"still"


def _code(call: Callable[[], object]) -> str:
    try:
        call()
    except StoreError as error:
        return error.code
    raise AssertionError("it was not refused")


def _all_calls(store: Store, path: str) -> list[Callable[[], object]]:
    return [
        lambda: store.read(path),
        lambda: store.write(path, b""),
        lambda: store.remove(path),
        lambda: store.directory(path),
        lambda: store.watch(path, "t"),
        lambda: store.unwatch(path, "t"),
    ]


def _read(store: Store, path: str) -> bytes | None:
    try:
        return store.read(path)
    except StoreError:
        return None


def _token(store: Store) -> str:
    event = store.next_event(DEADLINE)
    assert event is not None, "no event came"
    return event.token


def _tokens_until(store: Store, last: str, but_not: str | None = None) -> list[str]:
    tokens = [_token(store)]
    while tokens[-1] != last:
        tokens.append(_token(store))
    assert but_not not in tokens
    return tokens


def _drain(store: Store) -> None:
    """Take what has come of changes that are over: a new watch fires, and its event comes after theirs."""
    path, token = f"{TOP}/drain", "drain"
    store.watch(path, token)
    _tokens_until(store, token)
    store.unwatch(path, token)


def _wait_for_ever(store: Store, ended: list[Exception]) -> None:
    try:
        store.next_event(None)
    except Exception as error:
        ended.append(error)


CASES: dict[str, Callable[[Place], None]] = {
    case.__name__: case
    for case in (
        value_is_read_and_written,
        value_may_be_empty,
        value_holds_all_printable_characters,
        value_may_be_long,
        value_that_is_not_printable_is_refused,
        value_that_fits_no_packet_is_refused,
        path_that_can_be_none_is_refused,
        missing_node_is_told,
        names_are_listed,
        many_names_are_listed,
        node_is_removed_with_all_below,
        watch_fires_once_when_it_is_set,
        watch_fires_at_each_change,
        watch_tells_its_own_changes_only,
        watches_of_one_path_all_fire,
        no_watch_hides_another,
        watch_ends,
        watches_change_while_another_thread_waits,
        no_change_is_missed,
        close_wakes_who_waits,
        closed_store_is_closed,
        connections_are_independent,
    )
}


class RealPlace:
    """The guest that this runs in; a connection of its own does what the host would."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._host = self.open()

    def open(self) -> Store:
        return open_windows_store(self._where)

    def get(self, path: str) -> bytes | None:
        return _read(self._host, path)

    def set(self, path: str, value: bytes) -> None:
        self._host.write(path, value)

    def remove(self, path: str) -> None:
        try:
            self._host.remove(path)
        except StoreError as error:
            if error.code != "ENOENT":
                raise

    def close(self) -> None:
        self._host.close()


def run(place: Place) -> int:
    """Run all cases; how many failed."""
    failed = 0
    for name, case in CASES.items():
        place.remove(TOP)
        try:
            case(place)
        except Exception:
            failed += 1
            print(f"failed {name}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"ok {name}", flush=True)
    place.remove(TOP)
    return failed


if __name__ == "__main__":
    with closing(RealPlace(sys.argv[1] if len(sys.argv) > 1 else "windows")) as real:
        sys.exit(1 if run(real) else 0)
