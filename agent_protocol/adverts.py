"""The signed advert, in which an agent tells hosts who it is and to which key they can seal.

Whoever can write into the guest's part of XenStore can write an advert too, with an identity of their own: what a
host believes is one that was signed by the identity it saw before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .hpke import KEY_SIZE
from .identity import ADVERT_CONTEXT, PROTOCOL, Identity, read_statement
from .messages import MAX_VALUE, Advert, MessageError
from .strict import Members, dumps, encode_base64

KEY_ID = re.compile(r"[0-9a-f]{16}\Z")
"""A sealing key's id: 8 random bytes in hex."""


class NotSealed(MessageError):
    """Raised when an advert is that of an agent which only speaks the old protocol, so nothing in it is signed."""


@dataclass(frozen=True)
class SealingKey:
    """A public key of an agent's to seal requests to.

    id: 16 hex digits, made up anew for each. public: 32 bytes of X25519.
    """

    id: str
    public: bytes

    def __post_init__(self) -> None:
        if not KEY_ID.match(self.id) or len(self.public) != KEY_SIZE:
            raise MessageError(f"a sealing key has an id of 16 hex digits and {KEY_SIZE} bytes")

    @classmethod
    def parse(cls, untrusted_members: Members) -> SealingKey:
        """The key in a statement. MessageError when it is none."""
        return cls(untrusted_members.text("id"), untrusted_members.data("public", KEY_SIZE))

    def members(self) -> dict[str, object]:
        """As it stands in JSON."""
        return {"id": self.id, "public": encode_base64(self.public)}


@dataclass(frozen=True)
class SealedAdvert:
    """What an agent has signed about itself.

    version, boot_id, features: as in Advert. identity: its public Ed25519 key, which the host compares with the one it
    knows. key: to seal the next request to. issued: when this was signed, Unix seconds by the agent's clock.
    """

    version: str
    boot_id: str
    features: tuple[str, ...]
    identity: bytes
    key: SealingKey
    issued: int


def encode_sealed_advert(advert: Advert, identity: Identity, vm: str, key: SealingKey, issued: int) -> bytes:
    """The value of the node messages.ADVERT, of at most MAX_VALUE bytes.

    vm: uuid of the VM that the agent runs in. issued: Unix seconds. Version, boot id and features stand outside
    the signed text as well, for hosts that read no signatures; if there is no room the features are left out there.
    MessageError when it cannot fit even so.
    """
    inside = {
        "v": PROTOCOL,
        "version": advert.version,
        "boot_id": advert.boot_id,
        "features": list(advert.features),
        "vm": vm,
        "identity": encode_base64(identity.public),
        "key": key.members(),
        "issued": issued,
    }
    statement = identity.statement(ADVERT_CONTEXT, inside)
    for features in (list(advert.features), []):
        outside = {"v": PROTOCOL, "version": advert.version, "boot_id": advert.boot_id, "features": features}
        value = dumps({**outside, **statement})
        if len(value) <= MAX_VALUE:
            return value.encode("ascii")
    raise MessageError(f"an advert of {len(value)} bytes does not fit into one of {MAX_VALUE}")


def verify_advert(untrusted_value: bytes, vm: str) -> SealedAdvert:
    """The advert in a node's value, if the identity that it names has signed it, for this VM.

    That the identity is the right one is for the caller to compare. NotSealed when it was written by an agent that only
    speaks the old protocol; MessageError for anything else that is not such an advert.
    """
    outside = Members.loads(untrusted_value, "advert")
    if "v" not in outside and "signed" not in outside:
        raise NotSealed("the agent speaks only the old protocol")
    outside.version(PROTOCOL)
    statement, identity = read_statement(ADVERT_CONTEXT, outside, None)
    if statement.text("vm") != vm:
        raise MessageError("the advert is that of another VM")
    return SealedAdvert(
        statement.text("version"),
        statement.text("boot_id"),
        statement.texts("features"),
        identity,
        SealingKey.parse(statement.object("key")),
        statement.number("issued"),
    )
