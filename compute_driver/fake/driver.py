"""A hypervisor that exists in memory only, for whoever tests what stands above a driver: a manager, a service, a cloud.

It passes the tests of the contract (tests/contract/driver) as the XenServer driver does, in the same steps and with the
same codes where both can do something. Its guests boot at once and do what they are told.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused, Unknown, Unsupported

from ..agents import AgentInfo, AgentMemory, AgentsInMemory
from ..driver import ComputeDriver, Instance, InstanceInfo, Progress
from ..fencing import Fence
from ..files import InjectedFile
from ..images import DiskFormat, Image, ImageService, NewImage
from ..network import Interface
from ..resources import (
    Capabilities,
    DeviceCounters,
    Diagnostics,
    InventoryItem,
    MigrationTarget,
    NodeResources,
    NodeState,
    VncConsole,
)
from ..sealing import SealedAnswer
from ..states import PowerState
from ..volumes import Volume
from . import life, migration, sealed
from .guest import Guest, PasswordHash
from .hands import Hands
from .hypervisor import Hypervisor
from .nodes import Node, check_action
from .shared import Listener, Shared
from .steering import steered

MAX_CONSOLE = 100 * 1024
"""Bytes of a console that the contract allows."""


@steered
class FakeDriver(Hands, ComputeDriver):
    """Guests in memory. Every method may be called by any thread.

    memory: where what is known of agents is kept. nodes: one that is called `fake` if none are given. fence: asked
    before each verb that changes something, and in each step of it. beside: a driver whose hypervisor this is, too,
    with its nodes and guests, as another process has it. steering: the calls that were made, and what shall go wrong
    with those to come.

        driver = FakeDriver()
        driver.steering.fail("reboot", Unknown("answer_lost", "nobody knows"), after=True)
        with driver.steering.blocked("spawn") as gate: ...
        assert driver.opens(instance, "the password") and driver.steering.verbs == ["spawn"]

    Passwords are kept as salted hashes, and are in no log. All else that a guest was told can be read by guest().
    """

    capabilities = Capabilities(
        supports_attach_interface=True,
        supports_device_tagging=False,
        supports_image_type_vhd=True,
        supports_migrate_to_same_host=True,
    )

    def __init__(
        self,
        memory: AgentMemory | None = None,
        *,
        nodes: Sequence[Node] = (),
        fence: Fence | None = None,
        beside: FakeDriver | None = None,
    ) -> None:
        shared = Shared(nodes or (Node("fake"),)) if beside is None else beside._it.shared
        super().__init__(Hypervisor(shared, AgentsInMemory() if memory is None else memory, fence))
        self._listeners: list[Listener] = []
        # For the decorator.
        self.admit, self.note = self._it.access.admit, shared.note

    # The driver itself

    def init_host(self, host: str) -> None:
        del host

    def close(self) -> None:
        with self._it.lock:
            mine, self._listeners = self._listeners, []
            for listener in mine:
                self._it.shared.listeners.remove(listener)
                listener.stop()
        self._it.access.close()

    def listen(self, changed: Callable[[str], None]) -> None:
        listener = Listener(changed, self.steering)
        with self._it.lock:
            self._listeners.append(listener)
            self._it.shared.listeners.append(listener)

    def end_sessions(self, sessions: Sequence[str]) -> None:
        with self._it.lock:
            self._it.shared.sessions.difference_update(sessions)

    def await_quiet(self, instance: Instance, *, timeout: float) -> None:
        if not self._it.shared.await_quiet(instance.uuid, timeout):
            doing = ", ".join(self._it.shared.operations(instance.uuid))
            raise Unknown("guest_busy", f"the hypervisor is still busy with the guest: {doing}")

    # Life and death

    def spawn(
        self,
        instance: Instance,
        *,
        image: Image | None = None,
        admin_password: Password | None = None,
        injected_files: Sequence[InjectedFile] = (),
        ssh_keys: Sequence[str] = (),
        interfaces: Sequence[Interface] | None = None,
        volumes: Sequence[Volume] = (),
        config_drive: Mapping[str, bytes] | None = None,
        metadata: Mapping[str, str] | None = None,
        node: str | None = None,
        power_on: bool = True,
        progress: Progress,
    ) -> None:
        told = interfaces or () if config_drive is None else ()
        setup = life.Setup(admin_password, injected_files, ssh_keys, told)
        order = life.Order(instance, image, setup, interfaces, volumes, config_drive, metadata or {}, node, power_on)
        life.spawn(self._it, order, progress)

    def destroy(self, instance: Instance, *, volumes: Sequence[Volume] = ()) -> None:
        # They go with the guest's record of them.
        del volumes
        life.destroy(self._it, instance.uuid)

    def cleanup(self, instance: Instance) -> None:
        # Nothing that was made for a guest is anywhere but in the guest.
        del instance

    def remove_abandoned(self, *, older_than: float) -> list[str]:
        # Nothing is ever half made.
        del older_than
        return []

    def rebuild(
        self,
        instance: Instance,
        *,
        image: Image | None,
        admin_password: Password | None = None,
        injected_files: Sequence[InjectedFile] = (),
        ssh_keys: Sequence[str] = (),
        interfaces: Sequence[Interface] | None = None,
        progress: Progress,
    ) -> None:
        setup = life.Setup(admin_password, injected_files, ssh_keys, interfaces or ())
        life.rebuild(self._it, instance, image, setup, progress)

    # Power

    def power_on(self, instance: Instance) -> None:
        with self._it.lock:
            self._it.find(instance).start()

    def power_off(self, instance: Instance, *, timeout: float | None = None) -> None:
        del timeout
        with self._it.lock:
            self._it.find(instance).stop()

    def reboot(self, instance: Instance, reboot_type: str) -> None:
        if reboot_type not in ("SOFT", "HARD"):
            raise Refused("bad_reboot_type", "a reboot is SOFT or HARD")
        with self._it.lock:
            self._it.find(instance).reboot(hard=reboot_type == "HARD")

    def pause(self, instance: Instance) -> None:
        self._change(instance, PowerState.RUNNING, PowerState.PAUSED)

    def unpause(self, instance: Instance) -> None:
        self._change(instance, PowerState.PAUSED, PowerState.RUNNING)

    def suspend(self, instance: Instance) -> None:
        self._change(instance, PowerState.RUNNING, PowerState.SUSPENDED)

    def resume(self, instance: Instance) -> None:
        self._change(instance, PowerState.SUSPENDED, PowerState.RUNNING)

    def _change(self, instance: Instance, before: PowerState, after: PowerState) -> None:
        with self._it.lock:
            self._it.find(instance).change(before, after)

    # Rescue

    def rescue(self, instance: Instance, *, image: Image, rescue_password: Password | None, progress: Progress) -> None:
        life.rescue(self._it, instance, image, rescue_password, progress)

    def unrescue(self, instance: Instance) -> None:
        life.unrescue(self._it, instance)

    # Images

    def snapshot(
        self, instance: Instance, *, service: ImageService, name: str, disk_format: str, progress: Progress
    ) -> Image:
        if disk_format not in ("raw", "vhd"):
            raise Refused("snapshot_format", "snapshots are raw or vhd")
        system = self.guest(instance).system
        with self._it.step(progress, "snapshot"):
            # As it is, whatever the format: nobody boots from it.
            return service.store(NewImage(name, DiskFormat(disk_format), system.size_gb), iter([system.content]))

    def manage_image_cache(self, *, unused_for: float) -> list[str]:
        # Images are read anew for each guest: there is no cache.
        del unused_for
        return []

    def quiesce(self, instance: Instance, *, timeout: float) -> None:
        guest = self._it.running(instance)
        if timeout < 1:
            raise Refused("bad_timeout", "file systems are frozen for a second at least")
        with self._it.lock:
            self._it.talk(guest)
            guest.frozen = True

    def unquiesce(self, instance: Instance) -> None:
        guest = self._it.running(instance)
        with self._it.lock:
            self._it.talk(guest)
            if not guest.frozen:
                raise Refused("not_frozen", "the guest's file systems are not frozen")
            guest.frozen = False

    # Resize and migration

    def migrate_disk_and_power_off(
        self, instance: Instance, *, node: str | None = None, timeout: float | None = None, progress: Progress
    ) -> None:
        del timeout
        migration.begin(self._it, instance, node, progress)

    def finish_migration(self, instance: Instance, *, power_on: bool = True, progress: Progress) -> None:
        migration.finish(self._it, instance, power_on=power_on, progress=progress)

    def confirm_migration(self, instance: Instance) -> None:
        migration.confirm(self._it, instance)

    def finish_revert_migration(self, instance: Instance, *, power_on: bool = True) -> None:
        migration.revert(self._it, instance, power_on=power_on)

    def check_can_live_migrate_destination(self, instance: Instance, *, node: str) -> MigrationTarget:
        return migration.check_destination(self._it, instance, node)

    def live_migration(self, instance: Instance, target: MigrationTarget, *, progress: Progress) -> None:
        migration.live_migration(self._it, instance, target, progress)

    def post_live_migration_at_destination(self, instance: Instance) -> None:
        self._it.find(instance)

    # Devices

    def attach_volume(self, instance: Instance, volume: Volume) -> str:
        return self._it.attach_volume(self._it.find(instance), volume)

    def detach_volume(self, instance: Instance, volume: Volume) -> None:
        self._it.detach_volume(self._it.find(instance), volume)

    def attach_interface(self, instance: Instance, interface: Interface) -> None:
        self._it.attach_interface(self._it.find(instance), interface)

    def detach_interface(self, instance: Instance, interface: Interface) -> None:
        self._it.detach_interface(self._it.find(instance), interface)

    # What the guest's agent does

    def _told(self, instance: Instance) -> Guest:
        guest = self._it.running(instance)
        self._it.talk(guest)
        return guest

    def set_admin_password(self, instance: Instance, new_pass: Password) -> None:
        hashed = PasswordHash.of(new_pass)
        with self._it.lock:
            self._told(instance).system.password = hashed

    def inject_file(self, instance: Instance, file: InjectedFile) -> None:
        with self._it.lock:
            self._told(instance).system.files[file.path] = file

    def add_ssh_keys(self, instance: Instance, keys: Sequence[str]) -> None:
        with self._it.lock:
            self._told(instance).system.add_ssh_keys(list(keys))

    def inject_network_info(self, instance: Instance, interfaces: Sequence[Interface]) -> None:
        with self._it.lock:
            self._told(instance).system.network = tuple(interfaces)

    def reset_network(self, instance: Instance) -> None:
        self._it.running(instance)
        raise Unsupported("network_data_needed", "the guest's agent must be told its network anew")

    def change_instance_metadata(self, instance: Instance, diff: Mapping[str, Sequence[str]]) -> None:
        guest = self._it.find(instance)
        for change in diff.values():
            if list(change) != ["-"] and (len(change) != 2 or change[0] != "+" or not isinstance(change[1], str)):
                raise Refused("bad_metadata", 'a change is ["+", value] or ["-"]')
        with self._it.lock:
            for key, change in diff.items():
                if change[0] == "-":
                    guest.metadata.pop(key, None)
                else:
                    guest.metadata[key] = change[1]

    def trust_agent(self, instance: Instance) -> AgentInfo:
        with self._it.lock:
            guest = self._it.running(instance)
            self._it.memory.forget(guest.uuid)
            self._it.talk(guest)
            return guest.agent

    def send_sealed(self, instance: Instance, request_id: str, value: str, box: str) -> SealedAnswer:
        with self._it.lock:
            guest = self._it.running(instance)
            if self._it.memory.recall(guest.uuid) is None:
                raise Refused("agent_unknown", "the guest's agent has not been met yet")
            answer = sealed.answer(guest, request_id, value, box)
            self._it.talk(guest)
            return answer

    # Questions

    def get_info(self, instance: Instance) -> InstanceInfo:
        with self._it.lock:
            guest = self._it.find(instance)
            return InstanceInfo(guest.state, guest.internal_id, guest.place)

    def list_instances(self) -> list[str]:
        return sorted(f"instance-{guest.uuid}" for guest in self._it.guests())

    def list_instance_uuids(self) -> list[str]:
        return sorted(guest.uuid for guest in self._it.guests())

    def get_console_output(self, instance: Instance) -> bytes:
        return self._it.running(instance).console[-MAX_CONSOLE:]

    def get_vnc_console(self, instance: Instance) -> VncConsole:
        path = f"/console?uuid={self._it.running(instance).internal_id}"
        return VncConsole("127.0.0.1", 5900, path, tls=False, token=secrets.token_hex())

    def get_diagnostics(self, instance: Instance) -> Diagnostics:
        guest = self.guest(instance)
        is_up = guest.state in (PowerState.RUNNING, PowerState.PAUSED)
        own = [] if guest.system.is_volume else ["xvda"]
        return Diagnostics(
            state=guest.state.word,
            cpu_usage=(0.0,) * guest.vcpus if is_up else (),
            memory_maximum=guest.memory_mb,
            disks=tuple(DeviceCounters(name) for name in [*own, *(device for _, device in guest.volumes.values())]),
            nics=tuple(DeviceCounters(str(number)) for number in range(len(guest.interfaces))),
            uptime=0.0 if is_up else None,
        )

    # Nodes

    def get_available_nodes(self) -> list[str]:
        return sorted(node.name for node in self._it.nodes)

    def check_node(self, node: str) -> NodeState:
        return self._it.node(node).state()

    def get_available_resource(self, node: str) -> NodeResources:
        return self._it.node(node).resources(self._it.guests(node))

    def get_inventory(self, node: str) -> dict[str, InventoryItem]:
        return self._it.node(node).inventory()

    def get_host_uptime(self, node: str) -> float:
        return self._it.node(node).uptime()

    def set_host_enabled(self, node: str, enabled: bool) -> None:
        self._it.node(node).enabled = enabled

    def host_maintenance_mode(self, node: str, enabled: bool) -> None:
        if enabled:
            migration.enter_maintenance(self._it, node)
        else:
            self._it.node(node).enabled = True

    def host_power_action(self, node: str, action: str) -> None:
        check_action(action)
        with self._it.lock:
            states = {guest.state for guest in self._it.guests(node)}
            is_empty = states.isdisjoint({PowerState.RUNNING, PowerState.PAUSED})
            self._it.node(node).act(action, is_empty=is_empty)
