from __future__ import annotations

import xmlrpc.client
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_driver.xenapi.connection.batches import Batch, MalformedBatch, freeze_record, parse_token

TOKEN = "00000000000000000042,00000000000000000007"
VM = {"uuid": "u-1", "name_label": "web", "VBDs": ["OpaqueRef:vbd"], "other_config": {"a": "b"}}


def event(**changes: Any) -> dict[str, Any]:
    return {"id": "42", "class": "vm", "operation": "add", "ref": "OpaqueRef:1", "snapshot": VM, **changes}


def answer(*events: Any, **changes: Any) -> dict[str, Any]:
    return {"events": list(events), "valid_ref_counts": {"vm": 1, "session": 3}, "token": TOKEN, **changes}


def test_a_batch_says_what_changed() -> None:
    gone = {"class": "host_metrics", "operation": "del", "ref": "OpaqueRef:2"}
    batch = Batch.parse(answer(event(), gone))
    assert [(it.cls, it.ref) for it in batch.events] == [("VM", "OpaqueRef:1"), ("host_metrics", "OpaqueRef:2")]
    assert (batch.token, batch.generation, dict(batch.counts)) == (TOKEN, 42, {"VM": 1})
    assert batch.events[0].row is not None and batch.events[0].row["name_label"] == "web"
    assert batch.events[1].row is None


def test_classes_that_were_not_asked_for_are_passed_over() -> None:
    assert Batch.parse(answer(event(**{"class": "session"}))).events == ()


def test_nothing_in_a_row_can_be_changed() -> None:
    row: Any = freeze_record(VM)
    for change in (
        lambda: row.__setitem__("uuid", "x"),
        lambda: row["VBDs"].append("x"),
        lambda: row["other_config"].__setitem__("a", "x"),
    ):
        with pytest.raises((TypeError, AttributeError)):
            change()
    VM_copy = {**VM, "VBDs": list(VM["VBDs"])}
    row = freeze_record(VM_copy)
    VM_copy["VBDs"].append("later")
    assert row["VBDs"] == ("OpaqueRef:vbd",)


def test_dates_are_text() -> None:
    row = freeze_record({"uuid": "u", "start_time": xmlrpc.client.DateTime("20260821T02:00:23Z")})
    assert row["start_time"] == "20260821T02:00:23Z"


DEEP: Any = "x"
for _ in range(12):
    DEEP = {"x": DEEP}


@pytest.mark.parametrize(
    "untrusted",
    [
        "",
        [],
        {},
        answer(token=""),
        answer(token="1"),
        answer(token=f"{TOKEN}\n"),
        answer(token=7),
        answer(events={}),
        answer(valid_ref_counts=[]),
        answer(valid_ref_counts={"vm": "1"}),
        answer(valid_ref_counts={"vm": -1}),
        answer(valid_ref_counts={"vm": True}),
        answer("event"),
        answer(event(operation="explode")),
        answer(event(ref="")),
        answer(event(ref=7)),
        answer(event(**{"class": None})),
        answer(event(snapshot=None)),
        answer(event(snapshot="record")),
        answer(event(snapshot={"name_label": "without uuid"})),
        answer(event(snapshot={"uuid": 7})),
        answer(event(snapshot={"uuid": "u", "deep": DEEP})),
        answer(event(snapshot={"uuid": "u", "data": xmlrpc.client.Binary(b"x")})),
    ],
)
def test_what_is_no_batch_is_refused(untrusted: Any) -> None:
    with pytest.raises(MalformedBatch):
        Batch.parse(untrusted)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["vm", "add", "del", TOKEN]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["class", "ref", "operation", "snapshot", "uuid", "vm", "x"]), inner, max_size=5
        )
    ),
    max_leaves=20,
)


@given(JUNK | st.builds(answer, st.builds(event, snapshot=JUNK) | JUNK, token=JUNK | st.just(TOKEN)))
def test_anything_is_a_batch_or_malformed(untrusted: Any) -> None:
    try:
        batch = Batch.parse(untrusted)
    except MalformedBatch:
        return
    assert all(it.row is None or isinstance(it.row["uuid"], str) for it in batch.events)
    assert parse_token(batch.token) == batch.generation
