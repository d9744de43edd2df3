"""Whatever stands in an envelope, a box or a frame: one reply each, and the agent lives."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_protocol.frames import FRAMES, FramesInfo
from agent_protocol.messages import (
    REPLIES,
    new_request_id,
)
from agent_protocol.outcomes import Outcome
from agent_protocol.sealed import parse_sealed_reply, verify_receipt
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context

from .conftest import VM, Host, agent_in_thread
from .sealing import Asked, SealedHost

_FRAMES = st.fixed_dictionaries(
    {
        "count": st.one_of(st.integers(-1, 3), st.just(10**9), st.just("1"), st.booleans()),
        "size": st.one_of(st.integers(-1, 2000), st.just(2**40), st.none()),
        "sha256": st.one_of(st.just("0" * 64), st.text(max_size=5)),
    }
)


def envelopes(key_id: str) -> st.SearchStrategy[Any]:
    boxes = st.one_of(
        st.binary(max_size=600).map(lambda data: base64.b64encode(data).decode()), st.text(max_size=60), st.integers()
    )
    members = {
        "v": st.sampled_from([2, 2, 2, 1, "2", None]),
        "key_id": st.sampled_from([key_id, key_id, "0" * 16, "x", 5]),
        "box": boxes,
        "frames": _FRAMES,
    }
    return st.one_of(
        st.fixed_dictionaries({}, optional=members).map(json.dumps),
        st.tuples(boxes).map(lambda box: json.dumps({"v": 2, "key_id": key_id, "box": box[0]})),
        st.text(max_size=100),
        st.sampled_from(["null", "[]", "[" * 900, '{"v":2}', '{"v":1e999}', '{"v":' + "9" * 500 + "}"]),
    )


def inner(sealed: SealedHost) -> st.SearchStrategy[Asked]:
    """Boxes that open, with anything in them."""
    values = st.one_of(
        st.text(max_size=100),
        st.dictionaries(
            st.sampled_from(["user", "value", "hash", "expire", "hpke", "ssh_rsa", "padding", "path", "content"]),
            st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20)),
            max_size=4,
        ).map(json.dumps),
    )
    names = st.one_of(st.sampled_from(sorted(SEALED_COMMANDS)), st.text(max_size=20))
    return st.builds(lambda name, value: sealed.seal(name, value), names, values)


@pytest.fixture
def quick_agent(host: Host, context: Context, monkeypatch: pytest.MonkeyPatch) -> Iterator[SealedHost]:
    """An agent without patience, for frames that never come."""
    monkeypatch.setattr("guest_agent.transfer.PATIENCE", 0.001)
    with agent_in_thread(host, context, COMMANDS):
        yield SealedHost(host)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_hostile_envelopes_get_one_receipt_each(quick_agent: SealedHost, data: st.DataObject) -> None:
    host = quick_agent.host
    values = data.draw(st.lists(envelopes(quick_agent.key.id), min_size=20, max_size=40))
    sent = [host.send("sealed", value) for value in values if len(json.dumps(value)) < 1900]
    for request_id in sent:
        host.wait(lambda id=request_id: quick_agent.replied(id), "a reply")  # type: ignore[misc]
        reply = parse_sealed_reply(host.read(f"{REPLIES}/{request_id}") or b"")
        receipt = verify_receipt(reply, quick_agent.identity, VM, request_id)
        assert receipt.outcome is Outcome.REFUSED
        assert receipt.code in ("bad_request", "bad_box", "unknown_key", "frames_incomplete")
        host.reply(request_id)
        quick_agent.key = receipt.next_key
    host.assert_nothing_left()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_hostile_commands_in_good_boxes_get_one_reply_each(quick_agent: SealedHost, data: st.DataObject) -> None:
    for _ in range(5):
        asked = data.draw(inner(quick_agent))
        quick_agent.send(asked)
        receipt, result = quick_agent.finish(asked)
        assert receipt.outcome is result.outcome
    quick_agent.host.assert_nothing_left()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(frames=st.lists(st.binary(max_size=1950), max_size=3), size=st.integers(1, 5700), data=st.data())
def test_hostile_frames_get_one_receipt_each(
    quick_agent: SealedHost, frames: list[bytes], size: int, data: st.DataObject
) -> None:
    host, request_id = quick_agent.host, new_request_id()
    text = data.draw(st.sampled_from(["A" * size, b"".join(frames).decode("latin-1") or "A"]))
    info = {"count": -(-len(text) // 1900), "size": len(text), "sha256": FramesInfo.of("A" * size).sha256}
    for number, frame in enumerate(frames):
        host.write(f"{FRAMES}/{request_id}/{number}", frame)
    value = json.dumps({"v": 2, "key_id": quick_agent.key.id, "frames": info})
    host.send("sealed", value, request_id)
    host.wait(lambda: quick_agent.replied(request_id), "a reply")
    reply = parse_sealed_reply(host.read(f"{REPLIES}/{request_id}") or b"")
    receipt = verify_receipt(reply, quick_agent.identity, VM, request_id)
    assert receipt.code in ("frames_incomplete", "frames_corrupt", "bad_box")
    host.reply(request_id)
    host.assert_nothing_left()


@pytest.mark.parametrize("request_id", ["id-1", "x" * 300, "x" * 1000])
def test_ids_that_are_no_uuids(quick_agent: SealedHost, request_id: str) -> None:
    host = quick_agent.host
    asked = quick_agent.seal("ping")
    host.send_bytes(asked.message.node, request_id)
    assert host.reply(request_id)["code"] in ("bad_box", "bad_request_id")
    assert quick_agent.ask("ping").outcome is Outcome.SUCCEEDED
