"""What is attached to instances: volumes and network interfaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from compute_driver.db.models import InterfaceRow, VolumeRow
from compute_driver.db.records import AttachedVolume
from compute_driver.db.repository.base import RepositoryPart
from compute_driver.db.rows import checked, find_instance_row, now, searchable
from compute_driver.network import Interface, check_together
from compute_driver.volumes import Volume


class Devices(RepositoryPart):
    """Volumes and interfaces. Passwords of volumes are not kept."""

    def save_volume(self, instance_uuid: str, volume: Volume, device: str) -> None:
        """Records that a volume is attached, in place of what was known of it. InstanceNotFound.

        device: where the guest has it, such as `xvdb`; empty while that is not known.
        """
        values = checked(VolumeRow, {"kind": volume.kind, "device": device})
        values.update(
            connection=volume.connection.to_dict(secrets=False),
            boot_index=volume.boot_index,
            read_only=volume.read_only,
        )
        moment = now()

        def replace(session: Session) -> None:
            # Locked, so that two who record the same make one row; likewise below.
            find_instance_row(session, instance_uuid, lock=True)
            row = session.scalar(_volume_rows(instance_uuid).where(VolumeRow.volume_id == volume.id))
            if row is None:
                row = VolumeRow(instance_uuid=instance_uuid, volume_id=volume.id, created_at=moment)
                session.add(row)
            for name, value in values.items():
                setattr(row, name, value)

        self._write(replace)

    def delete_volume(self, instance_uuid: str, volume_id: str) -> None:
        """Records that a volume is detached. Nothing happens when it was not attached."""
        forget = delete(VolumeRow).where(
            VolumeRow.instance_uuid == searchable(instance_uuid), VolumeRow.volume_id == searchable(volume_id)
        )

        def remove(session: Session) -> None:
            session.execute(forget)

        self._write(remove)

    def list_volumes(self, instance_uuid: str) -> list[AttachedVolume]:
        """The volumes of an instance in the order in which they were attached. Their passwords are not known."""
        query = _volume_rows(instance_uuid).order_by(VolumeRow.id)
        return self._read(lambda session: [_attached_volume(row) for row in session.scalars(query)])

    def save_interfaces(self, instance_uuid: str, interfaces: Sequence[Interface]) -> None:
        """Records all interfaces of an instance, in the order of their devices, in place of those before.

        InstanceNotFound; Refused (`bad_interface`) when they cannot be of one instance.
        """
        check_together(interfaces)

        def replace(session: Session) -> None:
            find_instance_row(session, instance_uuid, lock=True)
            before = {row.interface_id: row for row in session.scalars(_interface_rows(instance_uuid))}
            for position, interface in enumerate(interfaces):
                _put(session, before.pop(interface.id, None), instance_uuid, interface, position)
            for row in before.values():
                session.delete(row)

        self._write(replace)

    def save_interface(self, instance_uuid: str, interface: Interface) -> None:
        """Records one interface: in place of the one with its id, else behind all others. InstanceNotFound."""

        def replace(session: Session) -> None:
            find_instance_row(session, instance_uuid, lock=True)
            rows = {row.interface_id: row for row in session.scalars(_interface_rows(instance_uuid))}
            row = rows.get(interface.id)
            behind = max((other.position for other in rows.values()), default=-1) + 1
            _put(session, row, instance_uuid, interface, behind if row is None else row.position)

        self._write(replace)

    def delete_interface(self, instance_uuid: str, interface_id: str) -> None:
        """Records that an interface is gone. Nothing happens when there was none."""
        forget = delete(InterfaceRow).where(
            InterfaceRow.instance_uuid == searchable(instance_uuid),
            InterfaceRow.interface_id == searchable(interface_id),
        )

        def remove(session: Session) -> None:
            session.execute(forget)

        self._write(remove)

    def list_interfaces(self, instance_uuid: str) -> list[Interface]:
        """The interfaces of an instance, in the order of their devices."""
        query = _interface_rows(instance_uuid).order_by(InterfaceRow.position, InterfaceRow.id)
        return self._read(lambda session: [Interface.from_dict(row.description) for row in session.scalars(query)])


def _volume_rows(instance_uuid: str) -> Select[Any]:
    return select(VolumeRow).where(VolumeRow.instance_uuid == searchable(instance_uuid))


def _interface_rows(instance_uuid: str) -> Select[Any]:
    return select(InterfaceRow).where(InterfaceRow.instance_uuid == searchable(instance_uuid))


def _put(session: Session, row: InterfaceRow | None, instance_uuid: str, interface: Interface, position: int) -> None:
    if row is None:
        row = InterfaceRow(instance_uuid=instance_uuid, interface_id=interface.id, created_at=now())
        session.add(row)
    row.position, row.description = position, interface.to_dict()


def _attached_volume(row: VolumeRow) -> AttachedVolume:
    connection = dict(row.connection)
    # A user is nothing without the password, which is not kept.
    lacks_password = connection.get("chap_user") is not None
    if lacks_password:
        connection["chap_user"] = None
    told = {
        "id": row.volume_id,
        "kind": row.kind,
        "connection": connection,
        "device": row.device or None,
        "read_only": row.read_only,
        "boot_index": row.boot_index,
    }
    return AttachedVolume(Volume.from_dict(told), row.device, lacks_password)
