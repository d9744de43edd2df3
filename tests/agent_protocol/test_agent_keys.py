"""An agent's keys: which one opens what, for how long, and that nothing opens twice."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_protocol import agent_keys, sealed
from agent_protocol.adverts import SealingKey
from agent_protocol.agent_keys import AgentKeys
from agent_protocol.identity import Identity
from agent_protocol.messages import new_request_id
from agent_protocol.outcomes import Outcome, Refused
from agent_protocol.sealed import SealedResult

VM = "0f4b6c50-1111-4222-8333-444455556666"
NOW = 1_800_000_000


class Setting:
    """Keys under a clock of the test's own, and a host that seals to them."""

    def __init__(self) -> None:
        self.monotonic = 1000.0
        self.wall = float(NOW)
        self.keys = AgentKeys(VM, clock=lambda: self.monotonic, now=lambda: self.wall)

    def seal(self, key: SealingKey, request_id: str, expires: int = NOW + 10_000) -> str:
        return sealed.seal_request(key, VM, request_id, "password", "hunter2", expires=expires).text

    def outcome(self, key: SealingKey, request_id: str | None = None, text: str | None = None) -> str:
        """`opened`, or the code of the refusal."""
        request_id = request_id or new_request_id()
        try:
            command = self.keys.open(key.id, request_id, text or self.seal(key, request_id))
        except Refused as error:
            return error.code
        assert (command.name, command.value, command.expires) == ("password", "hunter2", NOW + 10_000)
        return "opened"


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_a_box_that_opened_changes_the_key(setting: Setting) -> None:
    first = setting.keys.current
    assert setting.outcome(first) == "opened"
    second = setting.keys.current
    assert first.id != second.id and first.public != second.public
    assert setting.outcome(second) == "opened"
    assert setting.keys.current not in (first, second)


@pytest.mark.parametrize(
    ("waited", "expected"), [(0, "opened"), (59.9, "opened"), (60, "unknown_key"), (1e6, "unknown_key")]
)
def test_the_previous_key_is_honoured_for_a_minute(setting: Setting, waited: float, expected: str) -> None:
    first = setting.keys.current
    assert setting.outcome(first) == "opened"
    second = setting.keys.current
    setting.monotonic += waited
    assert setting.outcome(first) == expected
    if waited < 600:
        assert setting.keys.current == second, "a box that the previous key opened changes nothing"


def test_using_the_previous_key_does_not_prolong_it(setting: Setting) -> None:
    first = setting.keys.current
    for expected in ("opened", "opened", "opened", "unknown_key"):
        assert setting.outcome(first) == expected
        setting.monotonic += 25


def test_only_one_previous_key_is_honoured(setting: Setting) -> None:
    first = setting.keys.current
    assert setting.outcome(first) == "opened"
    second = setting.keys.current
    assert setting.outcome(second) == "opened"
    assert setting.outcome(first) == "unknown_key"
    assert setting.outcome(second) == "opened"


def test_a_key_that_nobody_used_is_replaced(setting: Setting) -> None:
    first = setting.keys.current
    assert setting.keys.seconds_until_rotation() == 600
    setting.monotonic += 599
    assert not setting.keys.rotate_if_old() and setting.keys.current == first
    assert setting.keys.seconds_until_rotation() == 1
    setting.monotonic += 1
    assert setting.keys.seconds_until_rotation() == 0
    assert setting.keys.rotate_if_old() and not setting.keys.rotate_if_old()
    assert setting.keys.current != first and setting.keys.seconds_until_rotation() == 600
    assert setting.outcome(first) == "opened"


@pytest.mark.parametrize(
    ("waited", "expected"), [(599, "opened"), (600, "opened"), (659, "opened"), (660, "unknown_key")]
)
def test_an_agent_that_overslept_honours_no_key_for_longer(setting: Setting, waited: float, expected: str) -> None:
    first = setting.keys.current
    setting.monotonic += waited
    assert setting.outcome(first) == expected
    assert setting.keys.current != first


def test_a_key_that_is_used_is_replaced_by_its_own_age(setting: Setting) -> None:
    setting.monotonic += 500
    assert setting.outcome(setting.keys.current) == "opened"
    assert setting.keys.seconds_until_rotation() == 600


def test_an_id_is_accepted_once(setting: Setting) -> None:
    first, request_id = setting.keys.current, new_request_id()
    text = setting.seal(first, request_id)
    assert setting.outcome(first, request_id, text) == "opened"
    second = setting.keys.current
    assert setting.outcome(first, request_id, text) == "replayed"
    assert setting.outcome(first, request_id) == "replayed", "another box of the same id"
    assert setting.keys.current == second
    assert setting.outcome(second) == "opened"
    assert setting.outcome(first, request_id, text) == "unknown_key"


