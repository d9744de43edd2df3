"""Disks into and out of the pool: PUT /import_raw_vdi, GET /export_raw_vdi.

Source: ocaml/xapi/{import_raw_vdi,export_raw_vdi,importexport}.ml.
"""

from __future__ import annotations

import uuid as uuids
from typing import Any

from .. import errors, vdis
from ..formats import vhd
from ..formats.chunks import read_chunks
from ..formats.raw import read_raw
from ..formats.streams import PIECE, Image
from ..formats.tar_blocks import read_blocks, write_blocks, write_end
from ..formats.vhd_reader import read_vhd
from ..formats.vhd_writer import write_vhd
from ..model import Type
from ..xmlrpc import encode_value
from .progress import Progress
from .request import Refused, Request, fail_task

CONTENT_TYPES = {"raw": "application/octet-stream", "vhd": "application/vhd", "tar": "application/x-tar"}
"""The formats that are served. A real host of the latest release also has qcow2."""

TAR_DIRECTORY = "vdi"
"""Where the blocks of a disk are in a tar archive of it alone."""


def host_of(request: Request, sr: str) -> str | None:
    """A host that is connected with the repository, this one if it is; None when no host is."""
    state = request.state
    hosts = []
    for pbd in state.database.get("SR", sr, "PBDs"):
        record = state.database.record("PBD", pbd)
        if record["currently_attached"]:
            hosts.append(record["host"])
    return request.host.ref if request.host.ref in hosts else next(iter(hosts), None)


def _format(request: Request) -> str:
    return request.parameters.get("format", "raw").lower()


def _refusing(status: int, text: str) -> tuple[errors.ApiError, Refused]:
    return errors.internal_error(text), Refused(status)


# Import


def import_raw_vdi(request: Request) -> None:
    """Fill a disk with what the client sends, or a new one. 200 comes first: only the task says how it went."""
    vdi = request.find("VDI", "vdi")
    sr = request.state.database.get("VDI", vdi, "SR") if vdi else request.find("SR", "sr_id", "sr_uuid")
    if sr is None:
        fail_task(request, errors.ApiError("VDI_MISSING"))
        raise Refused(400)
    host = host_of(request, sr)
    if host is None:
        fail_task(request, errors.ApiError("NO_HOSTS_AVAILABLE"))
        raise Refused(400)
    if host != request.host.ref:
        raise request.redirect(host)
    refused: list[Refused] = []
    try:
        with request.task("Importing raw VDI") as progress:
            refusal = _import_refusal(request, vdi)
            if refusal is not None:
                refused.append(refusal[1])
                raise refusal[0]
            vdi = vdi or _new_vdi(request, sr)
            request.answer({"task-id": progress.task, "content-type": "application/octet-stream"})
            receive(request, progress, vdi)
            progress.result = encode_value(request.state.model, Type("ref", "VDI"), vdi)
    except errors.ApiError:
        if refused:
            raise refused[0] from None
        raise


def _import_refusal(request: Request, vdi: str | None) -> tuple[errors.ApiError, Refused] | None:
    name, encoding = _format(request), request.http.headers.get("Transfer-Encoding")
    if name not in CONTENT_TYPES:
        return _refusing(404, f"Unknown format {name}")
    if name != "raw" and "chunked" in request.flags:
        return _refusing(404, "Cannot handle chunked VHD")
    if encoding is not None:
        return _refusing(404, f"Cannot handle encoding: {encoding}")
    if vdi is None and name == "vhd":
        return _refusing(400, "Importing a VHD directly into an SR not yet supported")
    if vdi is None and (name != "raw" or request.content_length is None):
        return _refusing(400, "Not enough info supplied to import")
    return None


def _new_vdi(request: Request, sr: str) -> str:
    return vdis.create(request.state, sr, request.content_length or 0, name_label="Imported VDI", type="user")


