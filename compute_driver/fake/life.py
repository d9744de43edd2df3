"""Fake guests' life: made, rebuilt and rescued, in the steps that the contract's progress is told of."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused, Unsuccessful

from ..driver import Instance, Progress
from ..errors import ImageTooLarge
from ..fencing import LeaseLost
from ..files import InjectedFile
from ..images import Image
from ..network import Interface, NetworkName
from ..volumes import Volume
from .guest import Guest, PasswordHash, System
from .hypervisor import Hypervisor

_GIB = 1024**3
_NO = frozenset({"no", "false", "0", "off"})
_CONFIG_DRIVE = "openstack/latest/"


@dataclass(frozen=True)
class Setup:
    """What a guest is told through its agent. The members are those of ComputeDriver.spawn."""

    admin_password: Password | None = None
    injected_files: Sequence[InjectedFile] = ()
    ssh_keys: Sequence[str] = ()
    interfaces: Sequence[Interface] = ()

    def check(self, image: Image | None, *, power_on: bool = True) -> None:
        """Refused when nobody will be there to be told."""
        if self.admin_password is None and not self.injected_files and not self.ssh_keys:
            return
        if not power_on:
            raise Refused("agent_not_running", "password, keys and files need the guest's agent, which is not to run")
        if not has_agent(image):
            raise Refused("agent_not_in_image", "password, keys and files need an agent; the image says it has none")

    def carry_out(self, it: Hypervisor, guest: Guest, progress: Progress) -> None:
        """Tell everything to a guest that was just started."""
        with it.step(progress, "wait_for_agent"):
            it.talk(guest)
        system = guest.system
        if any(_is_static(interface) for interface in self.interfaces):
            with it.step(progress, "apply_network"):
                system.network = tuple(self.interfaces)
        if self.admin_password is not None:
            with it.step(progress, "set_admin_password"):
                system.password = PasswordHash.of(self.admin_password)
        if self.ssh_keys:
            with it.step(progress, "add_ssh_keys"):
                system.add_ssh_keys(list(self.ssh_keys))
        for file in self.injected_files:
            with it.step(progress, "inject_file"):
                system.files[file.path] = file


@dataclass(frozen=True)
class Order:
    """The guest that is to be made. The members are those of ComputeDriver.spawn."""

    instance: Instance
    image: Image | None
    setup: Setup
    interfaces: Sequence[Interface] | None
    volumes: Sequence[Volume]
    config_drive: Mapping[str, bytes] | None = field(repr=False)
    metadata: Mapping[str, str]
    node: str | None
    power_on: bool

    @property
    def boots_from_volume(self) -> bool:
        """Whether a volume takes the root disk's place."""
        return self.image is None and any(volume.is_bootable for volume in self.volumes)


def has_agent(image: Image | None) -> bool:
    """Always, unless the image's img_use_agent says no."""
    return image is None or image.properties.get("img_use_agent", "yes").lower() not in _NO


def _is_static(interface: Interface) -> bool:
    return bool(interface.addresses or interface.routes or interface.gateways or interface.dns or interface.search)


def spawn(it: Hypervisor, order: Order, progress: Progress) -> None:
    """Make a guest, or leave nothing."""
    order.setup.check(order.image, power_on=order.power_on)
    for path in order.config_drive or ():
        name = path.removeprefix(_CONFIG_DRIVE)
        if name == path or not name or "/" in name:
            raise Refused("bad_config_drive", f"the files of a config drive are in {_CONFIG_DRIVE}")
    if order.node is not None:
        it.node(order.node)
    if it.has(order.instance):
        raise Refused("guest_exists", f"there is a guest of instance {order.instance.uuid} already")
    node = it.choose() if order.node is None else it.taking(order.node)
    guest = Guest.of(order.instance, node.name, System(None, 0))
    guest.metadata.update(order.metadata)
    try:
        with it.step(progress, "create_vm"):
            it.add(guest)
        _assemble(it, order, guest, progress)
        if order.power_on:
            with it.step(progress, "boot"), it.lock:
                guest.start()
            if has_agent(order.image):
                order.setup.carry_out(it, guest, progress)
    except BaseException:
        _undo(it, guest, progress)
        raise


