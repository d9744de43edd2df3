"""Who the agent is to its hosts: the VM that it runs in, its identity and keys there, and the advert that tells them.

All of it outlives a connection to the store: hosts that know the agent's key go on with it. Only a guest that is
another VM by now, because it was copied while it ran, takes on another identity.
"""

from __future__ import annotations

import logging

from agent_protocol.messages import ADVERT, Advert, encode_advert

from .commands import Commands, Context, features
from .identity import own_identity
from .nodes import Nodes
from .sealed import SealedRequests

_OLD_FORM = "-"
"""Stands for the key in an advert that names none."""

_log = logging.getLogger(__name__)


class Presence:
    """The agent as hosts see it.

    sealed: what opens sealed requests; None while the store does not tell which VM this is.
    """

    def __init__(self, commands: Commands, sealed_commands: Commands, context: Context) -> None:
        self.sealed: SealedRequests | None = None
        self._commands = commands
        self._sealed_commands = sealed_commands
        self._context = context
        self._vm: str | None = None
        self._known = False
        self._advertised = ""  # the key that the advert names

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
        context = self._context
        context.vm = vm or ""
        if vm is None:
            _log.warning("the store does not tell which VM this is: only the old protocol is served")
            context.features = features(self._commands)
            self.sealed = None
            return
        context.features = features(self._commands, self._sealed_commands)
        identity = own_identity(context.system.root, vm)
        _log.info("VM %s, %r, version %s, %d commands", vm, identity, context.version, len(context.features))
        self.sealed = SealedRequests(identity, self._sealed_commands, context)

    def seconds_until_renewal(self) -> float | None:
        """For how long the agent may sleep before it calls advertise; None: for ever."""
        return None if self.sealed is None else self.sealed.seconds_until_rotation()

    def advertise(self, nodes: Nodes) -> None:
        """Write the advert, unless it names the current key. StoreError or MessageError when it cannot be written."""
        if self.sealed is not None:
            self.sealed.rotate_if_old()
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
