"""What is remembered of guests' agents from one conversation to the next, and where a driver finds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agent_protocol.adverts import SealingKey
from agent_protocol.identity import IDENTITY_SIZE, fingerprint
from agent_protocol.messages import MessageError
from agent_protocol.outcomes import Refused
from agent_protocol.strict import decode_base64, encode_base64

LEGACY = "legacy"
SEALED = "sealed"


@dataclass(frozen=True)
class AgentInfo:
    """What is known of a guest's agent.

    protocol: how it was last spoken to, LEGACY or SEALED. identity: its pinned public key; once there is one, the agent
    is spoken to through the sealed protocol only. key: to seal the next request to, None when it must be asked for.
    clock_offset: its clock minus ours, in seconds. guest: the hypervisor's own id of the guest, such as a VM's uuid, to
    which requests are bound.
    """

    version: str
    features: tuple[str, ...]
    protocol: str
    identity: bytes | None = None
    key: SealingKey | None = None
    clock_offset: int = 0
    guest: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain data, keys in base64."""
        return {
            "version": self.version,
            "features": list(self.features),
            "protocol": self.protocol,
            "identity": _encode(self.identity),
            "fingerprint": fingerprint(self.identity) if self.identity else None,
            "key_id": self.key.id if self.key else None,
            "key_public": _encode(self.key.public) if self.key else None,
            "clock_offset": self.clock_offset,
            "guest": self.guest,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AgentInfo:
        """From such data; Refused when it is not of that form."""
        try:
            key = SealingKey(data["key_id"], decode_base64(data["key_public"], "key")) if data["key_id"] else None
            identity = decode_base64(data["identity"], "identity") if data["identity"] else None
            if identity is not None and len(identity) != IDENTITY_SIZE:
                raise ValueError("identity")
            features = tuple(str(name) for name in data["features"])
            version, protocol, guest = str(data["version"]), str(data["protocol"]), str(data["guest"])
            return cls(version, features, protocol, identity, key, int(data["clock_offset"]), guest)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, MessageError):
            raise Refused("bad_agent", "what is told about the agent cannot be read") from None


def _encode(data: bytes | None) -> str | None:
    return encode_base64(data) if data else None


class AgentMemory(Protocol):
    """Where a driver keeps what it knows of agents. The compute service's lies in its database."""

    def recall(self, instance_uuid: str) -> AgentInfo | None:
        """What was remembered last, None for an agent that was never heard of."""

    def remember(self, instance_uuid: str, agent: AgentInfo) -> None:
        """Keep this in place of what was."""

    def forget(self, instance_uuid: str) -> None:
        """Keep nothing: whoever comes next is a stranger. Nothing happens when nothing was known."""


class AgentsInMemory(dict[str, AgentInfo]):
    """An AgentMemory that ends with the process."""

    def recall(self, instance_uuid: str) -> AgentInfo | None:
        """As in AgentMemory."""
        return self.get(instance_uuid)

    def remember(self, instance_uuid: str, agent: AgentInfo) -> None:
        """As in AgentMemory."""
        self[instance_uuid] = agent

    def forget(self, instance_uuid: str) -> None:
        """As in AgentMemory."""
        self.pop(instance_uuid, None)
