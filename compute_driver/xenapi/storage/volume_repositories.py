"""Storage repositories (SRs) that volumes lie in: introduced to the pool for them, and forgotten after the last one.

Nothing here creates or destroys storage: an SR is introduced (SR.introduce), connected with the hosts that need it
(PBD.create, PBD.plug), and forgotten (SR.forget). What this driver introduced bears a mark; other SRs are used as they
are. One SR stands for a whole iSCSI target: the storage manager derives the uuid of a VDI from the logical unit's
serial number (drivers/LUNperVDI.py), so two SRs of one target would hold VDIs of the same uuids.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused

from ...errors import ObjectGone, XenServerFailure
from ...volumes import IscsiConnection, NfsConnection
from ..connection.session import XenServer
from ..network.networks import MADE_KEY
from ..turns import Turns
from ..undo import Undo

PLUG_TIMEOUT = 300.0
"""Seconds for a host to reach a storage server or to see that it cannot: mounts and logins have retries of minutes."""

_SECRET = "chappassword_secret"  # noqa: S105 (the name of a key)
"""Key in PBD.device_config that names a secret by its uuid, in the place of `chappassword`, which every client of the
pool could read (drivers/BaseISCSI.py). xapi itself destroys it together with the PBD (destroy in xapi_pbd.ml)."""


@dataclass(frozen=True)
class VolumeRepository:
    """An SR as it has to be introduced. config: PBD.device_config, without secrets."""

    uuid: str
    type: str
    name: str
    config: dict[str, str]
    chap_user: str | None = None
    chap_password: Password | None = field(default=None, repr=False)


def of_iscsi(connection: IscsiConnection) -> VolumeRepository:
    """The SR of a target; its uuid follows from portal and target, so that everybody gives it the same."""
    host = connection.host.lower()
    return VolumeRepository(
        uuid=str(uuid.uuid5(uuid.NAMESPACE_URL, f"iscsi://{host}:{connection.port}/{connection.iqn}")),
        # Each logical unit is a VDI (drivers/RawISCSISR.py); `lvmoiscsi` would write a volume group onto it.
        type="iscsi",
        name=f"Volumes on {connection.iqn}",
        config={"target": connection.host, "port": str(connection.port), "targetIQN": connection.iqn},
        chap_user=connection.chap_user,
        chap_password=connection.chap_password,
    )


def of_nfs(connection: NfsConnection) -> VolumeRepository:
    """The SR in the directory of its uuid on an export (drivers/NFSSR.py)."""
    config = {"server": connection.host, "serverpath": connection.path}
    if connection.version is not None:
        config["nfsversion"] = connection.version
    return VolumeRepository(connection.sr, "nfs", f"Volumes on {connection.host}:{connection.path}", config)


class VolumeRepositories:
    """The SRs of one pool. turns: by the uuid of an SR; who uses one holds its turn until a VBD keeps it."""

    def __init__(self, server: XenServer) -> None:
        self._server = server
        self.turns = Turns()

    def connect(self, repository: VolumeRepository, hosts: Sequence[str], undo: Undo) -> str:
        """The reference of the SR, connected with those hosts (refs). The caller holds its turn.

        undo: gets what takes this back, to be called without the turn. Refused with `sr_not_on_host` when somebody
        else's SR is not connected.
        """
        undo.add(f"storage repository {repository.uuid}", lambda: self.release(repository.uuid))
        sr = self._find(repository.uuid) or self._introduce(repository)
        is_ours = self._is_ours(sr)
        pbds = self._pbds(sr)
        for host in hosts:
            pbd = next((it for it, record in pbds.items() if record["host"] == host), None)
            if pbd is not None and pbds[pbd]["currently_attached"]:
                continue
            if not is_ours:
                raise Refused("sr_not_on_host", f"storage repository {repository.uuid} is not connected with the host")
            if pbd is not None:
                # Perhaps with credentials that are no longer right.
                self._destroy_pbd(pbd)
            self._connect(sr, repository, host, undo)
        return sr

    def extend(self, sr: str, host: str, undo: Undo) -> None:
        """Connect an SR (a ref) with one more host (a ref) as it is connected with others: a guest goes there.

        The caller holds its turn; undo as of connect(). Refused with `sr_not_on_host` when nobody says how to.
        """
        pbds = self._pbds(sr).values()
        if any(record["host"] == host and record["currently_attached"] for record in pbds):
            return
        config = next((dict(record["device_config"]) for record in pbds if record["currently_attached"]), None)
        record = self._server.call("SR.get_record", sr)
        if config is None:
            raise Refused("sr_not_on_host", f"storage repository {record['uuid']} is not connected with any host")
        user, secret = config.pop("chapuser", None), config.pop(_SECRET, None)
        password = None
        if secret is not None:
            # XenServer destroys a secret with its PBD, so that each has its own.
            value = self._server.call("secret.get_value", self._server.call("secret.get_by_uuid", secret))
            password = Password(str(value))
        known = VolumeRepository(record["uuid"], record["type"], record["name_label"], config, user, password)
        self.connect(known, [host], undo)

    def _find(self, sr_uuid: str) -> str | None:
        try:
            return str(self._server.call("SR.get_by_uuid", sr_uuid))
        except ObjectGone:
            return None

    def _introduce(self, repository: VolumeRepository) -> str:
        mark = {MADE_KEY: repository.uuid}
        try:
            sr = self._server.call(
                "SR.introduce", repository.uuid, repository.name, "", repository.type, "user", True, mark
            )
        except XenServerFailure as failure:
            if failure.details[0] != "SR_UUID_EXISTS":
                raise
            # Another process was quicker.
            sr = self._server.call("SR.get_by_uuid", repository.uuid)
        return str(sr)

    def _is_ours(self, sr: str) -> bool:
        return MADE_KEY in self._server.call("SR.get_sm_config", sr)

    def _pbds(self, sr: str) -> dict[str, dict[str, Any]]:
        return {pbd: self._server.call("PBD.get_record", pbd) for pbd in self._server.call("SR.get_PBDs", sr)}

    def _connect(self, sr: str, repository: VolumeRepository, host: str, undo: Undo) -> None:
        config = dict(repository.config)
        if repository.chap_user is not None and repository.chap_password is not None:
            # Its uuid is chosen here, so that it can be removed even if the answer is lost.
            secret = str(uuid.uuid4())
            undo.add("a secret", lambda: self._destroy_secret(secret))
            self._server.call("secret.introduce", secret, repository.chap_password.value, {MADE_KEY: repository.uuid})
            config["chapuser"] = repository.chap_user
            config[_SECRET] = secret
        undo.add("a connection with storage", lambda: self._disconnect(repository.uuid, host))
        try:
            pbd = self._server.call("PBD.create", {"host": host, "SR": sr, "device_config": config, "other_config": {}})
        except XenServerFailure as failure:
            if failure.details[0] != "PBD_EXISTS":
                raise
            # PBD_EXISTS, <sr>, <host>, <pbd>: another process was quicker, and its PBD has its own secret.
            pbd = failure.details[-1]
            self._destroy_secrets([config])
        self._server.call("PBD.plug", pbd, timeout=PLUG_TIMEOUT)

    def _disconnect(self, sr_uuid: str, host: str) -> None:
        with self.turns.of(sr_uuid):
            sr = self._find(sr_uuid)
            for pbd, record in self._pbds(sr).items() if sr else ():
                if record["host"] == host and self._unplug([pbd]):
                    self._destroy_pbd(pbd)

    def _destroy_pbd(self, pbd: str) -> None:
        config = self._server.call("PBD.get_device_config", pbd)
        self._server.call("PBD.destroy", pbd)
        self._destroy_secrets([config])

    def _destroy_secrets(self, configs: Iterable[dict[str, str]]) -> None:
        for config in configs:
            if _SECRET in config:
                self._destroy_secret(config[_SECRET])

    def _destroy_secret(self, secret: str) -> None:
        try:
            self._server.call("secret.destroy", self._server.call("secret.get_by_uuid", secret))
        except ObjectGone:
            # xapi did it itself, with the PBD.
            return

    def _unplug(self, pbds: Iterable[str]) -> bool:
        """Whether all were unplugged: nothing is when a disk is attached through one of them."""
        unplugged: list[str] = []
        for pbd in pbds:
            try:
                self._server.call("PBD.unplug", pbd, timeout=PLUG_TIMEOUT)
            except XenServerFailure as failure:
                if failure.details[0] != "VDI_IN_USE":
                    raise
                for other in unplugged:
                    self._server.call("PBD.plug", other, timeout=PLUG_TIMEOUT)
                return False
            unplugged.append(pbd)
        return True

    def release(self, sr_uuid: str) -> None:
        """Forget an SR if this driver introduced it and no VM has a disk in it; the storage itself stays as it is.

        When others still use it, only the records of disks that nobody uses go. Ask again after any error.
        """
        with self.turns.of(sr_uuid):
            sr = self._find(sr_uuid)
            if sr is None:
                return
            try:
                self._release(sr)
            except ObjectGone:
                # Another process forgot it at this moment.
                if self._find(sr_uuid) is not None:
                    raise

    def _release(self, sr: str) -> None:
        disks = self.disks(sr)
        if not self._is_ours(sr) or any(record["VBDs"] for record in disks.values()):
            for vdi, record in disks.items():
                if MADE_KEY in record["other_config"] and not record["VBDs"]:
                    self._server.call("VDI.forget", vdi)
            return
        pbds = self._pbds(sr)
        if not self._unplug(pbds):
            return
        # First: should the SR stay because of an error, it is connected anew, with another secret, before its next use.
        self._destroy_secrets(record["device_config"] for record in pbds.values())
        self._server.call("SR.forget", sr)

    def disks(self, sr: str) -> dict[str, dict[str, Any]]:
        """The records of the VDIs in an SR (a ref), by reference."""
        records: dict[str, dict[str, Any]] = self._server.call("VDI.get_all_records_where", f'field "SR" = "{sr}"')
        return records
