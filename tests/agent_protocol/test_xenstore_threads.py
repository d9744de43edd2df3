"""One connection, many threads: every answer belongs to its question, and nobody waits for what has come."""

from __future__ import annotations

import functools
import random

from agent_protocol.wire import Operation
from agent_protocol.xenstore import Client
from tests.agent_protocol.store import DEADLINE, StandIn, in_background

THREADS = 8
ROUNDS = 100


def test_every_answer_belongs_to_its_question(dom0: Client) -> None:
    """Eight threads read and write nodes of their own, while a ninth waits for events without a timeout."""
    dom0.watch("/end", "end")

    def wait_for_the_end() -> int:
        seen = 0
        while (event := dom0.next_event(None)) is not None and dom0.directory("/") and event.token == "end":
            seen += 1
            if dom0.read("/end") == b"now":
                return seen
        raise AssertionError(event)

    def work(number: int) -> None:
        for turn in range(ROUNDS):
            path, value = f"/thread-{number}/{turn}", b"%d of %d" % (turn, number)
            dom0.write(path, value)
            assert dom0.read(path) == value
            if turn % 10 == 0:
                assert len(dom0.directory(f"/thread-{number}")) == turn + 1
                transaction = dom0.transaction()
                assert transaction.read(path) == value
                transaction.abort()
            assert dom0.get_permissions(path) == ["n0"]

    dom0.write("/end", b"not yet")
    waiting = in_background(wait_for_the_end)
    for worker in [in_background(functools.partial(work, number)) for number in range(THREADS)]:
        worker.result(DEADLINE)
    dom0.write("/end", b"now")
    assert waiting.result(DEADLINE) >= 1


def test_answers_in_another_order_than_the_questions(stand_in: StandIn) -> None:
    reads = {
        f"/{number}": in_background(functools.partial(stand_in.client.read, f"/{number}")) for number in range(THREADS)
    }
    requests = [stand_in.request() for _ in reads]
    random.Random(7).shuffle(requests)
    for request in requests:
        stand_in.answer(request, b"value of " + request.payload)
    for path, read in reads.items():
        assert read.result(DEADLINE) == b"value of " + path.encode() + b"\0"


def test_one_timeout_leaves_the_others_waiting(stand_in: StandIn) -> None:
    slow = in_background(lambda: stand_in.client.read("/slow"))
    request = stand_in.request()
    assert stand_in.client.next_event(0.05) is None
    fast = in_background(lambda: stand_in.client.read("/fast"))
    stand_in.answer(stand_in.request(), b"fast")
    assert fast.result(DEADLINE) == b"fast"
    stand_in.answer(request, b"slow")
    assert slow.result(DEADLINE) == b"slow"


def test_request_ids_start_again_after_32_bits(stand_in: StandIn) -> None:
    stand_in.client._next_request_id = 0xFFFFFFFE
    held = in_background(lambda: stand_in.client.read("/held"))
    first = stand_in.request()
    assert first.request_id == 0xFFFFFFFF
    stand_in.client._next_request_id = 0xFFFFFFFE
    reading = in_background(lambda: stand_in.client.read("/next"))
    second = stand_in.request()
    assert (second.request_id, second.operation) == (0, Operation.READ)
    stand_in.answer(second, b"next")
    stand_in.answer(first, b"held")
    assert (held.result(DEADLINE), reading.result(DEADLINE)) == (b"held", b"next")
