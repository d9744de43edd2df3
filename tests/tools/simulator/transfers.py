"""What the tests of disks and their transfer share."""

from __future__ import annotations

import contextlib
import http.client
import struct
from typing import Any
from urllib.parse import urlencode

import XenAPI

from tools.simulator.process import SimulatorProcess

from .support import MIB, failure, until

__all__ = ["Transfers", "chunk", "failure", "make_sr", "vdi_record"]


def vdi_record(session: XenAPI.Session, **changes: Any) -> dict[str, Any]:
    """What VDI.create needs."""
    record = {
        "name_label": "disk",
        "SR": session.xenapi.pool.get_default_SR(session.xenapi.pool.get_all()[0]),
        "virtual_size": str(8 * MIB),
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
    }
    return {**record, **changes}


def make_sr(session: XenAPI.Session, size: int = 64 * MIB, sr_type: str = "ext") -> str:
    """A new SR of `size` bytes."""
    config = {"device": "/dev/sdb", "server": "filer", "serverpath": "/srv", "location": "/srv"}
    (host,) = session.xenapi.host.get_all()
    ref: str = session.xenapi.SR.create(host, config, str(size), "extra", "", sr_type, "user", False, {})
    return ref


def chunk(offset: int, data: bytes) -> bytes:
    """A piece in xapi's own format."""
    return struct.pack("<QI", offset, len(data)) + data


class Transfers:
    """Uploads and downloads of a test, each with a task."""

    def __init__(self, simulator: SimulatorProcess, session: XenAPI.Session) -> None:
        self.session = session
        self.api = session.xenapi
        self.address = simulator.url.partition("//")[2]

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address, timeout=20)

    def path(self, place: str, **parameters: str) -> str:
        session: str = self.session.handle
        return f"{place}?{urlencode({'session_id': session, **parameters})}"

    def request(self, method: str, place: str, body: Any = None, **parameters: str) -> http.client.HTTPResponse:
        """The response, whose body is still to be read."""
        headers = {} if body is None or isinstance(body, bytes) else {"Transfer-Encoding": "chunked"}
        connection = self.connection()
        # What is refused is answered before the body is read, and then the rest of it cannot be sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, self.path(place, **parameters), body, headers)
        return connection.getresponse()

    def get(self, place: str, **parameters: str) -> bytes:
        """A body, for which the status must be 200."""
        response = self.request("GET", place, **parameters)
        assert response.status == 200, response.read()
        return response.read()

    def put(self, place: str, body: bytes, **parameters: str) -> dict[str, Any]:
        """The record of the task, once it has ended."""
        task = self.api.task.create("transfer", "")
        response = self.request("PUT", place, body, **{"task_id": task, **parameters})
        assert response.status == 200, response.read()
        assert response.headers["task-id"] == task
        return self.ended(task)

    def ended(self, task: str) -> dict[str, Any]:
        """The record of a task, once it has ended."""
        record: dict[str, Any] = until(
            lambda: (record := self.api.task.get_record(task))["status"] != "pending" and record
        )
        self.api.task.destroy(task)
        return record

    def disk(self, content: bytes = b"", **changes: Any) -> str:
        """A new VDI with that content at its beginning."""
        vdi: str = self.api.VDI.create(vdi_record(self.session, **changes))
        if content:
            assert self.put("/import_raw_vdi", content, vdi=vdi)["status"] == "success"
        return vdi

    def content(self, vdi: str) -> bytes:
        """What is in a VDI."""
        return self.get("/export_raw_vdi", vdi=vdi)
