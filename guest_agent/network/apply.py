"""Making network data the guest's configuration: all of it, or nothing, and never without having looked.

The files are rendered and written, the programs of the stack are run, and then the addresses must stand on their
interfaces. When anything goes wrong on the way, the old files are put back and made active again (undo.py).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from agent_protocol.outcomes import Failed, Refused, Unknown, Unsuccessful, Unsupported

from ..system.base import System
from ..system.paths import GuestPath
from ..system.snapshots import Snapshot, take_snapshot
from . import undo
from .data import NetworkData
from .files import GuestFiles, carry_out, is_needed
from .live import LiveNetwork, Standing
from .renderer import Change, Renderer

APPLY_SECONDS = 25.0
"""Seconds for all of it, going back included: hosts of the existing clouds wait 30 s for an answer."""

_FORWARD_SECONDS = APPLY_SECONDS - undo.UNDO_SECONDS
"""Seconds after which the new configuration must be active; what remains is for going back."""


@dataclass(frozen=True)
class Applied:
    """What was done. changed: the files that were written or removed.

    seen: how many static addresses were seen to stand; None where nothing runs, so that only files were changed.
    """

    changed: tuple[str, ...]
    seen: int | None


def apply(system: System, renderer: Renderer, data: NetworkData, *, also: Sequence[Change] = ()) -> Applied:
    """Configure these interfaces of the guest.

    also: further files that belong to the change. Programs are run also when no file has to change: whoever asks for
    the network wants it to work, and a file may have been changed without becoming active.

    Nothing was changed when it is Refused: `no_such_interface` or `ambiguous_interface` when not exactly one has the
    MAC address, `bad_network_data` when the stack cannot express it, `network_undo_pending` when an earlier change is
    not yet put back, or a path is not what it should be. Unsupported (`names_unknown`) for a guest that does not run,
    when its stack's files need the interfaces' names. Failed (`network_failed`) when something went wrong and the old
    configuration is back; Failed (`network_lost`) when it is not, or not all of it.
    """
    names = _names(system, renderer, data)
    deadline = time.monotonic() + _FORWARD_SECONDS
    wanted = {change.path: change for change in (*renderer.render(data, names, GuestFiles(system.root)), *also)}
    present = {path: take_snapshot(system.root, path) for path in wanted}
    changes = [change for path, change in wanted.items() if is_needed(change, present[path])]
    record = undo.Undo(renderer.name, data, tuple(present[change.path] for change in changes))
    activation = [] if system.live is None else renderer.activation(data, names)
    before = _permanent(system.live, data)
    undo.keep(system.root, record)
    began = False
    try:
        _write(system.root, changes, present)
        began = True
        seen = None if system.live is None else _activate(system.live, activation, data, deadline)
        undo.forget(system.root)
    except BaseException as error:
        try:
            # What was never made active need not be made so again.
            undo.restore(system, record, activation if began else (), before if began else ())
        except (Refused, Failed) as lost:
            raise Failed("network_lost", f"{_words(error)}; and {lost}") from None
        if isinstance(error, Unsuccessful):
            raise Failed("network_failed", f"{error}; the old configuration is back") from None
        raise
    return Applied(tuple(change.path.text for change in changes), seen)


def _names(system: System, renderer: Renderer, data: NetworkData) -> Mapping[str, str]:
    """The name of each MAC address that one interface has alone."""
    found = system.interface_names()
    for mac in [interface.mac for interface in data.interfaces]:
        names = found.get(mac, ())
        if len(names) > 1:
            raise Refused("ambiguous_interface", f"{', '.join(names)} have the MAC address {mac}")
        if not names and system.live is not None:
            raise Refused("no_such_interface", f"this guest has no interface with the MAC address {mac}")
        if not names and renderer.needs_names:
            raise Unsupported(
                "names_unknown",
                f"files of {renderer.name} name the interfaces, and nothing runs that tells the name of {mac}",
            )
    return {mac: names[0] for mac, names in found.items() if len(names) == 1}


def _permanent(live: LiveNetwork | None, data: NetworkData) -> Collection[Standing]:
    """What must be there again if the old configuration is put back."""
    macs = {interface.mac for interface in data.interfaces}
    return [] if live is None else [standing for standing in live.permanent_addresses() if standing[0] in macs]


def _write(root: str, changes: Sequence[Change], present: Mapping[GuestPath, Snapshot]) -> None:
    for change in changes:
        try:
            carry_out(root, change, present[change.path])
        except (Refused, Failed) as error:
            raise Failed("network_failed", f"{change.path.text} cannot be written: {error}") from None


def _activate(live: LiveNetwork, activation: Sequence[Sequence[str]], data: NetworkData, deadline: float) -> int:
    """Returns how many static addresses stand, which is all of them."""
    for arguments in activation:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise Failed("network_failed", f"no time was left for {arguments[0]}")
        try:
            live.run(arguments, remaining)
        except (Failed, Unknown, Unsupported) as error:
            raise Failed("network_failed", f"the files cannot be made active: {error}") from None
    wanted = [(interface.mac, address) for interface in data.interfaces for address in interface.addresses]
    missing = live.wait_for(wanted, deadline)
    if missing:
        raise Failed("network_failed", f"the files are active, but {undo.addresses_text(missing)} does not come up")
    return len(wanted)


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, Unsuccessful) else "the agent met an error of its own"
