"""Config drives: a small disc with what cloud-init and cloudbase-init want to know at a guest's first boot.

ISO 9660 with Rock Ridge and Joliet names, the label `config-2`, and OpenStack's files below openstack/latest (Nova's
metadata format; cloud-init's datasource ConfigDrive). Never with a password: the disc stays in the pool as long as the
guest does, for all who can read disks there.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pycdlib

from agent_protocol.outcomes import Refused

from ...driver import Instance
from ...images import DiskFormat
from ..connection.session import XenServer
from ..undo import Undo
from . import disks
from .disks import Disk
from .marks import Purpose
from .repositories import Repository
from .transfers import Transfers, Watch

LABEL = "config-2"
MAX_SIZE = 64 * 1024**2
"""Bytes of a disc, as Nova limits its own."""

_FOLDER = ("openstack", "latest")
_SECRETS = frozenset({"admin_pass", "adminpass", "admin_password", "password", "passwd"})


@dataclass(frozen=True)
class Contents:
    """What is on a config drive. Refused (`config_drive_secret`) when the metadata names a password.

    hostname: without a domain or with one. public_keys: name and line as in authorized_keys. meta: the operator's own
    pairs. user_data: for the guest alone, as it came. network_data: in the format of Nova's network_data.json.
    """

    instance: Instance
    hostname: str
    public_keys: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)
    user_data: bytes | None = field(default=None, repr=False)
    network_data: Mapping[str, Any] | None = None
    vendor_data: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for key in self.meta:
            if key.lower() in _SECRETS:
                raise Refused("config_drive_secret", f"a config drive takes no password, but the metadata has {key!r}")

    def files(self) -> dict[str, bytes]:
        """The files below openstack/latest."""
        metadata = {
            "uuid": self.instance.uuid,
            "name": self.instance.display_name,
            "hostname": self.hostname,
            "public_keys": dict(self.public_keys),
            "keys": [{"name": name, "type": "ssh", "data": key} for name, key in self.public_keys.items()],
            "meta": dict(self.meta),
            "launch_index": 0,
        }
        files = {"meta_data.json": _json(metadata)}
        if self.user_data is not None:
            files["user_data"] = self.user_data
        if self.network_data is not None:
            files["network_data.json"] = _json(self.network_data)
        if self.vendor_data is not None:
            files["vendor_data.json"] = _json(self.vendor_data)
        return files


def _json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data).encode("ascii")


def build(contents: Contents) -> bytes:
    """The disc. Refused when it would be too large."""
    files = contents.files()
    if sum(map(len, files.values())) > MAX_SIZE:
        raise Refused("config_drive_too_large", f"a config drive has at most {MAX_SIZE} bytes")
    disc = pycdlib.PyCdlib()
    disc.new(interchange_level=3, vol_ident=LABEL, rock_ridge="1.09", joliet=3)
    try:
        path = ""
        for name in _FOLDER:
            path += f"/{name}"
            disc.add_directory(path.upper(), rr_name=name, joliet_path=path)
        for name, content in files.items():
            place = f"{path}/{name}"
            # Names of the plain file system need a dot.
            plain = place.upper() if "." in name else f"{place.upper()}."
            disc.add_fp(io.BytesIO(content), len(content), f"{plain};1", rr_name=name, joliet_path=place)
        out = io.BytesIO()
        disc.write_fp(out)
    finally:
        disc.close()
    return out.getvalue()


def attach(
    server: XenServer,
    transfers: Transfers,
    repository: Repository,
    vm: str,
    contents: Contents,
    watch: Watch | None = None,
) -> Disk:
    """Put a config drive into a drive of a VM (a ref) that is shut down; disks.of_vm() tells it as the instance's.

    Errors as of Transfers.send() and disks.create(). Nothing is left of it when it fails.
    """
    disc = build(contents)
    with Undo() as undo:
        disk = disks.create(server, repository, disks.of_instance(contents.instance, Purpose.CONFIG_DRIVE, len(disc)))
        undo.add("config drive", lambda: disks.destroy(server, disk.ref))
        transfers.send(_Bytes(disc), len(disc), disk.ref, DiskFormat.RAW, watch)
        disks.attach(server, vm, disk.ref, device=disks.CONFIG_DRIVE_DEVICE, kind="CD", read_only=True)
    return disk


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.size: int | None = len(data)
        self.read = io.BytesIO(data).read
