"""Requests that are too large for one node: how they are cut for XAPI, and what each part may come to."""

from __future__ import annotations

import json
import xmlrpc.client
from typing import Any
from xml.sax.saxutils import escape

import pytest

from agent_protocol.frames import FRAME_SIZE
from agent_protocol.outcomes import Outcome, Refused, Unknown, Unreachable, Unsuccessful
from agent_protocol.sealed import SealedResult
from compute_driver.files import InjectedFile

from ..guest import VM_RECORD, Guest, met

CONTENT = bytes(range(256)) * 1024
SLICE = 48
ARGUMENT_LIMIT = 120 * 1024
"""Linux takes 128 KiB in one argument of a program, and XAPI hands on the whole call in one."""
BODY_LIMIT = 300 * 1024
"""XAPI's, for an HTTP request."""


def put(guest: Guest, content: bytes = CONTENT, timeout: float = 10.0) -> None:
    guest.agents(timeout=timeout).put_file(VM_RECORD, InjectedFile("/srv/blob", content))


def error_of(guest: Guest, timeout: float = 10.0) -> Unsuccessful:
    with pytest.raises(Unsuccessful) as caught:
        put(guest, timeout=timeout)
    return caught.value


def parts(guest: Guest) -> list[dict[str, Any]]:
    return [json.loads(call[-1]["requests"])[0] for call in guest.plugin.calls]


@pytest.mark.parametrize("size", [1000, 1200, 3000, 60_000, len(CONTENT)])
def test_a_file_arrives_whatever_its_size(size: int) -> None:
    guest = met()
    put(guest, CONTENT[:size])
    ((name, value),) = guest.agent.done
    assert name == "file_put"
    assert InjectedFile.from_dict(value).content == CONTENT[:size]
    assert len(guest.agent.ids) == 1


def test_frames_go_in_slices_that_xapi_takes() -> None:
    guest = met()
    put(guest)
    told = parts(guest)
    assert len(told) > 3
    assert {(part["id"], part["value"]) for part in told} == {(guest.agent.ids[0], told[0]["value"])}
    values: list[str] = []
    for number, part in enumerate(told):
        assert part["frames"]["first"] == len(values) == number * SLICE
        assert part["frames"]["last"] is (number == len(told) - 1)
        values += part["frames"]["values"]
    assert all(len(part["frames"]["values"]) == SLICE for part in told[:-1])
    assert 1 <= len(told[-1]["frames"]["values"]) <= SLICE
    assert {len(value) for value in values[:-1]} == {FRAME_SIZE}
    announced = json.loads(json.loads(told[0]["value"])["value"])["frames"]
    assert (announced["count"], announced["size"]) == (len(values), len("".join(values)))


def test_each_call_stays_below_xapis_limits() -> None:
    guest = met()
    put(guest)
    for call in guest.plugin.calls:
        method, *arguments = call
        body = xmlrpc.client.dumps(("OpaqueRef:" + "0" * 36, *arguments), method)
        assert len(body.encode()) < BODY_LIMIT
        # How XAPI calls a plugin: name, and a call of it in XML, as arguments of the program.
        argument = xmlrpc.client.dumps(("OpaqueRef:" + "0" * 36, arguments[-1]), arguments[2])
        assert len(argument.encode()) < ARGUMENT_LIMIT
        assert len(escape(call[-1]["requests"]).encode()) < ARGUMENT_LIMIT


def test_an_early_answer_ends_it() -> None:
    guest = met()

    def early(request: dict[str, Any]) -> Any:
        reply = guest.agent.reply(request["id"], SealedResult(Outcome.REFUSED, "bad_box"), None)
        return [{"id": request["id"], "delivery": "answered", "value": reply.value}]

    guest.plugin.say("frames", lambda request: [{"id": request["id"], "delivery": "continue"}], early)
    error = error_of(guest)
    assert (type(error), error.code) == (Refused, "bad_box")
    assert len(guest.plugin.calls) == 2


