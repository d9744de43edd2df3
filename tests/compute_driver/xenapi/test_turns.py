"""Turns: one holder for each key, no waiting without end, and nothing kept when nobody waits."""

from __future__ import annotations

import threading

import pytest

from agent_protocol.outcomes import Busy
from compute_driver.xenapi.turns import Turns


def test_a_turn_has_one_holder_and_other_keys_do_not_wait() -> None:
    turns = Turns()
    with turns.of("a"), turns.of("b"), pytest.raises(Busy) as caught, turns.of("a", patience=0.01):
        raise AssertionError
    assert caught.value.code == "turn_taken"
    with turns.of("a", patience=0.01):
        pass
    assert turns._locks == {}


def test_whoever_waits_comes_next_also_after_an_error() -> None:
    turns = Turns()
    entered = threading.Event()

    def wait() -> None:
        with turns.of("a", patience=20.0):
            entered.set()

    thread = threading.Thread(target=wait)
    with pytest.raises(ValueError, match="an error"), turns.of("a"):
        thread.start()
        assert not entered.is_set()
        raise ValueError("an error")
    thread.join(20.0)
    assert entered.is_set()
    assert turns._locks == {}
