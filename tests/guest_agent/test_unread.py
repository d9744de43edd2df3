"""An agent of a host that never removes replies keeps answering, and the newest replies stay to be read."""

from __future__ import annotations

from agent_protocol.messages import REPLIES
from guest_agent.commands import COMMANDS, Context
from guest_agent.nodes import Nodes
from guest_agent.unread import ROOM, UnreadReplies

from .conftest import Host, agent_in_thread

MORE_THAN_FIT = 120
"""Under C xenstored's limit a directory has room for 54."""


def test_replies_that_nobody_removes_make_room_for_new_ones(host: Host, context: Context) -> None:
    with agent_in_thread(host, context, COMMANDS):
        asked = [_ask_and_leave(host) for _ in range(MORE_THAN_FIT)]
        left = set(host.children(REPLIES))
        assert set(asked[-30:]) <= left < set(asked)


def test_replies_of_an_earlier_run_make_room_as_well(host: Host, context: Context) -> None:
    with agent_in_thread(host, context, COMMANDS):
        earlier = [_ask_and_leave(host) for _ in range(50)]
    with agent_in_thread(host, context, COMMANDS):
        asked = [_ask_and_leave(host) for _ in range(20)]
        left = set(host.children(REPLIES))
        assert set(asked) <= left
        assert not set(earlier) <= left


def test_what_this_run_knows_is_newer_than_what_it_finds(host: Host) -> None:
    """After the store was lost: the replies that were delivered last go last, whatever their ids are."""
    unread, nodes = UnreadReplies(), Nodes(host.store)
    delivered = [f"{number:02}" for number in reversed(range(ROOM))]
    for request_id in (*delivered, "gone"):
        unread.add(request_id)
    found = [f"{number:02}" for number in range(50, 50 + ROOM)]
    unread.find({*delivered, *found})
    assert list(unread._ids) == [*found, *delivered]
    assert unread.make_room(nodes)
    assert list(unread._ids) == delivered


def _ask_and_leave(host: Host) -> str:
    """Ask as Nova does: the reply is read and stays."""
    request_id = host.send("version")
    host.wait(lambda: host.children("data/xenward/claims") == [] and host.children("data/host") == [], "the end")
    assert host.read(f"{REPLIES}/{request_id}") is not None
    return request_id
