"""What a driver tells about its hosts and about guests besides their state, and what it needs to move a guest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_protocol.outcomes import Outcome, Refused


@dataclass(frozen=True)
class Capabilities:
    """What this driver can do beyond the basic verbs, under Nova's names for it."""

    supports_attach_interface: bool = False
    supports_device_tagging: bool = False
    supports_evacuate: bool = False
    supports_image_type_qcow2: bool = False
    supports_image_type_raw: bool = True
    supports_image_type_vhd: bool = False
    supports_migrate_to_same_host: bool = False
    supports_multiattach: bool = False
    supports_pcpus: bool = False
    supports_secure_boot: bool = False
    supports_tagged_attach_interface: bool = False


@dataclass(frozen=True)
class NodeResources:
    """What one node has and uses (Nova's get_available_resource).

    memory_mb and memory_mb_used: MiB, the hypervisor's own part counts as used. local_gb and local_gb_used: GiB of
    the storage that root disks are made in; of storage that several nodes share, the node's part. vcpus: processors.
    hypervisor_version: a whole number, 8.3.0 is 8003000.
    """

    hypervisor_hostname: str
    hypervisor_type: str
    hypervisor_version: int
    vcpus: int
    vcpus_used: int
    memory_mb: int
    memory_mb_used: int
    local_gb: int
    local_gb_used: int
    cpu_info: Mapping[str, Any] = field(default_factory=dict)
    host_ip: str = ""


@dataclass(frozen=True)
class NodeState:
    """Whether a node can be used.

    enabled: whether it takes new guests. live: whether the hypervisor sees it. helper: outcome of a question to what
    the driver needs on the node (XenServer's dom0 plugin), `succeeded` when that is there and new enough;
    helper_version, code and message: what it told of itself, and what is wrong.
    """

    hypervisor_hostname: str
    enabled: bool
    live: bool
    helper: Outcome
    helper_version: str = ""
    code: str = ""
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**vars(self), "helper": str(self.helper)}


@dataclass(frozen=True)
class InventoryItem:
    """How much of one resource class a node offers, in the fields that OpenStack's placement takes."""

    total: int
    reserved: int = 0
    min_unit: int = 1
    max_unit: int = 1
    step_size: int = 1
    allocation_ratio: float = 1.0


@dataclass(frozen=True)
class DeviceCounters:
    """Bytes that went through one device since the guest started; None where the hypervisor does not count."""

    device: str
    read_bytes: float | None = None
    write_bytes: float | None = None


@dataclass(frozen=True)
class Diagnostics:
    """What a guest uses now. cpu_usage: share of each processor, 0 to 1. memory: MiB. uptime: seconds, None if off."""

    state: str
    cpu_usage: tuple[float, ...] = ()
    memory_maximum: int = 0
    memory_used: int | None = None
    disks: tuple[DeviceCounters, ...] = ()
    nics: tuple[DeviceCounters, ...] = ()
    uptime: float | None = None


@dataclass(frozen=True)
class VncConsole:
    """Where a guest's screen is: an HTTP CONNECT to `internal_access_path` at host:port leads to RFB.

    token: the session that opens it, a secret. tls: whether the port speaks TLS.
    """

    host: str
    port: int
    internal_access_path: str
    tls: bool
    token: str = field(repr=False)


@dataclass(frozen=True)
class MigrationTarget:
    """Where a guest can go, from the driver that will have it to the driver that has it.

    pool: the destination pool's uuid. node: the destination's hypervisor_hostname. host: its reference there.
    repositories: references of its storage, the one for root disks first. networks: by bridge or name there, theirs.
    receive: what XenServer's migrate_receive gave, for another pool only; it holds a session, so it is a secret.
    """

    pool: str
    node: str
    host: str
    repositories: tuple[str, ...] = ()
    networks: Mapping[str, str] = field(default_factory=dict)
    receive: Mapping[str, str] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "pool": self.pool,
            "node": self.node,
            "host": self.host,
            "repositories": list(self.repositories),
            "networks": dict(self.networks),
            "receive": dict(self.receive),
        }

    @classmethod
    def from_dict(cls, untrusted: Mapping[str, Any]) -> MigrationTarget:
        """From such data; Refused when it is not of that form."""
        try:
            pool, node, host = (untrusted[name] for name in ("pool", "node", "host"))
            repositories, networks, receive = (untrusted[name] for name in ("repositories", "networks", "receive"))
            pairs = [*networks.items(), *receive.items()]
        except (AttributeError, KeyError, TypeError):
            raise _bad_target() from None
        strings = [pool, node, host, *(text for pair in pairs for text in pair)]
        if not isinstance(repositories, (list, tuple)) or not all(
            isinstance(text, str) for text in [*strings, *repositories]
        ):
            raise _bad_target()
        return cls(pool, node, host, tuple(repositories), dict(networks), dict(receive))


def _bad_target() -> Refused:
    return Refused("bad_migration_target", "what is told about the migration's destination cannot be read")