def _assemble(it: Hypervisor, order: Order, guest: Guest, progress: Progress) -> None:
    if order.boots_from_volume:
        guest.system = System(None, 0, is_volume=True)
    else:
        with it.step(progress, "create_root_disk"):
            guest.system = _system(order.instance, order.image)
    with it.step(progress, "attach_interfaces"):
        for interface in (_first_interface(),) if order.interfaces is None else order.interfaces:
            it.attach_interface(guest, interface)
    for volume in sorted(order.volumes, key=lambda each: not each.is_bootable):
        with it.step(progress, "attach_volume"):
            it.attach_volume(guest, volume)
    if order.config_drive is not None:
        with it.step(progress, "config_drive"):
            guest.config_drive = dict(order.config_drive)


def _system(instance: Instance, image: Image | None) -> System:
    if image is None:
        return System(None, instance.root_gb)
    if image.min_disk_gb > instance.root_gb:
        raise ImageTooLarge(image.name, image.min_disk_gb * _GIB, instance.root_gb * _GIB)
    return System(image.id, instance.root_gb, has_agent(image))


def _first_interface() -> Interface:
    number = uuids.uuid4().hex
    mac = ":".join(["02", *(number[at : at + 2] for at in range(0, 10, 2))])
    return Interface(f"port-{number}", mac, NetworkName("name_label", "the first network"), dhcp4=True)


def _undo(it: Hypervisor, guest: Guest, progress: Progress) -> None:
    with it.lock:
        if guest not in it.guests():
            return
    with suppress(Unsuccessful), it.step(progress, "undo"):
        destroy(it, guest.uuid)
        return
    with suppress(LeaseLost):
        it.access.admit()
        destroy(it, guest.uuid)


def destroy(it: Hypervisor, uuid: str) -> None:
    """Have no such guest any more, and know nothing of its agent."""
    it.remove(uuid)
    it.memory.forget(uuid)


def rebuild(it: Hypervisor, instance: Instance, image: Image | None, setup: Setup, progress: Progress) -> None:
    """Give the guest a new system. It keeps its old one until then."""
    setup.check(image)
    guest = it.find(instance)
    guest.refuse_rescued()
    with it.step(progress, "power_off"), it.lock:
        guest.stop()
    with it.step(progress, "replace_root_disk"), it.lock:
        if guest.system.is_volume:
            raise Refused("root_disk_is_volume", "the guest boots from a volume, which is not replaced")
        guest.system = _system(instance, image)
    with it.step(progress, "remove_old_disk"):
        # Nobody has it any more.
        pass
    it.memory.forget(guest.uuid)
    with it.step(progress, "boot"), it.lock:
        guest.start()
    if has_agent(image):
        setup.carry_out(it, guest, progress)


def rescue(it: Hypervisor, instance: Instance, image: Image, password: Password | None, progress: Progress) -> None:
    """Boot another system. After an error the guest has its own again, powered off."""
    Setup(admin_password=password).check(image)
    guest = it.find(instance)
    guest.refuse_rescued()
    try:
        with it.step(progress, "power_off"), it.lock:
            guest.stop()
        with it.step(progress, "create_rescue_disk"), it.lock:
            system = _system(instance, image)
            guest.known_agent = it.memory.recall(guest.uuid)
            guest.rescued, guest.system = guest.system, system
        it.memory.forget(guest.uuid)
        with it.step(progress, "boot"), it.lock:
            guest.start()
        if has_agent(image):
            with it.step(progress, "wait_for_agent"):
                it.talk(guest)
            if password is not None:
                with it.step(progress, "set_rescue_password"):
                    guest.system.password = PasswordHash.of(password)
    except BaseException:
        with suppress(Unsuccessful), it.step(progress, "undo"):
            _restore(it, guest)
        with suppress(LeaseLost):
            it.access.admit()
            _restore(it, guest)
        raise


def unrescue(it: Hypervisor, instance: Instance) -> None:
    """Boot the guest's own system; nothing happens when it is not rescued."""
    guest = it.find(instance)
    with it.lock:
        if guest.rescued is not None:
            _restore(it, guest)
            guest.start()


def _restore(it: Hypervisor, guest: Guest) -> None:
    with it.lock:
        if guest.rescued is None:
            return
        guest.stop()
        guest.system, guest.rescued = guest.rescued, None
        if guest.known_agent is None:
            it.memory.forget(guest.uuid)
        else:
            it.memory.remember(guest.uuid, guest.known_agent)
        guest.known_agent = None
