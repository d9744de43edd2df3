from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from compute_driver.context import RequestContext


def test_each_request_has_a_number_of_its_own() -> None:
    one, two = RequestContext.new("ada"), RequestContext.new("ada")
    assert one.request_id != two.request_id
    assert re.fullmatch(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", one.request_id)
    assert one.user == "ada"


@given(st.text(max_size=255), st.text(max_size=255))
def test_it_crosses_the_bus(request_id: str, user: str) -> None:
    context = RequestContext(request_id, user)
    assert RequestContext.from_dict({**context.to_dict(), "unknown": 1}) == context


@pytest.mark.parametrize(
    "untrusted",
    [
        {},
        {"user": "ada"},
        {"request_id": "req-1"},
        {"request_id": 1, "user": "ada"},
        {"request_id": "req-1", "user": b"ada"},
        {"request_id": "req-1", "user": "a" * 256},
        {"request_id": "r" * 256, "user": "ada"},
    ],
)
def test_anything_else_is_refused(untrusted: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        RequestContext.from_dict(untrusted)
    assert caught.value.code == "bad_context"
