"""Volumes and network interfaces come and go."""

from __future__ import annotations

from agent_protocol.outcomes import Outcome, Refused, Unsuccessful

from ..context import RequestContext
from ..db.records import Instance
from ..network import Interface, check_together
from ..volumes import Volume
from . import operations
from .turns import Operations


class DeviceOperations(Operations):
    """What is attached is recorded before it is attached, so that a crash leaves nothing that nobody knows of."""

    def attach_volume(self, context: RequestContext, target: str, volume: Volume) -> str:
        """Attach a volume (action `attach_volume`); gives its device."""
        with self._turn(context, target, operations.ATTACH_VOLUME) as turn:
            known = self._volume(turn.instance, volume.id)
            if known is None:
                self._note(turn, volume.id)
                self._keep(self._repository.save_volume, turn.instance.uuid, volume, volume.device or "")
            try:
                device = self._driver.attach_volume(turn.instance, volume)
            except Unsuccessful as error:
                # As long as nobody knows whether it is attached, it is one of the instance's.
                if known is None and error.outcome is not Outcome.UNKNOWN:
                    self._keep(self._repository.delete_volume, turn.instance.uuid, volume.id)
                raise
            self._keep(self._repository.save_volume, turn.instance.uuid, volume, device)
        return device

    def detach_volume(self, context: RequestContext, target: str, volume_id: str) -> None:
        """Take a volume away (action `detach_volume`)."""
        with self._turn(context, target, operations.DETACH_VOLUME) as turn:
            volume = self._volume(turn.instance, volume_id)
            if volume is None:
                raise Refused("volume_not_attached", f"the instance has no volume {volume_id!r}")
            self._note(turn, volume.id)
            self._driver.detach_volume(turn.instance, volume)
            self._keep(self._repository.delete_volume, turn.instance.uuid, volume_id)

    def attach_interface(self, context: RequestContext, target: str, interface: Interface) -> None:
        """Add a network interface (action `attach_interface`)."""
        with self._turn(context, target, operations.ATTACH_INTERFACE) as turn:
            before = self._repository.list_interfaces(turn.instance.uuid)
            check_together([*(it for it in before if it.id != interface.id), interface])
            is_new = all(it.id != interface.id for it in before)
            if is_new:
                self._note(turn, interface.id)
                self._keep(self._repository.save_interface, turn.instance.uuid, interface)
            try:
                self._driver.attach_interface(turn.instance, interface)
            except Unsuccessful as error:
                if is_new and error.outcome is not Outcome.UNKNOWN:
                    self._keep(self._repository.delete_interface, turn.instance.uuid, interface.id)
                raise
            self._keep(self._repository.save_interface, turn.instance.uuid, interface)

    def detach_interface(self, context: RequestContext, target: str, interface_id: str) -> None:
        """Take a network interface away (action `detach_interface`)."""
        with self._turn(context, target, operations.DETACH_INTERFACE) as turn:
            known = self._repository.list_interfaces(turn.instance.uuid)
            interface = next((it for it in known if it.id == interface_id), None)
            if interface is None:
                raise Refused("interface_not_attached", f"the instance has no interface {interface_id!r}")
            self._note(turn, interface.id)
            self._driver.detach_interface(turn.instance, interface)
            self._keep(self._repository.delete_interface, turn.instance.uuid, interface_id)

    def _volume(self, instance: Instance, volume_id: str) -> Volume | None:
        attached = self._repository.list_volumes(instance.uuid)
        return next((it.volume for it in attached if it.volume.id == volume_id), None)
