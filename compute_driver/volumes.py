"""Volumes that the cloud attaches to instances: which one, where it lies, and as what the guest shall see it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Union

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused

from .parsing import Parser

DEFAULT_PORT = 3260
"""Of iSCSI (RFC 7143, section 2.2)."""

MAX_LUN = 16383
"""The largest of the flat addresses of SAM-5, section 4.7.7.3."""

MAX_IQN = 223
"""Bytes of an iSCSI name (RFC 7143, section 4.2.7.1)."""

MAX_PATH = 1024
"""Bytes of a path that an NFS server exports: MNTPATHLEN of RFC 1813."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.ASCII)
_HOST = re.compile(r"(?=.{1,253}\Z)([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)\Z", re.ASCII)
_IQN = re.compile(r"(iqn\.[0-9]{4}-[0-9]{2}\.[a-z0-9.:-]+|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16,32})\Z", re.ASCII)
_PATH = re.compile(r"(/[A-Za-z0-9_.@+-]+)+\Z", re.ASCII)
_DEVICE = re.compile(r"(/dev/)?(xvd[a-z]|[0-9]{1,3})\Z", re.ASCII)
_NFS_VERSIONS = ("3", "4", "4.1")
_USER = re.compile(r"[\x21-\x7e]{1,223}\Z", re.ASCII)


def bad(message: str) -> Refused:
    """The error for what cannot be a volume."""
    return Refused("bad_volume", message)


_PARSER = Parser(bad)


def _check(pattern: re.Pattern[str], value: str, what: str) -> None:
    if not pattern.match(value):
        raise bad(f"{what} is not of the form that it should have")


@dataclass(frozen=True)
class VdiConnection:
    """A virtual disk that the pool knows already, by its uuid."""

    kind: ClassVar[str] = "vdi"
    uuid: str

    def __post_init__(self) -> None:
        _check(_UUID, self.uuid, "the uuid of a virtual disk")

    def to_dict(self, *, secrets: bool) -> dict[str, Any]:
        """As plain data."""
        del secrets
        return {"uuid": self.uuid}

    @classmethod
    def from_dict(cls, untrusted: object) -> VdiConnection:
        """From such data; Refused (`bad_volume`)."""
        members = _PARSER.members(untrusted, "the connection", ("uuid",))
        return cls(_PARSER.text(members.get("uuid"), "uuid"))


@dataclass(frozen=True)
class IscsiConnection:
    """A logical unit of an iSCSI target.

    host: name or address of the portal; port: its TCP port. iqn: the target's name. lun: the unit's number. chap_user,
    chap_password: both, or neither for a target that asks for none.
    """

    kind: ClassVar[str] = "iscsi"
    host: str
    iqn: str
    lun: int
    port: int = DEFAULT_PORT
    chap_user: str | None = None
    chap_password: Password | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check(_HOST, self.host, "the host of a target")
        if not 1 <= self.port <= 65535:
            raise bad("a port is a number from 1 to 65535")
        if len(self.iqn) > MAX_IQN:
            raise bad(f"the name of a target has at most {MAX_IQN} characters")
        _check(_IQN, self.iqn, "the name of a target")
        if not 0 <= self.lun <= MAX_LUN:
            raise bad(f"a logical unit is a number from 0 to {MAX_LUN}")
        if (self.chap_user is None) != (self.chap_password is None):
            raise bad("CHAP needs a user and a password")
        if self.chap_user is not None:
            _check(_USER, self.chap_user, "the user for CHAP")

    def to_dict(self, *, secrets: bool) -> dict[str, Any]:
        """As plain data; the password only if `secrets`."""
        told = {"host": self.host, "port": self.port, "iqn": self.iqn, "lun": self.lun, "chap_user": self.chap_user}
        if secrets and self.chap_password is not None:
            told["chap_password"] = self.chap_password.value
        return told

    @classmethod
    def from_dict(cls, untrusted: object) -> IscsiConnection:
        """From such data; Refused (`bad_volume`, `bad_password`)."""
        known = ("host", "port", "iqn", "lun", "chap_user", "chap_password")
        members = _PARSER.members(untrusted, "the connection", known)
        password = _PARSER.optional_text(members.get("chap_password"), "chap_password")
        port = _PARSER.optional_number(members.get("port"), "port")
        return cls(
            host=_PARSER.text(members.get("host"), "host"),
            iqn=_PARSER.text(members.get("iqn"), "iqn"),
            lun=_PARSER.number(members.get("lun"), "lun"),
            port=DEFAULT_PORT if port is None else port,
            chap_user=_PARSER.optional_text(members.get("chap_user"), "chap_user"),
            chap_password=None if password is None else Password(password),
        )