def test_an_early_refusal_of_the_key_begins_the_text_again_under_a_new_id() -> None:
    guest = met()

    def early(request: dict[str, Any]) -> Any:
        guest.agent.restart()
        reply = guest.agent.reply(request["id"], SealedResult(Outcome.REFUSED, "unknown_key"), None)
        return [{"id": request["id"], "delivery": "answered", "value": reply.value}]

    guest.plugin.say("frames", early)
    put(guest)
    told = parts(guest)
    assert [part["frames"]["first"] for part in told[:3]] == [0, 0, SLICE]
    assert told[0]["id"] != told[1]["id"]
    assert InjectedFile.from_dict(guest.agent.done[0][1]).content == CONTENT


DELIVERIES = [
    ("absent", Unreachable, "guest_absent"),
    ("withdrawn", Unreachable, "agent_silent"),
    ("rejected", Unreachable, "xenstore_refused"),
    ("taken", Unknown, "agent_no_answer"),
    ("lost", Unknown, "xenstore_lost"),
    ("", Unknown, "xenstore_lost"),
    ("CONTINUE", Unknown, "xenstore_lost"),
]


@pytest.mark.parametrize(("word", "kind", "code"), DELIVERIES)
@pytest.mark.parametrize("before", [0, 1])
def test_a_slice_that_is_not_taken_ends_it(word: str, kind: type[Unsuccessful], code: str, before: int) -> None:
    guest = met()
    guest.plugin.say("frames", *["continue"] * before, word)
    error = error_of(guest)
    assert (type(error), error.code) == (kind, code)
    assert len(guest.plugin.calls) == before + 1
    assert guest.agent.done == []


JUNK: list[Any] = [
    lambda request: [{"id": request["id"], "delivery": 7}],
    lambda request: [{"id": request["id"], "delivery": ["continue"]}],
    lambda request: [{"id": request["id"], "delivery": None}],
    lambda request: [{"id": request["id"]}],
    lambda request: [{"delivery": "continue"}],
    lambda request: [{"id": "another", "delivery": "continue"}],
    lambda request: [{"id": request["id"], "delivery": "continue"}] * 2,
    lambda request: {"id": request["id"], "delivery": "continue"},
    lambda request: "continue",
    lambda request: "[" * 100_000,
    lambda request: [{"id": request["id"], "delivery": "answered"}],
    lambda request: [{"id": request["id"], "delivery": "answered", "value": {"v": 2}, "box": ["x"]}],
    lambda request: [{"id": request["id"], "delivery": "answered", "value": "\ud800"}],
]


@pytest.mark.parametrize("answer", JUNK)
def test_junk_leaves_it_unknown_and_ends_it(answer: Any) -> None:
    guest = met()
    guest.plugin.say("frames", answer)
    error = error_of(guest)
    assert (type(error), error.code) in [
        (Unknown, "xenstore_lost"),
        (Unknown, "bad_plugin_answer"),
        (Unknown, "unsigned_reply"),
    ]
    assert guest.plugin.functions.count("exchange") == 1
    assert guest.agent.done == []


def test_the_last_slice_cannot_be_continued() -> None:
    guest = met()
    guest.plugin.say("sealed", "continue")
    error = error_of(guest)
    assert (type(error), error.code) == (Unknown, "xenstore_lost")


def test_a_guest_that_restarts_between_slices_gets_the_text_again() -> None:
    guest = met()

    def gone(request: dict[str, Any]) -> Any:
        guest.agent.restart()
        return [{"id": request["id"], "delivery": "gone"}]

    guest.plugin.say("frames", "continue", gone)
    put(guest)
    assert InjectedFile.from_dict(guest.agent.done[0][1]).content == CONTENT
    assert len(guest.agent.ids) == 2


def test_all_slices_share_one_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = met()
    clock = [1000.0]
    monkeypatch.setattr("compute_driver.xenapi.agents.plugin.time.monotonic", lambda: clock[0])

    def slow(request: dict[str, Any]) -> Any:
        clock[0] += 3.0
        return [{"id": request["id"], "delivery": "continue"}]

    guest.plugin.say("frames", *[slow] * 3)
    put(guest)
    waits = [float(call[-1]["timeout"]) for call in guest.plugin.calls]
    assert waits[:4] == [10.0, 7.0, 4.0, 1.0]


def test_what_no_agent_can_take_is_refused_and_never_sent() -> None:
    guest = met()
    with pytest.raises(Refused) as caught:
        put(guest, bytes(3_200_000))
    assert caught.value.code == "too_large"
    assert guest.plugin.calls == []
