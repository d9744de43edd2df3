"""Who the agent is to its hosts: the VM that it runs in, its identity and keys there, and the advert that tells them.

All of it outlives a connection to the store: hosts that know the agent's key go on with it. Only a guest that is
another VM by now, because it was copied while it ran, takes on another identity.
"""

from __future__ import annotations

import logging

from agent_protocol.messages import ADVERT, Advert, encode_advert
from agent_protocol.outcomes import Unsuccessful

from .answers import attempt
from .commands import Commands, Context, features
from .identity import own_identity
from .nodes import Nodes
from .sealed import SealedRequests

RETRY_SECONDS = 60.0
"""Seconds until a key that could not be replaced is tried again."""

_OLD_FORM = "-"
"""Stands for the key in an advert that names none."""

_log = logging.getLogger(__name__)


class Presence:
    """The agent as hosts see it.

    sealed: what opens sealed requests; None while the store does not tell which VM this is, and while cryptography does
    not work. unsealed: then, why not: the answer to sealed requests.
    """

    def __init__(self, commands: Commands, sealed_commands: Commands, context: Context) -> None:
        self.sealed: SealedRequests | None = None
        self.unsealed: Unsuccessful | None = None
        self._commands = commands
        self._sealed_commands = sealed_commands
        self._context = context
        self._vm: str | None = None
        self._known = False
        self._advertised = ""  # the key that the advert names
        self._rotates = True

    def arrive(self, nodes: Nodes) -> None:
        """Begin in a store where no advert stands, and which may be that of another domain than before."""
        self._advertised = ""
        self.look(nodes)

    def look(self, nodes: Nodes) -> None:
        """See which VM this is: a guest that was copied while it ran wakes up as another one."""
        vm = nodes.vm()
        if not self._known or vm != self._vm:
            self._become(vm)
        self._vm, self._known = vm, True

    def _become(self, vm: str | None) -> None:
        """Take on the identity of this VM, or of none."""
        self._advertised = ""
        self._context.vm = vm or ""
        self._context.features = features(self._commands)
        self.sealed = self.unsealed = None
        if vm is None:
            _log.warning("the store does not tell which VM this is: only the old protocol is served")
        else:
            self._take_identity(vm)

    def _take_identity(self, vm: str) -> None:
        """Have sealed requests opened from now on, or know why not: whatever goes wrong, the old protocol is served."""
        made = attempt("-", lambda: self._make_sealed(vm))
        if isinstance(made, Unsuccessful):
            if self.unsealed is None:
                _log.error("sealed requests cannot be served: %s", made)
            self.unsealed = made
            return
        self._advertised = ""
        self.sealed, self.unsealed = made, None

    def _make_sealed(self, vm: str) -> SealedRequests:
        context = self._context
        identity = own_identity(context.system, vm)
        made = SealedRequests(identity, self._sealed_commands, context)
        # Before hosts are told that it can.
        made.try_signing()
        context.features = features(self._commands, self._sealed_commands)
        _log.info("VM %s, %r, version %s, %d commands", vm, identity, context.version, len(context.features))
        return made

    def seconds_until_renewal(self) -> float | None:
        """For how long the agent may sleep before it calls advertise; None: for ever."""
        if self.sealed is None:
            return None
        seconds = self.sealed.seconds_until_rotation()
        return seconds if self._rotates else max(seconds, RETRY_SECONDS)

    def advertise(self, nodes: Nodes) -> None:
        """Write the advert, unless it names the current key. StoreError, or Unsuccessful when it cannot be made."""
        if self.unsealed is not None and self._vm is not None:
            # What was missing may be there by now, and it costs nothing to look.
            self._take_identity(self._vm)
        if self.sealed is not None:
            self._rotates = False
            self.sealed.rotate_if_old()
            self._rotates = True
        key_id = _OLD_FORM if self.sealed is None else self.sealed.key_id
        if self._advertised == key_id:
            return
        if self.sealed is None:
            context = self._context
            value = encode_advert(Advert(context.version, context.system.boot_id(), context.features))
        else:
            value = self.sealed.advert()
        nodes.write(ADVERT, value)
        self._advertised = key_id
