"""transfers.py: what a client sees of uploads and downloads that are hit."""

from __future__ import annotations

import http.client
import time

import pytest
import XenAPI

from tools.simulator.control import Control, ControlError

from ..support import MIB
from ..transfers import Transfers

CONTENT = bytes(range(256)) * 4096


def test_a_download_is_cut(control: Control, transfers: Transfers) -> None:
    vdi = transfers.disk(CONTENT)
    control.add_rule("export_raw_vdi", "cut", size=100_000)
    task = transfers.api.task.create("download", "")
    response = transfers.request("GET", "/export_raw_vdi", vdi=vdi, task_id=task)
    assert response.status == 200
    assert response.read() == CONTENT[:100_000]
    assert transfers.ended(task)["status"] == "failure"
    transfers.api.VDI.destroy(vdi)


def test_an_upload_is_cut(control: Control, transfers: Transfers) -> None:
    vdi = transfers.disk()
    rule = control.add_rule("import_raw_vdi", "cut", size=300_000)
    task = transfers.api.task.create("upload", "")
    try:
        transfers.request("PUT", "/import_raw_vdi", CONTENT, vdi=vdi, task_id=task)
    except (ConnectionError, http.client.HTTPException):
        # What was answered before the cut may be lost with the connection.
        pass
    record = transfers.ended(task)
    assert (record["status"], record["error_info"][0]) == ("failure", "VDI_IO_ERROR")
    control.remove_rule(rule)
    content = transfers.content(vdi)
    assert content[:200_000] == CONTENT[:200_000]
    assert not any(content[300_000:])
    transfers.api.VDI.destroy(vdi)


def test_throttled(control: Control, transfers: Transfers) -> None:
    vdi = transfers.disk()
    control.add_rule("*port_raw_vdi", "throttle", size=4 * MIB)
    begin = time.monotonic()
    assert transfers.put("/import_raw_vdi", CONTENT, vdi=vdi)["status"] == "success"
    middle = time.monotonic()
    assert transfers.content(vdi)[: len(CONTENT)] == CONTENT
    # 1 MiB up and 8 MiB down; a machine that is busy only makes it slower.
    assert middle - begin >= 0.25
    assert time.monotonic() - middle >= 2
    transfers.api.VDI.destroy(vdi)


def test_throttling_ends_with_its_rule(control: Control, transfers: Transfers) -> None:
    vdi = transfers.disk()
    rule = control.add_rule("import_raw_vdi", "throttle", size=1)
    connection = transfers.connection()
    connection.request("PUT", transfers.path("/import_raw_vdi", vdi=vdi), CONTENT)
    assert connection.getresponse().status == 200
    control.remove_rule(rule)
    (logged,) = control.await_calls("import_raw_vdi", ended=True)
    assert logged.outcome == "SUCCESS"
    assert transfers.content(vdi)[: len(CONTENT)] == CONTENT
    transfers.api.VDI.destroy(vdi)


def test_a_task_fails_late(control: Control, transfers: Transfers) -> None:
    vdi = transfers.disk()
    control.add_rule("import_raw_vdi", "fail_late", error=["VDI_IO_ERROR", "Device I/O errors"], first=1)
    record = transfers.put("/import_raw_vdi", CONTENT, vdi=vdi)
    assert (record["status"], record["error_info"]) == ("failure", ["VDI_IO_ERROR", "Device I/O errors"])
    assert transfers.content(vdi)[: len(CONTENT)] == CONTENT
    assert transfers.put("/import_raw_vdi", CONTENT, vdi=vdi)["status"] == "success"
    transfers.api.VDI.destroy(vdi)


def test_refused_and_dropped_before(control: Control, transfers: Transfers) -> None:
    vdi = transfers.disk(CONTENT)
    control.add_rule("export_raw_vdi", "fail", error=["SR_HAS_NO_PBDS", "x"], nth=1)
    control.add_rule("export_raw_vdi", "drop_before", nth=2)
    task = transfers.api.task.create("download", "")
    assert transfers.request("GET", "/export_raw_vdi", vdi=vdi, task_id=task).status == 500
    assert transfers.ended(task)["error_info"] == ["SR_HAS_NO_PBDS", "x"]
    with pytest.raises(http.client.RemoteDisconnected):
        transfers.request("GET", "/export_raw_vdi", vdi=vdi)
    assert transfers.content(vdi)[: len(CONTENT)] == CONTENT
    assert [call.outcome for call in control.await_calls("export_raw_vdi", 3, ended=True)] == [
        "SR_HAS_NO_PBDS",
        "DROPPED",
        "SUCCESS",
    ]
    transfers.api.VDI.destroy(vdi)


def test_what_is_no_transfer_cannot_be_cut(control: Control) -> None:
    with pytest.raises(ControlError):
        control.add_rule("VM.*", "throttle", size=1)


def test_data_requests_are_logged(control: Control, transfers: Transfers, session: XenAPI.Session) -> None:
    vdi = transfers.disk(CONTENT)
    uuid = session.xenapi.VDI.get_uuid(vdi)
    transfers.get("/export_raw_vdi", vdi=uuid)
    assert transfers.request("GET", "/rrd_updates").status == 400
    up, down, updates = [call for call in control.read_calls() if "." not in call.name]
    assert (up.name, down.name, updates.name) == ("import_raw_vdi", "export_raw_vdi", "rrd_updates")
    assert vdi in up.references
    assert len(up.references) == 2
    assert down.references == (vdi,)
    assert (up.originator, up.outcome, updates.outcome) == ("tests", "SUCCESS", "400")
    assert session.handle not in repr(control.read_calls())
    transfers.api.VDI.destroy(vdi)
