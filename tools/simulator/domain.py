"""A domain's nodes in XenStore, laid out as xapi's toolstack does before the guest runs.

Source of paths and permissions: xapi's ocaml/xenopsd/xc/{domain,device,xenbus_utils}.ml. `ro` there is a node that
dom0 owns and the guest reads, `rw` one that the guest owns; whatever is made below a node inherits from it.
"""

from __future__ import annotations

import re
import time
import uuid as uuids
from dataclasses import dataclass, field

from agent_protocol.xenstore import Client, StoreError

GUEST_DIRECTORIES = (
    "device",
    "device/vbd",
    "device/vif",
    "device/9pfs",
    "feature",
    "error",
    "drivers",
    "control",
    "attr",
    "xenserver/attr",
    "data",
    "messages",
    "vm-data",
    "hvmloader",
    "rrd",
)
"""What the guest itself may write."""

PUBLISHED = ("vm-data/", "FIST/")
"""The keys of VM.xenstore_data that reach the guest begin so; others are ignored silently."""

CONNECTED = "4"
"""XenbusStateConnected (xen/include/public/io/xenbus.h): a device that works."""

FIRST_DISK = 51712
"""The number of xvda (202 << 8); every further disk has 16 minor numbers of its own."""


@dataclass(frozen=True)
class Interface:
    """A network interface of a domain. `device` is its decimal number."""

    device: str
    mac: str
    mtu: str
    bridge: str

    def nodes(self, domid: int) -> tuple[str, dict[str, str], str, dict[str, str]]:
        """Frontend path and nodes, backend path and nodes."""
        frontend = f"/local/domain/{domid}/device/vif/{self.device}"
        backend = f"/local/domain/0/backend/vif/{domid}/{self.device}"
        shared = {"handle": self.device, "mac": self.mac, "state": CONNECTED}
        return (
            frontend,
            {**shared, "backend": backend, "backend-id": "0", "disconnect": "0", "mtu": self.mtu},
            backend,
            {**shared, "frontend": frontend, "frontend-id": str(domid), "online": "1", "bridge": self.bridge},
        )


@dataclass(frozen=True)
class Disk:
    """A block device of a domain. `position` is 0 for xvda."""

    position: int
    kind: str
    mode: str

    def nodes(self, domid: int) -> tuple[str, dict[str, str], str, dict[str, str]]:
        """Frontend path and nodes, backend path and nodes."""
        number = str(FIRST_DISK + 16 * self.position)
        frontend = f"/local/domain/{domid}/device/vbd/{number}"
        backend = f"/local/domain/0/backend/vbd3/{domid}/{number}"
        kind = "cdrom" if self.kind == "CD" else "disk"
        return (
            frontend,
            {
                "backend": backend,
                "backend-id": "0",
                "state": CONNECTED,
                "virtual-device": number,
                "device-type": kind,
            },
            backend,
            {
                "frontend": frontend,
                "frontend-id": str(domid),
                "online": "1",
                "removable": str(int(self.kind == "CD")),
                "state": CONNECTED,
                "dev": disk_name(self.position),
                "mode": "r" if self.mode == "RO" else "w",
            },
        )


