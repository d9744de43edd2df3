"""Random orders: what fits the instance's state, most of the time."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agent_protocol.messages import Password
from compute_driver.agents import AgentInfo
from compute_driver.context import RequestContext
from compute_driver.db.records import Instance
from compute_driver.files import InjectedFile
from compute_driver.sealing import SealedRequest
from compute_driver.states import PowerState, VmState

from . import effects
from .effects import Effect
from .seen import Guest
from .world import World

SMALL = (64, 1, 1)
LARGE = (96, 2, 2)
"""MiB, processors, GiB: between these, instances are resized."""

_USER = "crash-test"
_VALIDITY = 60.0


class Wanted(NamedTuple):
    """What a kind of order sends: the method of the bus, its arguments but for the target, and what it is to do."""

    method: str
    arguments: dict[str, Any]
    effect: Effect


@dataclass
class Order:
    """One order, and what is known of it. answers: outcome and code, each time that the service gave one."""

    kind: str
    action: str
    instance: str
    wanted: Wanted
    context: RequestContext
    before: Guest | None
    row: Instance | None
    number: int = 0
    waits: bool = True
    answers: list[tuple[str, str]] = field(default_factory=list)
    sent: float = 0.0
    attempts: int = 0

    @property
    def order_id(self) -> str:
        assert self.context.order_id is not None
        return self.context.order_id

    @property
    def arguments(self) -> dict[str, Any]:
        """As the bus wants them."""
        own = {"instance_uuid": self.instance} if self.kind == "create" else {"target": self.instance}
        return {**own, **self.wanted.arguments}

    def __str__(self) -> str:
        return f"{self.kind} of {self.instance} ({self.context.request_id}, order {self.order_id})"


class At(NamedTuple):
    """What an order is made for."""

    world: World
    row: Instance
    guest: Guest

    @property
    def text(self) -> str:
        """Something that nobody wrote before."""
        return f"{self.world.chance.getrandbits(64):016x}"


Maker = Callable[[At], "Wanted | None"]
"""Gives None when the instance cannot have this."""


class Kind(NamedTuple):
    """A kind of order. action: in the audit trail. states: in which it is allowed. once: calls, of which one at most
    may succeed on the guest. command: that its agent carries out once at most. weight: against the others."""

    action: str
    states: frozenset[VmState]
    make: Maker
    once: tuple[str, ...] = ()
    command: str = ""
    weight: int = 10


def _simple(method: str, effect: Effect, **arguments: Any) -> Maker:
    return lambda at: Wanted(method, dict(arguments), effect)


def _password(at: At) -> Wanted:
    password = f"Pass-{at.text}"
    return Wanted("set_admin_password", {"new_pass": password}, effects.PasswordSet(password))


def _sealed_password(at: At) -> Wanted | None:
    told = at.world.repository.get_agent(at.row.uuid)
    if told is None:
        return None
    agent = AgentInfo.from_dict(told.to_dict())
    if agent.identity is None or agent.key is None:
        return None
    password = f"Pass-{at.text}"
    value = f'{{"value": "{Password(password).value}"}}'
    request = SealedRequest.seal(agent, agent.guest, "password", value, timeout=_VALIDITY)
    sealed = {"request_id": request.request_id, "value": request.value, "box": request.box}
    return Wanted("send_sealed", {"action": "set_admin_password", **sealed}, effects.PasswordSet(password))


def _file(at: At) -> Wanted:
    large = at.world.chance.random() < 0.3
    content = (at.text * (4096 if large else 4)).encode()
    file = InjectedFile(f"/root/file-{at.world.chance.randrange(3)}", content, 0o600)
    return Wanted("inject_file", {"file": file.to_dict()}, effects.FileThere(file.path, content))


def _keys(at: At) -> Wanted:
    # An Ed25519 key in the form of OpenSSH (RFC 8709, section 4): two strings, each with its length before it.
    body = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + at.world.chance.getrandbits(256).to_bytes(32, "big")
    key = f"ssh-ed25519 {base64.b64encode(body).decode()} crash-test"
    return Wanted("add_ssh_keys", {"keys": [key]}, effects.KeyThere(key))


def _snapshot(at: At) -> Wanted:
    name = f"snapshot-{at.text}"
    return Wanted("snapshot_instance", {"name": name}, effects.ImageThere(at.world.images, name))


def _rebuild(at: At) -> Wanted:
    return Wanted("rebuild_instance", {"image_ref": at.row.image_ref or "agentless"}, effects.NewRoot())


def _resize(at: At) -> Wanted | None:
    sizes = {SMALL: LARGE}.get((at.row.memory_mb, at.row.vcpus, at.row.root_gb))
    if sizes is None:
        # Disks cannot shrink.
        sizes = (SMALL[0] if at.row.memory_mb != SMALL[0] else LARGE[0], SMALL[1], at.row.root_gb)
    named = dict(zip(("memory_mb", "vcpus", "root_gb"), sizes))
    return Wanted("resize_instance", named, effects.Sized(sizes, True))


def _confirm(at: At) -> Wanted:
    return Wanted("confirm_resize", {}, effects.Sized((at.row.memory_mb, at.row.vcpus, at.row.root_gb), False))


def _revert(at: At) -> Wanted | None:
    migration = at.world.repository.open_migration(at.row.uuid)
    if migration is None:
        return None
    old = (migration.old_memory_mb, migration.old_vcpus, migration.old_root_gb)
    return Wanted("revert_resize", {}, effects.Sized(old, False))


def _other_node(at: At) -> str:
    names = [it.name for it in at.world.simulator.hosts]
    return next(it for it in names if it != at.guest.node)


def _migrate(at: At) -> Wanted:
    node = _other_node(at)
    return Wanted("migrate_instance", {"node": node}, effects.OnNode(node))


def _live(at: At) -> Wanted:
    node = _other_node(at)
    return Wanted("live_migrate_instance", {"node": node}, effects.OnNode(node))


def _attach_volume(at: At) -> Wanted | None:
    if len(at.guest.volumes) > 2:
        return None
    vdi = at.world.new_volume()
    volume = {"id": f"volume-{at.text}", "kind": "vdi", "connection": {"uuid": vdi}}
    return Wanted("attach_volume", {"volume": volume}, effects.VolumeThere(vdi, True))


def _detach_volume(at: At) -> Wanted | None:
    known = at.world.repository.list_volumes(at.row.uuid)
    if not known:
        return None
    volume = at.world.chance.choice(sorted(known, key=lambda it: it.volume.id)).volume
    vdi = volume.connection.to_dict(secrets=False)["uuid"]
    return Wanted("detach_volume", {"volume_id": volume.id}, effects.VolumeThere(vdi, False))


def _attach_interface(at: At) -> Wanted | None:
    if len(at.guest.macs) > 3:
        return None
    tail = at.world.chance.getrandbits(24).to_bytes(3, "big")
    mac = "00:16:3e:" + ":".join(f"{it:02x}" for it in tail)
    interface = {"id": f"port-{at.text}", "mac": mac, "network": {"bridge": "xenbr0"}}
    return Wanted("attach_interface", {"interface": interface}, effects.InterfaceThere(mac, True))


def _detach_interface(at: At) -> Wanted | None:
    known = at.world.repository.list_interfaces(at.row.uuid)
    if not known:
        return None
    it = at.world.chance.choice(sorted(known, key=lambda each: each.id))
    return Wanted("detach_interface", {"interface_id": it.id}, effects.InterfaceThere(it.mac, False))


def _metadata(at: At) -> Wanted:
    key, value = f"key-{at.world.chance.randrange(4)}", at.text
    return Wanted("change_instance_metadata", {"diff": {key: ["+", value]}}, effects.MetadataThere(key, value))


_ACTIVE = frozenset({VmState.ACTIVE})
_AT_REST = _ACTIVE | {VmState.STOPPED}
_WHOLE = _AT_REST | {VmState.PAUSED, VmState.SUSPENDED}
_RESIZED, _RESCUED = frozenset({VmState.RESIZED}), frozenset({VmState.RESCUED})
_REBOOTS = ("VM.clean_reboot", "VM.hard_reboot", "VM.start")

KINDS: Mapping[str, Kind] = {
    "delete": Kind(
        "delete",
        _WHOLE | _RESIZED | _RESCUED | {VmState.ERROR},
        _simple("terminate_instance", effects.Gone()),
        once=("VM.destroy",),
        weight=5,
    ),
    "start": Kind(
        "start",
        frozenset({VmState.STOPPED}),
        _simple("start_instance", effects.Power(PowerState.RUNNING)),
        once=("VM.start",),
        weight=30,
    ),
    "stop": Kind(
        "stop",
        _ACTIVE,
        _simple("stop_instance", effects.Power(PowerState.SHUTDOWN), timeout=10.0),
        once=("VM.clean_shutdown", "VM.hard_shutdown"),
    ),
    "reboot soft": Kind(
        "reboot",
        _ACTIVE,
        _simple("reboot_instance", effects.Rebooted(), reboot_type="SOFT"),
        once=_REBOOTS,
    ),
    "reboot hard": Kind(
        "reboot",
        _ACTIVE | {VmState.PAUSED},
        _simple("reboot_instance", effects.Rebooted(), reboot_type="HARD"),
        once=_REBOOTS,
    ),
    "pause": Kind("pause", _ACTIVE, _simple("pause_instance", effects.Power(PowerState.PAUSED)), once=("VM.pause",)),
    "unpause": Kind(
        "unpause",
        frozenset({VmState.PAUSED}),
        _simple("unpause_instance", effects.Power(PowerState.RUNNING)),
        once=("VM.unpause",),
        weight=30,
    ),
    "suspend": Kind(
        "suspend", _ACTIVE, _simple("suspend_instance", effects.Power(PowerState.SUSPENDED)), once=("VM.suspend",)
    ),
    "resume": Kind(
        "resume",
        frozenset({VmState.SUSPENDED}),
        _simple("resume_instance", effects.Power(PowerState.RUNNING)),
        once=("VM.resume",),
        weight=30,
    ),
    "password": Kind("set_admin_password", _ACTIVE, _password, command="password", weight=20),
    "sealed password": Kind("set_admin_password", _ACTIVE, _sealed_password, command="password", weight=20),
    "file": Kind("inject_file", _ACTIVE, _file, command="file_put", weight=15),
    "ssh keys": Kind("add_ssh_keys", _ACTIVE, _keys, command="ssh_keys"),
    "snapshot": Kind("snapshot", _WHOLE, _snapshot, weight=15),
    "rebuild": Kind("rebuild", _AT_REST | {VmState.ERROR}, _rebuild, once=("VM.start",)),
    "rescue": Kind(
        "rescue", _AT_REST, _simple("rescue_instance", effects.Rescued(True), image_ref="agentless"), weight=15
    ),
    "unrescue": Kind("unrescue", _RESCUED, _simple("unrescue_instance", effects.Rescued(False)), weight=40),
    "resize": Kind("resize", _AT_REST, _resize, weight=20),
    "migrate": Kind("migrate", _AT_REST, _migrate),
    "confirm": Kind("confirm_resize", _RESIZED, _confirm, weight=20),
    "revert": Kind("revert_resize", _RESIZED, _revert, weight=20),
    "live migration": Kind("live_migration", _ACTIVE, _live, once=("VM.pool_migrate",), weight=15),
    "attach volume": Kind("attach_volume", _AT_REST, _attach_volume, once=("VBD.create",), weight=15),
    "detach volume": Kind("detach_volume", _AT_REST, _detach_volume, weight=15),
    "attach interface": Kind("attach_interface", _AT_REST, _attach_interface, once=("VIF.create",), weight=15),
    "detach interface": Kind("detach_interface", _AT_REST, _detach_interface, weight=15),
    # Set again, to what it was, where the change was interrupted.
    "metadata": Kind("change_instance_metadata", _WHOLE, _metadata),
}
"""All but creations."""

_ODD = 0.06
"""Share of the orders that need not fit the instance's state."""