def test_a_box_that_did_not_open_uses_up_nothing(setting: Setting) -> None:
    first, request_id = setting.keys.current, new_request_id()
    assert setting.outcome(first, request_id, setting.seal(first, new_request_id())) == "bad_box"
    assert setting.keys.current == first
    assert setting.outcome(first, request_id) == "opened"


def test_what_expired(setting: Setting) -> None:
    for wall, expected in ((NOW + 9_999.9, "opened"), (NOW + 10_000, "expired"), (NOW + 1e9, "expired")):
        setting.wall = wall
        first, request_id = setting.keys.current, new_request_id()
        assert setting.outcome(first, request_id) == expected
        assert setting.keys.current != first, "it did open"
        assert setting.outcome(first, request_id) == "replayed"


def test_another_vm_or_key(setting: Setting) -> None:
    other = Setting()
    assert setting.outcome(other.keys.current) == "unknown_key"
    misnamed = SealingKey(setting.keys.current.id, other.keys.current.public)
    assert setting.outcome(misnamed) == "bad_box"
    request_id = new_request_id()
    key = setting.keys.current
    elsewhere = sealed.seal_request(key, new_request_id(), request_id, "password", "", expires=NOW + 100).text
    assert setting.outcome(key, request_id, elsewhere) == "bad_box"


def test_a_reply_sent_back_does_not_open(setting: Setting) -> None:
    key, request_id = setting.keys.current, new_request_id()
    reply = sealed.seal_reply(
        Identity.generate(),
        VM,
        request_id,
        SealedResult(Outcome.SUCCEEDED),
        reply_key=bytes(32),
        next_key=key,
        now=NOW,
    )
    box = sealed.parse_sealed_reply(reply.node).box
    assert box is not None and setting.outcome(key, request_id, box) == "bad_box"


def test_a_key_opens_so_much_and_no_more(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_keys, "MAX_USES", 5)
    first = setting.keys.current
    assert [setting.outcome(first) for _ in range(7)] == ["opened"] * 5 + ["unknown_key"] * 2
    assert setting.outcome(setting.keys.current) == "opened"


def test_dropped_keys_are_gone_from_memory(setting: Setting) -> None:
    dropped = weakref.ref(setting.keys._current)
    assert setting.outcome(setting.keys.current) == "opened"
    assert dropped() is not None
    setting.monotonic += 60
    setting.keys.rotate_if_old()
    gc.collect()
    assert dropped() is None


def test_private_keys_and_ids_are_told_nowhere(setting: Setting) -> None:
    shown = repr(setting.keys) + repr(setting.keys._current)
    assert "private" not in shown and repr(setting.keys._current.private.private_bytes_raw()) not in shown


@settings(deadline=None, max_examples=300)
@given(
    st.text(max_size=20) | st.just("current"),
    st.text(st.characters(exclude_categories=()), max_size=40) | st.just(VM),
    st.text(st.characters(exclude_categories=()), max_size=200),
)
def test_anything_is_refused(key_id: str, request_id: str, text: str) -> None:
    keys = Setting().keys
    with pytest.raises(Refused) as caught:
        keys.open(keys.current.id if key_id == "current" else key_id, request_id, text)
    assert caught.value.code in ("unknown_key", "bad_box")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["open", "replay", "old", 1, 30, 59, 61, 300, 700]), max_size=25))
def test_whatever_happens_nothing_opens_twice_or_late(steps: list[str | int]) -> None:
    setting = Setting()
    replaced: dict[str, float] = {}
    sent: list[tuple[SealingKey, str, str]] = []
    known = [setting.keys.current]
    for step in steps:
        if isinstance(step, int):
            setting.monotonic += step
            setting.keys.rotate_if_old()
        elif step == "replay" and sent:
            assert setting.outcome(*sent[-1]) in ("replayed", "unknown_key")
        else:
            key, request_id = known[-1] if step == "open" else known[0], new_request_id()
            text = setting.seal(key, request_id)
            if setting.outcome(key, request_id, text) == "opened":
                assert setting.monotonic < replaced.get(key.id, setting.monotonic) + 60
                sent.append((key, request_id, text))
        if setting.keys.current != known[-1]:
            replaced[known[-1].id] = setting.monotonic
            known.append(setting.keys.current)
