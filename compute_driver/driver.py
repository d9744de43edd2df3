"""The contract between the compute manager and a hypervisor, after Nova's ComputeDriver: same verbs, same meanings.

A driver knows no bus and no database, and runs in native and in green threads alike. Every method blocks until
its effect was seen to happen, and raises one of the errors of agent_protocol.outcomes otherwise.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence

from agent_protocol.messages import Password

from .agents import AgentInfo
from .files import InjectedFile
from .images import Image, ImageService
from .instance import Instance, InstanceInfo, Progress
from .network import Interface
from .resources import Capabilities, Diagnostics, InventoryItem, MigrationTarget, NodeResources, NodeState, VncConsole
from .sealing import SealedAnswer
from .volumes import Volume

__all__ = ["ComputeDriver", "Instance", "InstanceInfo", "Progress"]


class ComputeDriver(abc.ABC):
    """One hypervisor, which may consist of several nodes: a XenServer pool, whose nodes are its hosts.

    Whatever is raised, the guest is as it was before, or as the method's text says; where nobody can know, the error
    is an Unknown. `node` is always one of get_available_nodes().

    A driver that has a fence (fencing.Fence) asks it directly before each thing that it changes. So every verb that
    changes something may raise LeaseLost, and then does nothing more, not even an undo.
    """

    capabilities = Capabilities()

    # The driver itself

    @abc.abstractmethod
    def init_host(self, host: str) -> None:
        """Get ready to serve as `host`. Raises what keeps the hypervisor from being used."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the hypervisor; nothing is called afterwards."""

    @abc.abstractmethod
    def listen(self, changed: Callable[[str], None]) -> None:
        """From now on have it told, by uuid, that what get_info says of an instance may have become different.

        That is: its power state, its node, that it appeared or is gone. get_info says the new thing by then. After
        changes may have been missed it is told for every guest. changed: called by a thread of the driver's, one call
        at a time, and must be quick; what it raises is logged. The names of strangers' guests can be among them.
        """

    @abc.abstractmethod
    def end_sessions(self, sessions: Sequence[str]) -> None:
        """End the sessions of a service that acted on the hypervisor before us: what it sends now has no effect.

        sessions: as its fence was told of them; those that have ended are fine. Raises what keeps it from being
        certain: ask again then. What was begun before goes on: see await_quiet.
        """

    @abc.abstractmethod
    def await_quiet(self, instance: Instance, *, timeout: float) -> None:
        """Return once the hypervisor does nothing to the guest any more, at once when there is no guest.

        timeout: seconds; Unknown with `guest_busy` after that. It does not matter who asked for what is done to it.
        """

    # Life and death

    @abc.abstractmethod
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
        """Create the guest, boot it, wait for its agent, give it its password, keys, files and network.

        image: None for an empty root disk, or for none when a volume is to be booted from. admin_password: None leaves
        it as the image has it. ssh_keys: lines as in authorized_keys, for the administrator. interfaces: None for one
        interface on the first network that reaches a wire, empty for none; the agent configures those that are given,
        unless there is a config drive. volumes: attached before the first boot. config_drive: its files, by path
        (`openstack/latest/…`), never with a password. metadata: what the guest can read from its first boot on, as by
        change_instance_metadata. node: None lets the hypervisor choose.

        Refused with `agent_not_running` or `agent_not_in_image` when password, keys or files are given without
        power_on, or for an image whose property img_use_agent says no: such a guest is not waited for. Refused with
        `guest_exists` when there is one. Leaves a working guest, or nothing and the error of the step that went wrong;
        what could not be removed is told by the step `undo`.
        """

    @abc.abstractmethod
    def destroy(self, instance: Instance, *, volumes: Sequence[Volume] = ()) -> None:
        """Remove the guest and its own disks, in whatever state it is; volumes are let go of and stay.

        Succeeds when there is none. What an interrupted spawn, rescue, snapshot or resize left of it goes, too, and
        its agent is forgotten. An error with `left_behind` names what could not be removed: ask again.
        """

    @abc.abstractmethod
    def cleanup(self, instance: Instance) -> None:
        """Remove what is left of a guest that is gone already (disks, half-made copies). The guest itself stays.

        Errors as of destroy.
        """

    @abc.abstractmethod
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
        """Replace the root disk by a new one of `image`, and set the guest up as spawn does.

        It keeps its addresses and volumes; its agent is a stranger again. Should the new disk not come to be, the guest
        keeps its old one, powered off. interfaces: those that the agent is to configure. Refused with
        `root_disk_is_volume` for a guest that boots from a volume, and with `instance_rescued`.
        """

    # Power

    @abc.abstractmethod
    def power_on(self, instance: Instance) -> None:
        """Start a guest that is shut down; nothing happens when it runs. Refused when it is paused or suspended."""

    @abc.abstractmethod
    def power_off(self, instance: Instance, *, timeout: float | None = None) -> None:
        """Shut the guest down, by force if it does not comply in `timeout` seconds; 0 does not ask at all.

        None leaves the time to the hypervisor. Nothing happens when it is off. A paused guest cannot be asked, and a
        suspended one loses its memory.
        """

    @abc.abstractmethod
    def reboot(self, instance: Instance, reboot_type: str) -> None:
        """Restart the guest. reboot_type: `SOFT` asks the guest, `HARD` does not (Nova's words).

        HARD also brings back a guest in any other state, as Nova has it. SOFT is Unsupported for a guest that cannot be
        asked, Refused with `guest_did_not_comply` when it did not take the request, and Unknown when it did and was
        not back in time: whether to go on by force is not decided here.
        """

    @abc.abstractmethod
    def pause(self, instance: Instance) -> None:
        """Stop its processors; nothing happens when they stand still. Refused unless it runs."""

    @abc.abstractmethod
    def unpause(self, instance: Instance) -> None:
        """Let them go on; nothing happens when it runs. Refused unless it is paused."""

    @abc.abstractmethod
    def suspend(self, instance: Instance) -> None:
        """Write its memory to storage and end its domain; nothing happens when that was done.

        Refused unless it runs, Unsupported when it has no drivers for it.
        """

    @abc.abstractmethod
    def resume(self, instance: Instance) -> None:
        """Bring a suspended guest back; nothing happens when it runs. Refused unless it is suspended."""

    # Rescue

    @abc.abstractmethod
    def rescue(self, instance: Instance, *, image: Image, rescue_password: Password | None, progress: Progress) -> None:
        """Boot the guest from a fresh disk of `image`, with its own root disk as the second one (or the next free).

        The rescue system's agent is another one; who is known now is known again afterwards. Whatever is raised, the
        guest is left as it was, powered off if that was begun.
        """

    @abc.abstractmethod
    def unrescue(self, instance: Instance) -> None:
        """Remove the rescue disk, and boot the guest from its own again; nothing happens when it is not rescued.

        Also after a rescue that was interrupted, wherever that was.
        """

    # Images

    @abc.abstractmethod
    def snapshot(
        self, instance: Instance, *, service: ImageService, name: str, disk_format: str, progress: Progress
    ) -> Image:
        """Store a copy of the root disk as it is now with an image service. disk_format: `raw` or `vhd`."""

    @abc.abstractmethod
    def manage_image_cache(self, *, unused_for: float) -> list[str]:
        """Remove cached images that no guest was made from for so many seconds; gives their ids. Guests keep all."""

    @abc.abstractmethod
    def remove_abandoned(self, *, older_than: float) -> list[str]:
        """Remove half-made disks and copies that nobody worked on for so many seconds; gives their ids.

        What belongs to an instance stays, be it one that is known here or not.
        """

    @abc.abstractmethod
    def quiesce(self, instance: Instance, *, timeout: float) -> None:
        """Have the guest's agent freeze its file systems, for at most `timeout` seconds."""

    @abc.abstractmethod
    def unquiesce(self, instance: Instance) -> None:
        """Thaw them. Refused with `not_frozen` when the time was over before: a snapshot since is not consistent."""

    # Resize and migration

    @abc.abstractmethod
    def migrate_disk_and_power_off(
        self, instance: Instance, *, node: str | None = None, timeout: float | None = None, progress: Progress
    ) -> None:
        """Begin a resize or a cold migration: power the guest off (as power_off does), and keep what revert needs.

        node: where it is to go with its disks, None to leave that to finish_migration's start. Whatever is raised, the
        guest is as it was, powered off. Refused with `resize_unconfirmed` after another one, and with
        `disk_shrink_refused`, if `instance` has its new sizes already.
        """

    @abc.abstractmethod
    def finish_migration(self, instance: Instance, *, power_on: bool = True, progress: Progress) -> None:
        """Give the guest the sizes that `instance` has now, and start it where it was sent.

        Refused with `disk_shrink_refused` before anything is touched. After any other error the guest is powered off:
        ask again, or for finish_revert_migration.
        """

    @abc.abstractmethod
    def confirm_migration(self, instance: Instance) -> None:
        """Throw away what revert would need; nothing happens when there is nothing. Ask again after an error."""

    @abc.abstractmethod
    def finish_revert_migration(self, instance: Instance, *, power_on: bool = True) -> None:
        """Put the guest back as it was before, disk contents included. Ask again after an error."""

    @abc.abstractmethod
    def check_can_live_migrate_destination(self, instance: Instance, *, node: str) -> MigrationTarget:
        """Asked of the driver that would have the guest: what the other one needs for live_migration."""

    @abc.abstractmethod
    def live_migration(self, instance: Instance, target: MigrationTarget, *, progress: Progress) -> None:
        """Move the running guest, within its pool or to another one; disks go along where they are not shared.

        Volumes stay where they are, and cannot leave their pool. After an error the guest runs where it was.
        """

    @abc.abstractmethod
    def post_live_migration_at_destination(self, instance: Instance) -> None:
        """Asked of the driver that has the guest now, when it came from another pool: make it one of its own."""

    # Devices

    @abc.abstractmethod
    def attach_volume(self, instance: Instance, volume: Volume) -> str:
        """Attach a volume, and plug it in if the guest runs; attached already, it stays.

        Gives its device: a name such as `xvdb` once the guest has it, its number before that.
        """

    @abc.abstractmethod
    def detach_volume(self, instance: Instance, volume: Volume) -> None:
        """Take it away again; nothing happens when it is not attached."""

    @abc.abstractmethod
    def attach_interface(self, instance: Instance, interface: Interface) -> None:
        """Add a network interface, and plug it in if the guest runs; nothing happens when it has it."""

    @abc.abstractmethod
    def detach_interface(self, instance: Instance, interface: Interface) -> None:
        """Take it away again; nothing happens when it is not there."""

    # What the guest's agent does

    @abc.abstractmethod
    def set_admin_password(self, instance: Instance, new_pass: Password) -> None:
        """Set the password of the guest's administrator through its agent."""

    @abc.abstractmethod
    def inject_file(self, instance: Instance, file: InjectedFile) -> None:
        """Put a file into the running guest through its agent."""

    @abc.abstractmethod
    def add_ssh_keys(self, instance: Instance, keys: Sequence[str]) -> None:
        """Add keys (lines as in authorized_keys) to the administrator's in the running guest."""

    @abc.abstractmethod
    def inject_network_info(self, instance: Instance, interfaces: Sequence[Interface]) -> None:
        """Have the running guest configure these interfaces, in place of what it had."""

    @abc.abstractmethod
    def reset_network(self, instance: Instance) -> None:
        """Have the running guest's agent read its network data again (the old protocol's `resetnetwork`)."""

    @abc.abstractmethod
    def change_instance_metadata(self, instance: Instance, diff: Mapping[str, Sequence[str]]) -> None:
        """Pass a change of metadata on to the guest: by key, `["+", value]` or `["-"]` (Nova's form)."""

    @abc.abstractmethod
    def trust_agent(self, instance: Instance) -> AgentInfo:
        """Pin the agent that is in the guest now, in place of the one that was known."""

    @abc.abstractmethod
    def send_sealed(self, instance: Instance, request_id: str, value: str, box: str) -> SealedAnswer:
        """Carry a request that its caller sealed to the guest's agent. Raises only when there is no believable answer.

        value: of the request's node; box: what travels as frames, empty if all is in the node.
        """

    # Questions

    @abc.abstractmethod
    def get_info(self, instance: Instance) -> InstanceInfo:
        """The guest's state now. InstanceNotFound when the hypervisor has no such guest."""

    @abc.abstractmethod
    def list_instances(self) -> list[str]:
        """The names of all guests that are instances of ours."""

    @abc.abstractmethod
    def list_instance_uuids(self) -> list[str]:
        """Their uuids, as in Instance.uuid."""

    @abc.abstractmethod
    def get_console_output(self, instance: Instance) -> bytes:
        """The last of what the running guest wrote to its serial console, at most 100 KiB: untrusted bytes.

        Unsupported (`console_not_logged`) when nobody keeps that.
        """

    @abc.abstractmethod
    def get_vnc_console(self, instance: Instance) -> VncConsole:
        """Where the running guest's screen is. The token in it is a secret, and good for a while."""

    @abc.abstractmethod
    def get_diagnostics(self, instance: Instance) -> Diagnostics:
        """What the guest uses now."""

    # Nodes

    @abc.abstractmethod
    def get_available_nodes(self) -> list[str]:
        """The hypervisor_hostname of every node. Refused with `node_name_ambiguous` when two bear the same."""

    @abc.abstractmethod
    def check_node(self, node: str) -> NodeState:
        """Whether a node can be used now. What is wrong with it is in the answer."""

    @abc.abstractmethod
    def get_available_resource(self, node: str) -> NodeResources:
        """What a node has and uses."""

    @abc.abstractmethod
    def get_inventory(self, node: str) -> dict[str, InventoryItem]:
        """What a node offers, by resource class (`VCPU`, `MEMORY_MB`, `DISK_GB`), for a placement service."""

    @abc.abstractmethod
    def get_host_uptime(self, node: str) -> float:
        """Seconds since a node started."""

    @abc.abstractmethod
    def set_host_enabled(self, node: str, enabled: bool) -> None:
        """Let a node take new guests, or not."""

    @abc.abstractmethod
    def host_maintenance_mode(self, node: str, enabled: bool) -> None:
        """Enter maintenance: no new guests, and those that run there are moved away live. Or leave it.

        Should a guest not move, the node is left as it was, and the error (`guest_not_moved`) names the guest.
        """

    @abc.abstractmethod
    def host_power_action(self, node: str, action: str) -> None:
        """`shutdown`, `reboot` or `startup` of a node. Refused unless it is in maintenance (but for `startup`).

        Unsupported when nobody told the hypervisor how the node is started from afar.
        """
