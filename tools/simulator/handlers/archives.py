"""VMs into and out of the pool, with their disks: GET /export, PUT /import, GET /export_metadata.

Source: ocaml/xapi/{export,import}.ml.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import Any, Callable

from .. import errors, lifecycle, vdis
from ..calls import HANDLERS
from ..formats.streams import PIECE, EndedEarlyError, FormatError, Source
from ..formats.tar_blocks import ChecksumError, Member, blocks_of, read_members, write_end, write_member
from ..model import NULL_REF, Type
from ..state import Context
from ..values import coerce
from ..xmlrpc import encode_value
from . import ova
from .disk_images import host_of, send_blocks
from .progress import Progress
from .request import Refused, Request, fail_task

_GZIP = 16 + zlib.MAX_WBITS
"""What makes zlib write and read gzip."""

# Export


def _vm(request: Request) -> str:
    vm = request.find("VM", "ref", "uuid")
    if vm is None:
        raise Refused(400)
    return vm


def export_vm(request: Request) -> None:
    """Send a halted VM as an archive, with all its disks."""
    compression = request.parameters.get("use_compression")
    if compression == "zstd":
        fail_task(request, errors.internal_error("zstd is not served here"))
        raise Refused(501)
    vm = _vm(request)
    with request.task("VM.export") as progress:
        context = Context(request.state, request.session, request.host)
        with lifecycle.operate(context, vm, "export"):
            disks = _disks(request, vm)
            refs = ova.members(request.state, vm)
            document, names = ova.describe(request.state, refs)
            with contextlib.ExitStack() as stack:
                for vdi in disks:
                    stack.enter_context(vdis.attached(request.state, vdi, "RO"))
                _answer_with_archive(request, progress)
                with _compressing(request, compression in ("true", "gzip")):
                    request.write(write_member(ova.NAME, document.encode("utf-8")))
                    for vdi in sorted(disks, key=lambda vdi: names[vdi]):
                        location = request.state.database.get("VDI", vdi, "location")
                        send_blocks(request, progress, names[vdi], location)
                    request.write(write_end())
        request.http.wfile.flush()


def _answer_with_archive(request: Request, progress: Progress) -> None:
    request.answer(
        {
            "task-id": progress.task,
            "content-type": "application/octet-stream",
            "content-disposition": 'attachment; filename="export.xva"',
        }
    )


def _disks(request: Request, vm: str) -> list[str]:
    database = request.state.database
    found = []
    for vbd in database.get("VM", vm, "VBDs"):
        record = database.record("VBD", vbd)
        if record["type"] != "CD" and database.exists("VDI", record["VDI"]):
            found.append(record["VDI"])
    return found


@contextlib.contextmanager
def _compressing(request: Request, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    compressor, write = zlib.compressobj(wbits=_GZIP), request.write
    request.write = lambda data: write(compressor.compress(data))  # type: ignore[method-assign]
    try:
        yield
    finally:
        request.write = write  # type: ignore[method-assign]
    write(compressor.flush())


def export_metadata(request: Request) -> None:
    """Send the description of a VM, without its disks."""
    vm = _vm(request)
    with request.task("VM.export_metadata") as progress:
        document, _ = ova.describe(request.state, ova.members(request.state, vm))
        _answer_with_archive(request, progress)
        request.write(write_member(ova.NAME, document.encode("utf-8")) + write_end())
        request.http.wfile.flush()


# Import


def import_vm(request: Request) -> None:
    """Make a VM, and its disks, of an archive. 200 comes first: only the task says how it went."""
    state = request.state
    sr = request.find("SR", "sr_id", "sr_uuid") or state.database.get("pool", state.pool, "default_SR")
    host = host_of(request, sr)
    if host is not None and host != request.host.ref:
        raise request.redirect(host)
    refused = False
    try:
        with request.task("VM.import") as progress:
            if "Transfer-Encoding" in request.http.headers:
                refused = True
                raise errors.ApiError("IMPORT_ERROR_CANNOT_HANDLE_CHUNKED")
            vdis.assert_plugged(state, sr)
            request.answer({"task-id": progress.task, "content-type": "application/octet-stream"})
            vms = _Import(request, progress, sr).run()
            progress.result = encode_value(state.model, Type("set", item=Type("ref", "VM")), vms)
    except errors.ApiError:
        if refused:
            raise Refused(403) from None
        raise


class _Import:
    """One archive. When it fails, nothing is left of what it made."""

    def __init__(self, request: Request, progress: Progress, sr: str) -> None:
        self._request = request
        self._state = request.state
        self._context = Context(request.state, request.session, request.host)
        self._progress = progress
        self._sr = sr
        self._restore = request.parameters.get("restore") == "true"
        self._force = request.parameters.get("force") == "true"
        self._new: dict[str, str] = {}
        self._made: list[tuple[str, str]] = []

    def run(self) -> list[str]:
        """The VMs that were made. ApiError IMPORT_ERROR and its kin when the archive is not right."""
        try:
            return self._run()
        except FormatError as error:
            self._clean_up()
            raise _import_error(error) from error
        except BaseException:
            self._clean_up()
            raise

    def _run(self) -> list[str]:
        outer = self._request.body()
        source = _plain(outer)
        members = read_members(source)
        first = next(members, None)
        if first is None or first.name != ova.NAME:
            raise errors.ApiError("IMPORT_ERROR_UNEXPECTED_FILE", ova.NAME, first.name if first else "")
        described = ova.read(self._state.model, first.data)
        vms = [self._make_vm(item) for item in described if item.cls == "VM"]
        sizes = {item.name: self._make_disk(item) for item in _disks_of(described)}
        for item in described:
            if item.cls == "network":
                self._find_network(item)
        for item in described:
            if item.cls == "VBD":
                self._make_device(item, "VBD.create", {"VM": "VM", "VDI": "VDI"})
            elif item.cls == "VIF":
                self._make_device(item, "VIF.create", {"VM": "VM", "network": "network"})
        self._fill(outer, members, sizes)
        outer.drain()
        return vms

    def _call(self, name: str, *arguments: Any) -> Any:
        return HANDLERS[name](self._context, *arguments)

    def _make_vm(self, item: ova.Described) -> str:
        database, uuid = self._state.database, item.record.get("uuid", "")
        if self._restore and database.find("VM", "uuid", uuid):
            existing = database.by_uuid("VM", uuid)
            raise errors.ApiError("DUPLICATE_VM", existing)
        record = {**item.record, "affinity": NULL_REF, "suspend_VDI": NULL_REF, "blocked_operations": {}}
        if not self._restore:
            # Its interfaces get addresses of their own.
            other_config = record.get("other_config")
            if isinstance(other_config, dict):
                record["other_config"] = {name: text for name, text in other_config.items() if name != "mac_seed"}
        vm: str = self._call("VM.create", record)
        self._made.append(("VM", vm))
        if self._restore and isinstance(uuid, str):
            database.set("VM", vm, uuid=uuid)
        self._new[item.name] = vm
        return vm

    def _make_disk(self, item: ova.Described) -> int:
        record = item.record
        size = coerce(self._state.model, Type("int"), record.get("virtual_size"))
        fields = {**record, "SR": self._sr, "virtual_size": size, "sm_config": {}, "read_only": False}
        vdi: str = self._call("VDI.create", fields)
        self._made.append(("VDI", vdi))
        self._new[item.name] = vdi
        return int(size)

    def _find_network(self, item: ova.Described) -> None:
        database = self._state.database
        for field in ("uuid", "bridge", "name_label"):
            found = database.find("network", field, item.record.get(field))
            if found:
                self._new[item.name] = found[0]
                return
        self._new[item.name] = self._call("network.create", {**item.record, "bridge": ""})
        self._made.append(("network", self._new[item.name]))

    def _make_device(self, item: ova.Described, call: str, references: dict[str, str]) -> None:
        record = dict(item.record)
        for field in references:
            record[field] = self._new.get(record.get(field, ""), NULL_REF)
        if call == "VBD.create" and record.get("type") == "CD" and record["VDI"] == NULL_REF:
            record["empty"] = True
        if call == "VIF.create" and not self._restore:
            record["MAC"] = ""
        self._made.append((call.partition(".")[0], self._call(call, record)))

    def _fill(self, outer: Source, members: Iterator[Member], sizes: dict[str, int]) -> None:
        with contextlib.ExitStack() as stack:
            for name in sizes:
                stack.enter_context(vdis.attached(self._state, self._new[name], "RW"))
            for directory, (offset, data) in blocks_of(members, sizes):
                vdis.write(self._state, self._new[directory], offset, data)
                if outer.length:
                    self._progress.reach(outer.position / outer.length)

    def _clean_up(self) -> None:
        removers: dict[str, Callable[[str], object]] = {
            "VM": lambda ref: self._call("VM.destroy", ref),
            "VDI": lambda ref: vdis.destroy(self._state, ref),
            "network": lambda ref: self._call("network.destroy", ref),
        }
        # VBDs and VIFs go with their VM, which must go before its disks and networks.
        for cls in ("VM", "VDI", "network"):
            for made_cls, ref in self._made:
                if made_cls == cls:
                    with contextlib.suppress(errors.ApiError):
                        removers[cls](ref)


def _disks_of(described: list[ova.Described]) -> list[ova.Described]:
    """The disks whose content is in the archive: those of VBDs that are no drives."""
    used = {item.record.get("VDI") for item in described if item.cls == "VBD" and item.record.get("type") != "CD"}
    return [item for item in described if item.cls == "VDI" and item.name in used]


def _import_error(error: FormatError) -> errors.ApiError:
    if isinstance(error, EndedEarlyError):
        return errors.ApiError("IMPORT_ERROR_PREMATURE_EOF")
    if isinstance(error, ChecksumError):
        return errors.ApiError("IMPORT_ERROR_SOME_CHECKSUMS_FAILED")
    return errors.ApiError("IMPORT_ERROR", str(error))


def _plain(source: Source) -> Source:
    """What is in a compressed archive, or the archive itself when it is not compressed."""
    start = source.read(2)
    if start == b"\x1f\x8b":
        return Source(_decompressing(source, start))
    waiting = [start]

    def read(size: int) -> bytes:
        if waiting:
            held = waiting.pop()
            if len(held) > size:
                waiting.append(held[size:])
            return held[:size]
        return source.read(size)

    return Source(read)


def _decompressing(source: Source, start: bytes) -> Callable[[int], bytes]:
    decompressor = zlib.decompressobj(wbits=_GZIP)
    waiting = start

    def read(size: int) -> bytes:
        nonlocal waiting
        while not decompressor.eof:
            try:
                data = decompressor.decompress(waiting, size)
            except zlib.error:
                raise FormatError("not a gzip file") from None
            waiting = decompressor.unconsumed_tail
            if data:
                return data
            if not waiting:
                waiting = source.read(PIECE)
                if not waiting:
                    raise EndedEarlyError
        return b""

    return read
