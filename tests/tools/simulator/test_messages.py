"""Messages and their events, through the official SDK."""

from __future__ import annotations

from typing import Any

import pytest
import XenAPI

from tools.simulator import model
from tools.simulator.database import Database
from tools.simulator.messages import KEPT_DELETIONS, MAX_DELETIONS, MAX_MESSAGES, Messages

from .support import NULL, Vm, failure
from .test_events import since

BEGINNING = "19700101T00:00:00Z"
UNKNOWN = "8a9c4e0e-0000-4000-8000-000000000000"


def create(session: XenAPI.Session, vm: Vm, **changes: Any) -> str:
    fields = {"name": "VM_STARTED", "priority": "5", "cls": "VM", "obj_uuid": vm.uuid, "body": "a & <b>", **changes}
    ref: str = session.xenapi.message.create(*fields.values())
    return ref


def test_a_message_s_life(session: XenAPI.Session, vm: Vm) -> None:
    api = session.xenapi.message
    ref = create(session, vm)
    record = api.get_record(ref)
    assert set(record) == {"uuid", "name", "priority", "cls", "obj_uuid", "timestamp", "body"}
    assert (record["name"], record["priority"], record["cls"]) == ("VM_STARTED", "5", "VM")
    assert (record["obj_uuid"], record["body"]) == (vm.uuid, "a & <b>")
    assert api.get_by_uuid(record["uuid"]) == ref
    assert ref in api.get_all()
    assert api.get_all_records()[ref] == record
    assert api.get_all_records_where("whatever")[ref] == record
    api.destroy(ref)
    assert ref not in api.get_all()
    assert failure(api.get_record, ref) == failure(api.destroy, ref) == ["HANDLE_INVALID", "message", ref]
    assert failure(api.get_by_uuid, record["uuid"]) == ["UUID_INVALID", "message", record["uuid"]]


def test_searching(session: XenAPI.Session, vm: Vm) -> None:
    api = session.xenapi.message
    first, second = create(session, vm), create(session, vm)
    (pool,) = session.xenapi.pool.get_all_records().values()
    other = create(session, vm, cls="Pool", obj_uuid=pool["uuid"])
    assert list(api.get("VM", vm.uuid, BEGINNING)) == [second, first]
    assert list(api.get_since(BEGINNING))[:3] == [other, second, first]
    assert api.get("VM", vm.uuid, "20990101T00:00:00Z") == api.get_since("20990101T00:00:00Z") == {}
    # A message that came in the same second is younger than its beginning.
    date = api.get_record(first)["timestamp"]
    assert first in api.get_since(date)
    assert first not in api.get("VM", vm.uuid, date)
    assert failure(api.get, "VM", UNKNOWN, BEGINNING) == ["UUID_INVALID"]
    api.destroy_many([first, second, other])
    assert not {first, second, other} & set(api.get_all())


def test_subjects_must_exist(session: XenAPI.Session, vm: Vm) -> None:
    assert failure(lambda: create(session, vm, obj_uuid=UNKNOWN)) == ["UUID_INVALID", "VM", UNKNOWN]
    assert failure(lambda: create(session, vm, cls="Host")) == ["UUID_INVALID", "Host", vm.uuid]
    assert failure(lambda: create(session, vm, cls="host"))[0] == "INVALID_VALUE"


def test_no_generated_calls(session: XenAPI.Session, vm: Vm) -> None:
    assert failure(session.xenapi.message.get_body, NULL) == ["MESSAGE_METHOD_UNKNOWN", "message.get_body"]


def test_events(session: XenAPI.Session, vm: Vm) -> None:
    token = since(session, ["message"])["token"]
    ref = create(session, vm)
    batch = since(session, ["message"], token)
    (event,) = batch["events"]
    assert (event["class"], event["operation"], event["ref"], event["id"]) == ("message", "add", ref, "0")
    assert event["snapshot"] == session.xenapi.message.get_record(ref)
    assert batch["token"] > token
    assert since(session, ["message"], batch["token"])["events"] == []
    session.xenapi.message.destroy(ref)
    batch = since(session, ["Message"], batch["token"])
    (event,) = batch["events"]
    assert (event["operation"], event["ref"], "snapshot" in event) == ("del", ref, False)
    assert since(session, ["vm"], "")["token"].endswith("," + "0" * 20)


def test_events_of_the_old_way(session: XenAPI.Session, vm: Vm) -> None:
    session.xenapi.event.register(["message"])
    ref = create(session, vm)
    session.xenapi.message.destroy(ref)
    events = session.xenapi.event.next()
    assert [(event["operation"], event["ref"]) for event in events] == [("add", ref), ("del", ref)]
    session.xenapi.event.unregister(["message"])


@pytest.fixture
def messages() -> Messages:
    return Messages(Database(model.load()))


def test_bounds(messages: Messages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "check_subject", lambda cls, uuid: None)
    refs = [
        messages.create(name="x", priority=1, cls="VM", obj_uuid="", body="")
        for _ in range(MAX_MESSAGES + MAX_DELETIONS)
    ]
    assert list(messages.rows()) == refs[: MAX_DELETIONS - 1 : -1]
    assert [message.ref for message in messages.since(0) if message.row is None] == refs[MAX_DELETIONS - 1 :: -1]
    messages.destroy(refs[-1])
    assert len([message for message in messages.since(0) if message.row is None]) == KEPT_DELETIONS
