"""A guest that exists in memory: the system on its root disk, and the machine around it."""

from __future__ import annotations

import hashlib
import hmac
import os
import uuid as uuids
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent_protocol.agent_keys import AgentKeys
from agent_protocol.identity import Identity
from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused

from ..agents import SEALED, AgentInfo
from ..driver import Instance
from ..files import InjectedFile
from ..network import Interface
from ..states import PowerState
from ..volumes import Volume

VERSION = "fake"
FEATURES = ("version", "features", "sealed", "password", "file_put", "ssh_keys", "network_apply", "freeze", "thaw")
"""What the agent in such a guest tells of itself."""

_ROUNDS = 1024
"""scrypt's n: a few milliseconds, since these passwords are a test's."""


@dataclass(frozen=True)
class PasswordHash:
    """All that is kept of a password."""

    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, password: Password) -> PasswordHash:
        """With a salt of its own."""
        salt = os.urandom(16)
        return cls(salt, _digest(password.value, salt))

    def opens(self, password: str) -> bool:
        """Whether it is that of this password."""
        return hmac.compare_digest(self.digest, _digest(password, self.salt))


def _digest(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_ROUNDS, r=8, p=1)


@dataclass
class System:
    """What is on a root disk. content: the bytes that a snapshot of it has. is_volume: it is none of the guest's own.

    image: the id of what it was made from, None for an empty disk. identity: of the agent that is installed there.
    """

    image: str | None
    size_gb: int
    has_agent: bool = True
    is_volume: bool = False
    content: bytes = field(default_factory=lambda: uuids.uuid4().bytes, repr=False)
    identity: Identity = field(default_factory=Identity.generate)
    password: PasswordHash | None = None
    files: dict[str, InjectedFile] = field(default_factory=dict)
    ssh_keys: list[str] = field(default_factory=list)
    network: tuple[Interface, ...] = ()

    def copy(self) -> System:
        """One that later changes do not reach."""
        return replace(self, files=dict(self.files), ssh_keys=list(self.ssh_keys))

    def add_ssh_keys(self, keys: list[str]) -> None:
        """Those that are not there yet."""
        self.ssh_keys += [key for key in dict.fromkeys(keys) if key not in self.ssh_keys]


@dataclass(frozen=True)
class Kept:
    """What a guest was before its resize. origin: the node where it was."""

    system: System
    memory_mb: int
    vcpus: int
    origin: str
    finished: bool = False


@dataclass
class Guest:
    """One guest. node: where it runs, or will by itself. boots: how often it did.

    rescued: its own system, while another one is booted. volumes: by id, with the device. config_drive: its files.
    """

    uuid: str
    name: str
    memory_mb: int
    vcpus: int
    node: str
    system: System
    internal_id: str = field(default_factory=lambda: str(uuids.uuid4()))
    state: PowerState = PowerState.SHUTDOWN
    boots: int = 0
    rescued: System | None = None
    known_agent: AgentInfo | None = None
    kept: Kept | None = None
    frozen: bool = False
    interfaces: list[Interface] = field(default_factory=list)
    volumes: dict[str, tuple[Volume, str]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    config_drive: Mapping[str, bytes] | None = field(default=None, repr=False)
    console: bytes = b""

    def __post_init__(self) -> None:
        self.keys = AgentKeys(self.internal_id)

    @classmethod
    def of(cls, instance: Instance, node: str, system: System) -> Guest:
        """One that is shut down."""
        return cls(instance.uuid, instance.display_name, instance.memory_mb, instance.vcpus, node, system)

    def copy(self) -> Guest:
        """One that later changes do not reach."""
        return replace(
            self,
            system=self.system.copy(),
            rescued=None if self.rescued is None else self.rescued.copy(),
            interfaces=list(self.interfaces),
            volumes=dict(self.volumes),
            metadata=dict(self.metadata),
        )

    @property
    def agent(self) -> AgentInfo:
        """What a host remembers of the agent that answers now."""
        return AgentInfo(
            VERSION, FEATURES, SEALED, self.system.identity.public, self.keys.current, guest=self.internal_id
        )

    @property
    def place(self) -> str:
        """The node where it is, empty while it has no place because it does not run."""
        return self.node if self.state in (PowerState.RUNNING, PowerState.PAUSED) else ""

    # Power. Whatever is reached already is left alone.

    def require(self, state: PowerState) -> None:
        """Refused unless it is in that state."""
        if self.state is not state:
            code = "instance_not_running" if state is PowerState.RUNNING else "instance_power_state"
            raise Refused(code, f"the guest is {self.state.word}, not {state.word}")

    def require_settled(self) -> None:
        """Refused unless devices can be plugged: when it runs, or is shut down."""
        if self.state not in (PowerState.RUNNING, PowerState.SHUTDOWN):
            raise Refused("instance_not_settled", f"the guest is {self.state.word}; devices need it running or off")

    def refuse_rescued(self) -> None:
        """Refused while another system is booted."""
        if self.rescued is not None:
            raise Refused("instance_rescued", "the guest is rescued; unrescue it first")

    def start(self) -> None:
        """Boot it. Refused when it is paused or suspended."""
        if self.state is not PowerState.RUNNING:
            self.require(PowerState.SHUTDOWN)
            self._boot()

    def stop(self) -> None:
        """Take its power away."""
        self.state = PowerState.SHUTDOWN
        self.frozen = False

    def reboot(self, *, hard: bool) -> None:
        """Boot it anew. Refused unless it runs, or it is `hard`."""
        if not hard:
            self.require(PowerState.RUNNING)
        self.stop()
        self._boot()

    def change(self, before: PowerState, after: PowerState) -> None:
        """Go from a state to another one, in which its processors do not begin anew. Refused in any other."""
        if self.state is not after:
            self.require(before)
            self.state = after

    def _boot(self) -> None:
        self.state = PowerState.RUNNING
        self.boots += 1
        self.keys = AgentKeys(self.internal_id)
        self.console = f"Guest {self.uuid} boots.\r\n".encode()
