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


ORDERS = st.none() | st.from_regex(r"[A-Za-z0-9-]{1,64}", fullmatch=True)
TIMES = st.none() | st.integers(0, 2**40) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.text(max_size=255), st.text(max_size=255), ORDERS, TIMES)
def test_it_crosses_the_bus(request_id: str, user: str, order_id: str | None, expires: float | None) -> None:
    context = RequestContext(request_id, user, order_id, expires)
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
        None,
        "req-1",
        [],
        7,
        *({"request_id": "req-1", "user": "ada", "order_id": it} for it in ("", "a b", "o\n", "x" * 65, 7, [], "ä")),
        *({"request_id": "req-1", "user": "ada", "expires": it} for it in (True, "soon", [], float("nan"))),
    ],
)
def test_anything_else_is_refused(untrusted: Any) -> None:
    with pytest.raises(Refused) as caught:
        RequestContext.from_dict(untrusted)
    assert caught.value.code == "bad_context"


def test_each_order_has_an_id_of_its_own() -> None:
    request = RequestContext.new("ada")
    assert (request.order_id, request.expires) == (None, None)
    one, two = request.for_order(), request.for_order()
    assert one.order_id != two.order_id
    assert {it.request_id for it in (request, one, two)} == {request.request_id}
    assert RequestContext.from_dict(one.to_dict()) == one
    assert request.for_order("order-1").order_id == "order-1"


def test_nobody_waits_for_ever() -> None:
    request = RequestContext.new("ada")
    for wanted in (request, request.for_order(), request.for_order(seconds=60.0)):
        wanted.check_expiry()
    with pytest.raises(Refused) as caught:
        request.for_order(seconds=-1.0).check_expiry()
    assert caught.value.code == "order_expired"