def disk_name(position: int) -> str:
    """The guest's name of a block device: xvda for 0, xvdaa for 26."""
    letters = ""
    position += 1
    while position:
        position, letter = divmod(position - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return "xvd" + letters


_DISK_NAME = re.compile(r"(?:xvd|hd|sd)([a-z]{1,2})\Z")
_MAX_POSITION = 254


def disk_position(userdevice: str) -> int:
    """The position that VBD.userdevice means: a number from 0 to 254 or a name such as xvda, hda or sda.

    ValueError for anything else.
    """
    match = _DISK_NAME.match(userdevice)
    if match:
        position = -1
        for letter in match[1]:
            position = (position + 1) * 26 + ord(letter) - ord("a")
    elif userdevice.isascii() and userdevice.isdigit() and len(userdevice) <= 3:
        position = int(userdevice)
    else:
        raise ValueError(f"no block device {userdevice!r}")
    if position > _MAX_POSITION:
        raise ValueError(f"no block device {userdevice!r}")
    return position


@dataclass(frozen=True)
class Domain:
    """What a domain is built from. Memory is in bytes."""

    domid: int
    uuid: str
    name: str
    kind: str
    memory: dict[str, int]
    platform: dict[str, str]
    bios_strings: dict[str, str]
    xenstore_data: dict[str, str]
    has_vendor_device: bool
    interfaces: list[Interface] = field(default_factory=list)
    disks: list[Disk] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The domain's directory."""
        return f"/local/domain/{self.domid}"


class DomainTree:
    """Writes domains' nodes through dom0's connection to the store."""

    def __init__(self, store: Client) -> None:
        self._store = store

    def build(self, domain: Domain) -> None:
        """Everything a guest finds at boot. StoreError or WireError when the store refuses a key or a value."""
        path, guest = domain.path, f"n{domain.domid}"
        readable = ["n0", f"r{domain.domid}"]
        vm = f"/vm/{domain.uuid}"
        self._directory(path, readable)
        self._directory(vm, readable)
        self._write(vm, {"uuid": domain.uuid, "name": domain.name})
        self._write(f"{vm}/domains/{domain.domid}", {"": path, "create-time": str(int(time.time()))})
        self._write(
            path,
            {
                "vm": vm,
                "name": domain.name,
                "domid": str(domain.domid),
                "domain-type": domain.kind,
                "unique-domain-id": str(uuids.uuid4()),
                **{f"memory/{name}": str(size // 1024) for name, size in domain.memory.items()},
                **{f"platform/{name}": value for name, value in domain.platform.items()},
                **{f"bios-strings/{name}": value for name, value in domain.bios_strings.items()},
            },
        )
        for name in GUEST_DIRECTORIES:
            self._directory(f"{path}/{name}", [guest])
        self._write(
            f"{path}/control",
            {
                "platform-feature-multiprocessor-suspend": "1",
                "platform-feature-xs_reset_watches": "1",
                "has-vendor-device": str(int(domain.has_vendor_device)),
                # What a Linux kernel with Xen drivers announces when it has booted.
                "feature-poweroff": "1",
                "feature-reboot": "1",
                "feature-suspend": "1",
            },
        )
        self.publish(domain.domid, domain.xenstore_data)
        for interface in domain.interfaces:
            self.add_device(domain.domid, interface)
        for disk in domain.disks:
            self.add_device(domain.domid, disk)

    def build_control_domain(self, uuid: str) -> None:
        """dom0's own nodes, readable by nobody else."""
        self._directory("/local/domain/0", ["n0"])
        self._write("/local/domain/0", {"vm": f"/vm/{uuid}", "name": "Domain-0", "domid": "0", "domain-type": "pv"})
        self._directory(f"/vm/{uuid}", ["n0"])
        self._write(f"/vm/{uuid}", {"uuid": uuid, "name": "Domain-0", "domains/0": "/local/domain/0"})

    def publish(self, domid: int, xenstore_data: dict[str, str]) -> None:
        """Replace what the guest sees of VM.xenstore_data."""
        path = f"/local/domain/{domid}"
        for prefix in PUBLISHED:
            self._remove(f"{path}/{prefix[:-1]}")
            self._directory(f"{path}/{prefix[:-1]}", [f"n{domid}"])
        chosen = {key: value for key, value in xenstore_data.items() if key.startswith(PUBLISHED)}
        self._write(path, chosen)

    def add_device(self, domid: int, device: Interface | Disk) -> None:
        """Connect a device: front end owned by the guest, back end by dom0."""
        front_path, front, back_path, back = device.nodes(domid)
        self._directory(back_path, ["n0", f"r{domid}"])
        self._write(back_path, back)
        self._directory(front_path, [f"n{domid}", "r0"])
        self._write(front_path, front)

    def remove_device(self, domid: int, device: Interface | Disk) -> None:
        """Disconnect a device."""
        front_path, _, back_path, _ = device.nodes(domid)
        self._remove(front_path)
        self._remove(back_path)

    def tell(self, domid: int, nodes: dict[str, str]) -> None:
        """Write nodes below a domain's directory while it runs, such as its memory target."""
        self._write(f"/local/domain/{domid}", nodes)

    def rebridge(self, domid: int, interface: Interface) -> None:
        """Put a connected interface's back end on another bridge; the guest notices nothing."""
        _, _, back_path, back = interface.nodes(domid)
        self._write(back_path, {"bridge": back["bridge"]})

    def ask(self, domid: int, request: str) -> None:
        """Ask the guest's kernel to do something, as `poweroff` or `reboot`, and acknowledge in the kernel's place."""
        self._store.write(f"/local/domain/{domid}/control/shutdown", request.encode("ascii"))
        self._remove(f"/local/domain/{domid}/control/shutdown")

    def remove(self, domid: int, uuid: str) -> None:
        """Remove a domain's nodes, and its VM's when this was the last domain of it."""
        for path in (
            f"/local/domain/{domid}",
            f"/local/domain/0/backend/vif/{domid}",
            f"/local/domain/0/backend/vbd3/{domid}",
            f"/vm/{uuid}/domains/{domid}",
        ):
            self._remove(path)
        try:
            others = self._store.directory(f"/vm/{uuid}/domains")
        except StoreError:
            others = []
        if not others:
            self._remove(f"/vm/{uuid}")

    def _directory(self, path: str, permissions: list[str]) -> None:
        self._store.mkdir(path)
        self._store.set_permissions(path, permissions)

    def _write(self, path: str, nodes: dict[str, str]) -> None:
        for name, value in nodes.items():
            self._store.write(f"{path}/{name}" if name else path, value.encode("utf-8"))

    def _remove(self, path: str) -> None:
        try:
            self._store.remove(path)
        except StoreError as error:
            if error.code != "ENOENT":
                raise
