"""Requests around the sizes at which they change their form: one node, frames, one frame more."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_protocol.adverts import SealingKey
from agent_protocol.frames import FRAME_SIZE
from compute_driver.agents import SEALED, AgentInfo
from compute_driver.driver import InjectedFile
from compute_driver.sealing import SealedRequest
from tests.contract import environments

from .guest import Guest

_KEY = SealingKey("0123456789abcdef", bytes([9, *bytes(31)]))
"""To measure with: X25519's base point, which nobody opens anything with."""

_VM = "c0ffee00-0000-4000-8000-000000000001"


def framed(size: int, pad: int) -> int:
    """How many characters of a request that puts such a file travel as frames; 0 when it fits into one node."""
    value = InjectedFile(place(size, pad), bytes(size)).to_command()
    return len(SealedRequest.seal(AgentInfo("", (), SEALED, None, _KEY), _VM, "file_put", value, timeout=60).box)


def place(size: int, pad: int) -> str:
    """Where a file of that size is put. pad: its request grows by single characters, its content by four at a time."""
    return f"/opt/frames/{size:04}{'p' * pad}"


def content(size: int) -> bytes:
    """Something of that size, different at every place."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


def around(characters: int) -> list[tuple[int, int]]:
    """Size and pad of three files: the last below so many characters in frames, one that has just as many, the next."""
    about = range(max(0, characters * 9 // 16 - 300), characters * 9 // 16 + 200)
    found = sorted((framed(size, pad), size, pad) for size in about[::3] for pad in range(4))
    below = [entry for entry in found if entry[0] < characters][-1]
    same = next(entry for entry in found if entry[0] == characters)
    above = next(entry for entry in found if entry[0] > characters)
    return [(size, pad) for _, size, pad in (below, same, above)]


def test_files_around_the_boundaries_of_nodes_arrive_whole(guest: Guest) -> None:
    of_one_node = [entry for size in range(900, 1200, 3) for pad in range(4) if framed(*(entry := (size, pad))) == 0]
    largest = max(of_one_node, key=lambda entry: len(InjectedFile(place(*entry), bytes(entry[0])).to_command()))
    next_one = (largest[0] + 3, largest[1])
    assert framed(*next_one) > 0
    cases = [largest, next_one, *around(2 * FRAME_SIZE)]
    assert [-(-framed(*case) // FRAME_SIZE) for case in cases[2:]] == [2, 2, 3]
    for size, pad in cases:
        guest.put(place(size, pad), content(size))
    assert guest.inside.names("/opt/frames") == sorted(place(*case).rpartition("/")[2] for case in cases)
    for size, pad in cases:
        assert guest.inside.read(place(size, pad)) == content(size), (size, pad)


@pytest.mark.parametrize("environment", environments.parameters(), indirect=True)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(size=st.integers(0, 40 * FRAME_SIZE), pad=st.integers(0, 3))
def test_files_of_any_size_arrive_whole(guest: Guest, size: int, pad: int) -> None:
    path = "/opt/any/" + "p" * (1 + pad)
    guest.put(path, content(size))
    assert guest.inside.read(path) == content(size)
