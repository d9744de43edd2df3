"""What an agent answers, whatever it is asked: exactly one reply to each request, and nothing left behind."""

from __future__ import annotations

import json

import pytest

from agent_protocol.messages import ADVERT, REPLIES, new_request_id, parse_advert
from agent_protocol.outcomes import Unsupported
from guest_agent import VERSION

from .guest import Channel, Guest, request


def test_version_and_features_are_told_as_they_are_advertised(channel: Channel) -> None:
    advert = parse_advert(channel.read(ADVERT) or b"")
    assert channel.ask("version")["message"] == advert.version == VERSION
    told = channel.ask("features")
    assert (told["returncode"], told["outcome"]) == ("0", "succeeded")
    assert told["message"].split(",") == list(advert.features)
    assert {"version", "features", "ping", "password", "file_put", "ssh_keys", "keyinit"} <= set(advert.features)


def test_sealed_questions_are_answered(guest: Guest) -> None:
    assert guest.ask("version").data == {"version": VERSION}
    assert set(guest.ask("ping").data) == {"time"}
    info = guest.ask("info").data
    assert (info["vm"], info["version"]) == (guest.vm.uuid, VERSION)
    with pytest.raises(Unsupported) as refused:
        guest.ask("no_such_command")
    assert refused.value.code == "unknown_command"


@pytest.mark.parametrize("name", ["no_such_command", "", "__class__", "ping"])
def test_what_is_not_asked_in_the_clear_is_unsupported(channel: Channel, name: str) -> None:
    reply = channel.ask(name)
    assert (reply["returncode"], reply["outcome"], reply["code"]) == ("404", "unsupported", "unknown_command")


MALFORMED = [b"", b"{", b"\xff\xfe", b"[]", b'{"name": 1, "value": ""}', b'{"value": ""}', b'{"name": "sealed"}']


def test_malformed_requests_are_refused_and_the_agent_goes_on(channel: Channel) -> None:
    for value in MALFORMED:
        reply = channel.reply(channel.send(value))
        assert (reply["returncode"], reply["outcome"]) == ("500", "refused"), value
    assert channel.ask("version")["message"] == VERSION


def test_requests_that_come_together_get_one_reply_each(channel: Channel) -> None:
    ids = [new_request_id() for _ in range(3)]
    for request_id in ids:
        channel.send(request("version"), request_id)
    replies = [channel.reply(request_id) for request_id in ids]
    assert {reply["outcome"] for reply in replies} <= {"succeeded", "busy"}
    assert replies[0]["message"] == VERSION
    # Taken, a reply does not come again.
    assert channel.children(REPLIES) == []


def test_an_id_is_served_once(channel: Channel) -> None:
    request_id = channel.send(request("version"))
    assert channel.reply(request_id)["outcome"] == "succeeded"
    again = channel.reply(channel.send(request("version"), request_id))
    assert (again["outcome"], again["code"]) == ("unknown", "request_id_reused")


def test_a_request_with_a_reply_of_its_own_is_not_confused_with_another(channel: Channel) -> None:
    first, second = channel.send(request("version")), channel.send(request("features"))
    assert "ssh_keys" in channel.reply(second)["message"]
    assert channel.reply(first)["message"] == VERSION


def test_the_advert_is_the_guests_own(guest: Guest, channel: Channel) -> None:
    assert json.loads(channel.read(ADVERT) or b"")["version"] == VERSION
    path = f"/local/domain/{guest.domid}/{ADVERT}"
    assert channel.store.get_permissions(path)[0] == f"n{guest.domid}"
