"""What it takes to put a guest's network back, kept on its disk while a change is under way.

The record is written before the first change and removed after the last step. One that stands when the agent starts
means that an earlier run ended in the middle: nobody saw the new configuration work, so the old one is put back.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent_protocol.messages import MessageError
from agent_protocol.outcomes import Failed, Refused, Unknown, Unsuccessful, Unsupported
from agent_protocol.strict import Members, decode_base64, dumps, encode_base64

from ..system.accounts import Owner
from ..system.base import System
from ..system.files import MAX_READ, read_file, write_file
from ..system.paths import GuestPath
from ..system.snapshots import Snapshot, put_back, remove_file
from . import UNDO_FILE
from .data import NetworkData
from .live import LiveNetwork, Standing
from .renderer import Renderer
from .sealed import encode_network_data, parse_network_data

UNDO_SECONDS = 8.0
"""Seconds that the old configuration has for becoming active again."""

_FILE_MODE = 0o600
_VERSION = 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Undo:
    """A change of the network under way.

    stack: the renderer's name. data: what the guest was to have, which tells the interfaces that were touched.
    snapshots: the files as they were, in the order in which they are changed.
    """

    stack: str
    data: NetworkData
    snapshots: tuple[Snapshot, ...]

    def encode(self) -> bytes:
        """As it is kept. Refused (`network_files_too_large`) when it could not be read again."""
        files = {snapshot.path.text: _encode(snapshot) for snapshot in self.snapshots}
        members = {"v": _VERSION, "stack": self.stack, "network": encode_network_data(self.data), "files": files}
        content = dumps(members).encode("ascii")
        if len(content) > MAX_READ:
            raise Refused("network_files_too_large", "the files of this guest's network are too large to be kept")
        return content


def keep(root: str, undo: Undo) -> None:
    """Write the record. Refused (`network_undo_pending`) when there is one already; errors as write_file."""
    if read_file(root, UNDO_FILE) is not None:
        raise Refused("network_undo_pending", f"an earlier change waits for being put back, see {UNDO_FILE.text}")
    write_file(root, UNDO_FILE, undo.encode(), mode=_FILE_MODE)


def forget(root: str) -> None:
    """Remove the record. Errors as remove_file."""
    remove_file(root, UNDO_FILE)


def restore(system: System, undo: Undo, activation: Sequence[Sequence[str]], standing: Collection[Standing]) -> None:
    """Put the files back, run these programs, and see that the addresses in `standing` are there again.

    Failed (`network_lost`) says what went wrong. The record is gone afterwards, unless it is a file that could not be
    put back: an operator who repairs the rest must not have it undone by the next start.
    """
    with _files_back(system.root, undo):
        if system.live is not None:
            _activate(system.live, activation, standing)


def undo_pending(system: System, renderers: Mapping[str, Renderer]) -> bool:
    """Put back what an earlier run left in the middle; whether there was anything.

    Failed (`network_lost`) as restore; and when the record is unusable, which then stays.
    """
    try:
        untrusted_content = read_file(system.root, UNDO_FILE)
        if untrusted_content is None:
            return False
        undo = _parse(untrusted_content)
    except (MessageError, Refused) as error:
        raise Failed("network_lost", f"{UNDO_FILE.text} cannot be used: {error}") from None
    renderer = renderers.get(undo.stack)
    if renderer is None:
        raise Failed("network_lost", f"{UNDO_FILE.text} names a network stack that this agent does not have")
    with _files_back(system.root, undo):
        if system.live is not None:
            _activate(system.live, _activation_of_what_is_there(system, undo.data, renderer), ())
    return True


def recover(system: System, renderers: Mapping[str, Renderer]) -> None:
    """As undo_pending, for the agent's start: the log tells what happened, and nothing is raised."""
    try:
        if undo_pending(system, renderers):
            _log.warning("a change of the network was interrupted: the old configuration is back")
    except Unsuccessful as error:
        _log.error("a change of the network was interrupted: %s", error)


@contextlib.contextmanager
def _files_back(root: str, undo: Undo) -> Iterator[None]:
    """With the files put back; forgets the record in the end."""
    lost: list[str] = []
    for snapshot in reversed(undo.snapshots):
        try:
            put_back(root, snapshot)
        except (Refused, Failed) as error:
            lost.append(str(error))
    if lost:
        raise Failed("network_lost", "files cannot be put back: " + "; ".join(lost))
    try:
        yield
    finally:
        forget(root)


def _activation_of_what_is_there(system: System, data: NetworkData, renderer: Renderer) -> Sequence[Sequence[str]]:
    """The programs for the interfaces that the guest still has: it may have been shut down in between."""
    found = {mac: names[0] for mac, names in system.interface_names().items() if names}
    present = [interface for interface in data.interfaces if interface.mac in found]
    return renderer.activation(NetworkData(tuple(present)), found) if present else ()


def _activate(live: LiveNetwork, activation: Sequence[Sequence[str]], standing: Collection[Standing]) -> None:
    deadline = time.monotonic() + UNDO_SECONDS
    try:
        for arguments in activation:
            live.run(arguments, max(deadline - time.monotonic(), 0.1))
        missing = live.wait_for(standing, deadline)
    except (Failed, Unknown, Unsupported) as error:
        raise Failed("network_lost", f"the old files are back, but cannot be made active: {error}") from None
    if missing:
        raise Failed("network_lost", f"the old files are back and active, but not {addresses_text(missing)}")


def addresses_text(addresses: Collection[Standing]) -> str:
    """These addresses, each once, for people."""
    return ", ".join(sorted({str(address) for _, address in addresses}))


def _encode(snapshot: Snapshot) -> dict[str, object]:
    if snapshot.content is None or snapshot.mode is None or snapshot.owner is None:
        return {}
    return {
        "content": encode_base64(snapshot.content),
        "mode": snapshot.mode,
        "uid": snapshot.owner.uid,
        "gid": snapshot.owner.gid,
    }


def _parse(untrusted_content: bytes) -> Undo:
    members = Members.loads(untrusted_content, "record")
    members.version(_VERSION)
    data = parse_network_data(dumps(members.tree("network")))
    snapshots = (_snapshot(path, untrusted) for path, untrusted in members.tree("files").items())
    return Undo(members.text("stack"), data, tuple(snapshots))


def _snapshot(untrusted_path: str, untrusted: object) -> Snapshot:
    path, members = GuestPath(untrusted_path), Members(untrusted, "record of a file")
    if "content" not in members:
        return Snapshot(path, None, None, None)
    owner = Owner(members.number("uid"), members.number("gid"))
    content = decode_base64(members.text("content"), "the content of a file")
    return Snapshot(path, content, members.number("mode"), owner)