def receive(request: Request, progress: Progress, vdi: str) -> None:
    """Write what the client sends into a disk. ApiError or FormatError in the middle: what was written stays."""
    state, source = request.state, request.body()
    with vdis.attached(state, vdi, "RW") as disk:
        total = source.length or state.disks.size(disk)
        image: Image
        if _format(request) == "vhd":
            image = read_vhd(source)
        elif _format(request) == "tar":
            image = read_blocks(source, {TAR_DIRECTORY: state.disks.size(disk)})
        else:
            image = read_chunks(source) if "chunked" in request.flags else read_raw(source)
        for offset, data in image:
            vdis.write(state, vdi, offset, data)
            progress.reach(source.position / max(total, 1))
        source.drain()


# Export


def export_raw_vdi(request: Request) -> None:
    """Send a disk, or with `base` what differs from another one."""
    state = request.state
    vdi = request.find("VDI", "vdi")
    if vdi is None:
        raise Refused(400)
    host = host_of(request, state.database.get("VDI", vdi, "SR"))
    if host is None:
        raise errors.ApiError("NO_HOSTS_AVAILABLE")
    if host != request.host.ref:
        raise request.redirect(host)
    name = _format(request)
    if name not in CONTENT_TYPES:
        fail_task(request, errors.internal_error(f"Unknown format {name}"))
        raise Refused(404)
    with request.task("Exporting raw VDI") as progress:
        base = request.find("VDI", "base")
        record = state.database.record("VDI", vdi)
        if name == "vhd" and record["virtual_size"] > vhd.MAX_SIZE:
            raise errors.ApiError("VDI_TOO_LARGE", vdi, str(vhd.MAX_SIZE))
        with vdis.attached(state, vdi, "RO") as disk:
            origin = state.database.get("VDI", base, "location") if base else None
            request.answer(
                {
                    "task-id": progress.task,
                    "content-type": CONTENT_TYPES[name],
                    "content-disposition": f'attachment; filename="{record["uuid"]}.{name}"',
                }
            )
            _SENDERS[name](request, progress, disk, origin)
            request.http.wfile.flush()


def _send_raw(request: Request, progress: Progress, disk: str, origin: str | None) -> None:
    # Without a file in the middle that could have holes, the zeros must be sent as well.
    del origin
    size = request.state.disks.size(disk)
    for offset in range(0, size, PIECE):
        request.write(request.state.disks.read(disk, offset, PIECE))
        progress.reach(offset / size)


def _send_vhd(request: Request, progress: Progress, disk: str, origin: str | None) -> None:
    disks = request.state.disks
    size = disks.size(disk)
    blocks = [number for number in disks.allocated(disk, vhd.BLOCK, origin) if _differs(request, number, disk, origin)]

    def read(offset: int, length: int) -> bytes:
        progress.reach(offset / size)
        return disks.read(disk, offset, length)

    parent = (uuids.UUID(origin), f"{origin}.vhd") if origin else None
    for piece in write_vhd(size, blocks, read, uuids.UUID(disk), parent):
        request.write(piece)


def _differs(request: Request, number: int, disk: str, origin: str | None) -> bool:
    if origin is None:
        return True
    read = request.state.disks.read
    return read(disk, number * vhd.BLOCK, vhd.BLOCK) != read(origin, number * vhd.BLOCK, vhd.BLOCK)


def _send_tar(request: Request, progress: Progress, disk: str, origin: str | None) -> None:
    del origin
    send_blocks(request, progress, TAR_DIRECTORY, disk)
    request.write(write_end())


def send_blocks(request: Request, progress: Progress, directory: str, disk: str) -> None:
    """Send a disk as the blocks of an archive."""
    disks = request.state.disks
    size = disks.size(disk)

    def read(offset: int, length: int) -> bytes:
        progress.reach(offset / size)
        return disks.read(disk, offset, length)

    for piece in write_blocks(directory, size, disks.allocated(disk, PIECE), read):
        request.write(piece)


_SENDERS: dict[str, Any] = {"raw": _send_raw, "vhd": _send_vhd, "tar": _send_tar}
