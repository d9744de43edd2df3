"""The driver for XenServer and XCP-ng. Each verb is handed on to the module that knows it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused

from ..agents import AgentInfo, AgentMemory
from ..driver import ComputeDriver, Instance, InstanceInfo, Progress
from ..fencing import Fence
from ..files import InjectedFile
from ..images import DiskFormat, Image, ImageService
from ..network import Interface
from ..resources import Diagnostics, InventoryItem, MigrationTarget, NodeResources, NodeState, VncConsole
from ..sealing import SealedAnswer
from ..volumes import Volume
from .agents.agent import GuestAgents
from .agents.plugin import Plugin
from .agents.plugin_versions import PluginVersions
from .agents.setup import Setup
from .connection.predecessors import Predecessors
from .connection.session import Connection, XenServer
from .guests import diagnostics, metadata, power, quiet, rebuild, removal, rescue, spawn, vms
from .guests.console import Screens, output
from .guests.listening import Listener
from .hosts import maintenance, nodes
from .hosts import resources as hosts
from .moving import live as migration
from .moving import resize
from .network.interfaces import Interfaces
from .network.networks import Networks
from .parts import Parts
from .storage import orphans, repositories
from .storage.image_cache import STALE_AFTER, ImageCache
from .storage.snapshots import Snapshots
from .storage.transfers import STALL_TIMEOUT, Transfers
from .storage.volumes import Volumes

LOG = logging.getLogger(__name__)


class XenServerDriver(ComputeDriver):
    """Guests of one XenServer pool.

    memory: where what is known of agents is kept. agent_policy: one of agent.POLICIES. agent_timeout: seconds that an
    agent has to answer an order; boot_timeout: from a guest's start to its agent's first answer. repository: uuid or
    name of the storage repository for guests' disks; None for the pool's default one. allow_unlocked: as of Interfaces.
    stall_timeout: as of Transfers; import_stale_after: of ImageCache. fence: as of XenServer.
    """

    def __init__(
        self,
        connection: Connection,
        memory: AgentMemory,
        *,
        agent_policy: str = "prefer-sealed",
        agent_timeout: float = 30.0,
        boot_timeout: float = 300.0,
        repository: str | None = None,
        allow_unlocked: bool = False,
        stall_timeout: float = STALL_TIMEOUT,
        import_stale_after: float = STALE_AFTER,
        fence: Fence | None = None,
    ) -> None:
        self._server = XenServer(connection, fence)
        self._predecessors = Predecessors(self._server)
        self._versions = PluginVersions(self._server)
        self._plugin = Plugin(self._server, self._versions)
        self._agents = GuestAgents(
            self._server,
            memory,
            policy=agent_policy,
            timeout=agent_timeout,
            boot_timeout=boot_timeout,
            plugin=self._plugin,
        )
        self._screens = Screens(self._server)
        transfers, networks = Transfers(self._server, stall_timeout=stall_timeout), Networks(self._server)
        self._parts = Parts(
            server=self._server,
            agents=self._agents,
            transfers=transfers,
            images=ImageCache(self._server, transfers, stale_after=import_stale_after),
            networks=networks,
            interfaces=Interfaces(self._server, networks, allow_unlocked=allow_unlocked),
            volumes=Volumes(self._server),
            repository=repository,
        )

    def init_host(self, host: str) -> None:
        self._server.call("pool.get_all")
        LOG.info("host %s: XenServer at %s answers", host, self._server.connection.address)
        self._versions.greet()

    def close(self) -> None:
        self._screens.close()
        self._server.close()

    def listen(self, changed: Callable[[str], None]) -> None:
        Listener(self._server.events, changed)

    def end_sessions(self, sessions: Sequence[str]) -> None:
        self._predecessors.end(sessions)

    def await_quiet(self, instance: Instance, *, timeout: float) -> None:
        quiet.await_quiet(self._server, self._predecessors, instance, timeout)

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
        # What a config drive says about the network need not be said twice.
        told = interfaces or () if config_drive is None else ()
        setup = Setup(admin_password, injected_files, ssh_keys, told)
        order = spawn.Order(instance, image, setup, interfaces, volumes, config_drive, metadata or {}, node, power_on)
        spawn.spawn(self._parts, order, progress)

    def destroy(self, instance: Instance, *, volumes: Sequence[Volume] = ()) -> None:
        removal.destroy(self._parts, instance, volumes)

    def cleanup(self, instance: Instance) -> None:
        removal.cleanup(self._parts, instance)

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
        setup = Setup(admin_password, injected_files, ssh_keys, interfaces or ())
        rebuild.rebuild(self._parts, instance, image, setup, progress)

    # Power

    def power_on(self, instance: Instance) -> None:
        power.start(self._server, vms.find(self._server, instance))

    def power_off(self, instance: Instance, *, timeout: float | None = None) -> None:
        power.shut_down(self._server, vms.find(self._server, instance), timeout=timeout)

    def reboot(self, instance: Instance, reboot_type: str) -> None:
        if reboot_type not in ("SOFT", "HARD"):
            raise Refused("bad_reboot_type", "a reboot is SOFT or HARD")
        power.reboot(self._server, vms.find(self._server, instance), hard=reboot_type == "HARD")

    def pause(self, instance: Instance) -> None:
        power.pause(self._server, vms.find(self._server, instance))

    def unpause(self, instance: Instance) -> None:
        power.unpause(self._server, vms.find(self._server, instance))

    def suspend(self, instance: Instance) -> None:
        power.suspend(self._server, vms.find(self._server, instance))

    def resume(self, instance: Instance) -> None:
        power.resume(self._server, vms.find(self._server, instance))

    # Rescue

    def rescue(self, instance: Instance, *, image: Image, rescue_password: Password | None, progress: Progress) -> None:
        rescue.rescue(self._parts, instance, image, rescue_password, progress)

    def unrescue(self, instance: Instance) -> None:
        rescue.unrescue(self._parts, instance)

    # Images

    def snapshot(
        self, instance: Instance, *, service: ImageService, name: str, disk_format: str, progress: Progress
    ) -> Image:
        try:
            kept = DiskFormat(disk_format)
        except ValueError:
            raise Refused("snapshot_format", "snapshots are raw or vhd") from None
        snapshots = Snapshots(self._server, self._parts.transfers, service)
        with progress.step("snapshot"):
            return snapshots.take(instance, vms.find(self._server, instance).ref, name, disk_format=kept)

    def manage_image_cache(self, *, unused_for: float) -> list[str]:
        repository = repositories.choose(self._server, self._parts.repository)
        return self._parts.images.evict(repository, unused_for)

    def remove_abandoned(self, *, older_than: float) -> list[str]:
        found = orphans.find(self._server, grace=older_than)
        return [orphan.uuid for orphan in orphans.remove(self._server, found)]

    # Resize and migration

    def migrate_disk_and_power_off(
        self, instance: Instance, *, node: str | None = None, timeout: float | None = None, progress: Progress
    ) -> None:
        resize.begin(self._parts, instance, node, timeout, progress)

    def finish_migration(self, instance: Instance, *, power_on: bool = True, progress: Progress) -> None:
        resize.finish(self._parts, instance, power_on=power_on, progress=progress)

    def confirm_migration(self, instance: Instance) -> None:
        resize.confirm(self._parts, instance)

    def finish_revert_migration(self, instance: Instance, *, power_on: bool = True) -> None:
        resize.revert(self._parts, instance, power_on=power_on)

    def check_can_live_migrate_destination(self, instance: Instance, *, node: str) -> MigrationTarget:
        return migration.check_destination(self._parts, instance, node)

    def live_migration(self, instance: Instance, target: MigrationTarget, *, progress: Progress) -> None:
        migration.live_migration(self._parts, instance, target, progress)

    def post_live_migration_at_destination(self, instance: Instance) -> None:
        migration.arrived(self._parts, instance)

    # Devices

    def attach_volume(self, instance: Instance, volume: Volume) -> str:
        return self._parts.volumes.attach(vms.find(self._server, instance), volume)

    def detach_volume(self, instance: Instance, volume: Volume) -> None:
        self._parts.volumes.detach(vms.find(self._server, instance), volume)

    def attach_interface(self, instance: Instance, interface: Interface) -> None:
        self._parts.interfaces.attach(vms.find(self._server, instance), interface)

    def detach_interface(self, instance: Instance, interface: Interface) -> None:
        self._parts.interfaces.detach(vms.find(self._server, instance), interface)

    # What the guest's agent does

    def quiesce(self, instance: Instance, *, timeout: float) -> None:
        self._agents.freeze(vms.running(self._server, instance), timeout)

    def unquiesce(self, instance: Instance) -> None:
        self._agents.thaw(vms.running(self._server, instance))

    def set_admin_password(self, instance: Instance, new_pass: Password) -> None:
        self._agents.set_password(vms.running(self._server, instance), new_pass)

    def inject_file(self, instance: Instance, file: InjectedFile) -> None:
        self._agents.put_file(vms.running(self._server, instance), file)

    def add_ssh_keys(self, instance: Instance, keys: Sequence[str]) -> None:
        self._agents.add_ssh_keys(vms.running(self._server, instance), keys)

    def inject_network_info(self, instance: Instance, interfaces: Sequence[Interface]) -> None:
        self._agents.apply_network(vms.running(self._server, instance), interfaces)

    def reset_network(self, instance: Instance) -> None:
        self._agents.reset_network(vms.running(self._server, instance))

    def change_instance_metadata(self, instance: Instance, diff: Mapping[str, Sequence[str]]) -> None:
        metadata.change(self._server, vms.find(self._server, instance), diff)

    def trust_agent(self, instance: Instance) -> AgentInfo:
        return self._agents.trust(vms.running(self._server, instance))

    def send_sealed(self, instance: Instance, request_id: str, value: str, box: str) -> SealedAnswer:
        delivered = self._agents.deliver(vms.running(self._server, instance), request_id, value, box)
        receipt, answer = delivered.receipt, delivered.answer
        return SealedAnswer(receipt.outcome, receipt.code, answer.value, answer.box)

    # Questions

    def get_info(self, instance: Instance) -> InstanceInfo:
        vm = vms.told(self._server, instance)
        return InstanceInfo(vm.power_state, vm.uuid, nodes.name(self._server, vm.host))

    def list_instances(self) -> list[str]:
        return vms.names(self._server)

    def list_instance_uuids(self) -> list[str]:
        return vms.instances(self._server)

    def get_console_output(self, instance: Instance) -> bytes:
        return output(self._plugin, vms.running(self._server, instance))

    def get_vnc_console(self, instance: Instance) -> VncConsole:
        return self._screens.open(vms.running(self._server, instance))

    def get_diagnostics(self, instance: Instance) -> Diagnostics:
        return diagnostics.diagnose(self._server, vms.find(self._server, instance))

    # Nodes

    def get_available_nodes(self) -> list[str]:
        return sorted(nodes.names(self._server))

    def check_node(self, node: str) -> NodeState:
        return hosts.state(self._server, self._versions, node)

    def get_available_resource(self, node: str) -> NodeResources:
        return hosts.resources(self._parts, node)

    def get_inventory(self, node: str) -> dict[str, InventoryItem]:
        return hosts.inventory(self._parts, node)

    def get_host_uptime(self, node: str) -> float:
        return hosts.uptime(self._server, node)

    def set_host_enabled(self, node: str, enabled: bool) -> None:
        maintenance.set_enabled(self._server, node, enabled)

    def host_maintenance_mode(self, node: str, enabled: bool) -> None:
        if enabled:
            maintenance.enter(self._parts, node)
        else:
            maintenance.leave(self._server, node)

    def host_power_action(self, node: str, action: str) -> None:
        maintenance.power_action(self._server, node, action)