@dataclass(frozen=True)
class NfsConnection:
    """A virtual disk in a storage repository on an NFS export.

    host: name or address of the server. path: what it exports, absolute. sr: uuid of the repository, which is also the
    name of its directory there. vdi: uuid of the disk. version: of NFS; None for the host's default.
    """

    kind: ClassVar[str] = "nfs"
    host: str
    path: str
    sr: str
    vdi: str
    version: str | None = None

    def __post_init__(self) -> None:
        _check(_HOST, self.host, "the host of an NFS server")
        _check(_PATH, self.path, "the path of an NFS export")
        if len(self.path) > MAX_PATH or ".." in self.path.split("/"):
            raise bad("the path of an NFS export is not of the form that it should have")
        _check(_UUID, self.sr, "the uuid of a storage repository")
        _check(_UUID, self.vdi, "the uuid of a virtual disk")
        if self.version is not None and self.version not in _NFS_VERSIONS:
            raise bad(f"the version of NFS is one of {', '.join(_NFS_VERSIONS)}")

    def to_dict(self, *, secrets: bool) -> dict[str, Any]:
        """As plain data."""
        del secrets
        return {"host": self.host, "path": self.path, "sr": self.sr, "vdi": self.vdi, "version": self.version}

    @classmethod
    def from_dict(cls, untrusted: object) -> NfsConnection:
        """From such data; Refused (`bad_volume`)."""
        members = _PARSER.members(untrusted, "the connection", ("host", "path", "sr", "vdi", "version"))
        return cls(
            host=_PARSER.text(members.get("host"), "host"),
            path=_PARSER.text(members.get("path"), "path"),
            sr=_PARSER.text(members.get("sr"), "sr"),
            vdi=_PARSER.text(members.get("vdi"), "vdi"),
            version=_PARSER.optional_text(members.get("version"), "version"),
        )


Connection = Union[VdiConnection, IscsiConnection, NfsConnection]

_CONNECTIONS: Mapping[str, type[VdiConnection] | type[IscsiConnection] | type[NfsConnection]] = {
    "vdi": VdiConnection,
    "iscsi": IscsiConnection,
    "nfs": NfsConnection,
}


@dataclass(frozen=True)
class Volume:
    """A volume for an instance.

    id: as the cloud calls it. device: `xvdb` or the device's number, None for the next free one. boot_index: 0 for the
    one that the guest boots from, None for one that it does not.
    """

    id: str
    connection: Connection
    device: str | None = None
    read_only: bool = False
    boot_index: int | None = None

    def __post_init__(self) -> None:
        if not _ID.match(self.id):
            raise bad("the id of a volume has 1 to 64 letters, digits, points, hyphens and underscores")
        if self.device is not None and not _DEVICE.match(self.device):
            raise bad("a device is named as xvdb, or by its number")
        if self.boot_index is not None and not 0 <= self.boot_index <= 255:
            raise bad("boot_index is a number from 0 to 255")

    @property
    def kind(self) -> str:
        """How it is reached: `vdi`, `iscsi` or `nfs`."""
        return self.connection.kind

    @property
    def is_bootable(self) -> bool:
        """Whether the guest boots from it."""
        return self.boot_index == 0

    def to_dict(self, *, secrets: bool = False) -> dict[str, Any]:
        """As plain data. secrets: with CHAP's password, which nothing may keep or log."""
        return {
            "id": self.id,
            "kind": self.kind,
            "connection": self.connection.to_dict(secrets=secrets),
            "device": self.device,
            "read_only": self.read_only,
            "boot_index": self.boot_index,
        }

    @classmethod
    def from_dict(cls, untrusted: object) -> Volume:
        """From such data; a missing member is as null or false is.

        Refused (`bad_volume`, `bad_password`) names what is wrong, never the value; unknown members are.
        """
        known = ("id", "kind", "connection", "device", "read_only", "boot_index")
        members = _PARSER.members(untrusted, "a volume", known)
        kind = _CONNECTIONS.get(_PARSER.text(members.get("kind"), "kind"))
        if kind is None:
            raise bad(f"the kind of a volume is one of {', '.join(_CONNECTIONS)}")
        return cls(
            id=_PARSER.text(members.get("id"), "id"),
            connection=kind.from_dict(members.get("connection")),
            device=_PARSER.optional_text(members.get("device"), "device"),
            read_only=_PARSER.flag(members.get("read_only"), "read_only"),
            boot_index=_PARSER.optional_number(members.get("boot_index"), "boot_index"),
        )
