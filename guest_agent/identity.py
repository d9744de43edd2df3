"""Who this agent is: its long-lived key, kept on the guest's disk together with the VM it was made for.

A copy of the disk that starts as another VM is another guest, and must not pass for the first one: it gets a new
identity.
"""

from __future__ import annotations

import logging

from agent_protocol.identity import IDENTITY_SIZE, Identity
from agent_protocol.messages import MessageError
from agent_protocol.outcomes import Unsuccessful
from agent_protocol.strict import Members, dumps, encode_base64

from .system.base import System

IDENTITY_NAME = "identity.json"
"""Of the file among the agent's own, see System.read_state. It stays when the agent is uninstalled: hosts know the
guest by it."""

_log = logging.getLogger(__name__)


def own_identity(system: System, vm: str) -> Identity:
    """The identity of the agent in this guest, which is the VM of that uuid.

    Made anew when there is none, when it was made for another VM, or when what stands there is none. When it cannot be
    read or kept, the agent has one until it ends, and the log says so: hosts will take its successor for a stranger.
    Failed (`cryptography_unavailable`) when there can be none; then what stands there stays.
    """
    identity = Identity.generate()
    try:
        untrusted_content = system.read_state(IDENTITY_NAME)
    except Unsuccessful as error:
        _warn(error)
        return identity
    known = _parse(untrusted_content, vm)
    if known is not None:
        return known
    content = dumps({"vm": vm, "private": encode_base64(identity.private_bytes())}).encode("ascii")
    try:
        system.write_state(IDENTITY_NAME, content)
    except Unsuccessful as error:
        _warn(error)
        return identity
    _log.info("new identity %r", identity)
    return identity


def _warn(error: Unsuccessful) -> None:
    _log.warning("the identity cannot be kept, hosts will not recognise this agent again: %s", error)


def _parse(untrusted_content: bytes | None, vm: str) -> Identity | None:
    """The identity in a file's content, None when there is none for that VM."""
    if untrusted_content is None:
        return None
    try:
        members = Members.loads(untrusted_content, "identity")
        if members.text("vm") != vm:
            _log.warning("the identity was made for another VM: this is a copy")
            return None
        return Identity.from_private_bytes(members.data("private", IDENTITY_SIZE))
    except MessageError as error:
        _log.warning("the identity on disk is unusable: %s", error)
        return None