def any_order(world: World, row: Instance, guest: Guest | None, allowed: frozenset[str] = frozenset(KINDS)) -> Order:
    """An order for an instance. guest: what it has now. allowed: the kinds to choose from, if these fit."""
    state = VmState(row.vm_state)
    while True:
        odd = world.chance.random() < _ODD
        fitting = [name for name, kind in KINDS.items() if odd or state in kind.states]
        chosen = [name for name in fitting if name in allowed] or fitting
        name = world.chance.choices(chosen, [KINDS[it].weight for it in chosen])[0]
        if guest is None:
            gone = Wanted("terminate_instance", {}, effects.Gone())
            return Order("delete", "delete", row.uuid, gone, _context(world), None, row)
        order = order_for(name, At(world, row, guest))
        if order is not None:
            return order


def order_for(name: str, at: At) -> Order | None:
    """An order of that kind; None when the instance cannot have it."""
    wanted = KINDS[name].make(at)
    if wanted is None:
        return None
    return Order(name, KINDS[name].action, at.row.uuid, wanted, _context(at.world), at.guest, at.row)


def creation(world: World, *, agents: float = 0.5, images: float = 0.9, powered: float = 0.8) -> Order:
    """An order for a new instance. agents: share of those whose agent is used; images: of those from an image; powered:
    of those that are started.
    """
    identity = str(uuid.UUID(int=world.chance.getrandbits(128), version=4))
    has_agent = world.chance.random() < agents
    image = "with-agent" if has_agent else "agentless" if world.chance.random() < images else ""
    power_on = has_agent or world.chance.random() < powered
    sizes = dict(zip(("memory_mb", "vcpus", "root_gb"), SMALL))
    arguments: dict[str, Any] = {
        "display_name": f"web-{identity[:8]}",
        "image_ref": image,
        "power_on": power_on,
        "node": world.chance.choice([None, *(it.name for it in world.simulator.hosts)]),
        **sizes,
    }
    password = f"Pass-{world.chance.getrandbits(64):016x}" if has_agent else ""
    if password:
        arguments["admin_password"] = password
    effect = effects.Exists(SMALL, PowerState.RUNNING if power_on else PowerState.SHUTDOWN, password)
    wanted = Wanted("build_and_run_instance", arguments, effect)
    return Order("create", "create", identity, wanted, _context(world), None, None)


def _context(world: World) -> RequestContext:
    # Not RequestContext.new(): the same seed gives the same orders.
    order_id, request_id = (uuid.UUID(int=world.chance.getrandbits(128), version=4) for _ in range(2))
    return RequestContext(f"req-{request_id}", _USER, str(order_id))
