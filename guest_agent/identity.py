"""Who this agent is: its long-lived key, kept on the guest's disk together with the VM it was made for.

A copy of the disk that starts as another VM is another guest, and must not pass for the first one: it gets a new
identity.
"""

from __future__ import annotations

import logging
import os

from agent_protocol.identity import IDENTITY_SIZE, Identity
from agent_protocol.messages import MessageError
from agent_protocol.outcomes import Unsuccessful
from agent_protocol.strict import Members, dumps, encode_base64

from .places import IDENTITY_FILE, STATE_DIRECTORY
from .system.files import read, replace
from .system.paths import enter, failures, open_parent

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600

_log = logging.getLogger(__name__)


def own_identity(root: str, vm: str) -> Identity:
    """The identity of the agent in the guest whose `/` is `root` and which is the VM of that uuid.

    Made anew when there is none, when it was made for another VM, or when what stands there is none. When it cannot be
    read or kept, the agent has one until it ends, and the log says so: hosts will take its successor for a stranger.
    """
    identity = Identity.generate()
    try:
        with failures(STATE_DIRECTORY.text):
            directory = _open_directory(root)
            try:
                known = _parse(read(directory, IDENTITY_FILE.name), vm)
                if known is not None:
                    return known
                content = dumps({"vm": vm, "private": encode_base64(identity.private_bytes())}).encode("ascii")
                replace(directory, IDENTITY_FILE.name, content, mode=_FILE_MODE)
            finally:
                os.close(directory)
        _log.info("new identity %r", identity)
    except Unsuccessful as error:
        _log.warning("the identity cannot be kept, hosts will not recognise this agent again: %s", error)
    return identity


def _open_directory(root: str) -> int:
    """A descriptor of the directory, made when it is missing, and for the agent's user alone in any case."""
    with open_parent(root, STATE_DIRECTORY, make=True) as parent:
        try:
            os.mkdir(STATE_DIRECTORY.name, _DIRECTORY_MODE, dir_fd=parent)
            os.fsync(parent)
        except FileExistsError:
            pass
        directory = enter(parent, STATE_DIRECTORY.name)
    try:
        os.fchmod(directory, _DIRECTORY_MODE)
    except OSError:
        os.close(directory)
        raise
    return directory


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
