"""The running Windows."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from agent_protocol.messages import Password
from agent_protocol.outcomes import Unsuccessful

from .. import base
from ..accounts import PasswordHash, User
from ..distributions import Distribution
from . import accounts, activation, files, hostname, information, places, private, win32
from .api import Windows
from .errors import failures

if TYPE_CHECKING:
    from ...commands import Context
    from ...configuration import Configuration
    from ...network.apply import Applied
    from ...network.data import NetworkData
    from ..authorized_keys import AuthorizedKey
    from ..cloud_init import CloudInit
    from ..hostname import HostName
    from .network_model import WindowsNetwork

_log = logging.getLogger(__name__)


class WindowsSystem(base.System):
    """The system that the agent itself runs on.

    windows: the calls of the system; None for the real ones. network: its network; None for the one that runs.
    """

    root = "/"
    configuration_name = places.CONFIGURATION_FILE
    lacks = frozenset({"freeze", "thaw", "agent_update", "agentupdate", "ssh_keys"})

    def __init__(self, windows: Windows | None = None, network: WindowsNetwork | None = None) -> None:
        self._windows = win32.windows() if windows is None else windows
        self._network = network
        with failures():
            self._private = private.PrivateFiles(self._windows.files, self._windows.accounts.own_sid())
        self._state = private.StateDirectory(self._private, places.DIRECTORY, places.STATE_DIRECTORY)

    @property
    def administrator(self) -> str:  # type: ignore[override]  # it can be renamed while the agent runs
        """The name of the account with the RID 500, as of now. Failed (`administrator_unknown`)."""
        return accounts.administrator(self._windows.accounts)

    def hold(self) -> None:
        """Nothing to do: the service manager runs one process of a service, and nothing else starts the agent."""

    def prepare(self, context: Context) -> None:
        """Put back a network that was half changed."""
        del context
        from . import network

        try:
            network.recover(self._running_network(), self)
        except Unsuccessful as error:
            _log.error("the network cannot be looked at: %s", error)

    def read_configuration(self) -> bytes | None:
        """From %ProgramData%, where it must be safe from others: Refused (`unsafe_directory`, `unsafe_file`)."""
        if not self._private.secure_directory(places.DIRECTORY, make=False):
            return None
        return self._private.read(places.CONFIGURATION_FILE)

    def read_state(self, name: str) -> bytes | None:
        """As private.StateDirectory."""
        return self._state.read(name)

    def write_state(self, name: str, content: bytes) -> None:
        """As private.StateDirectory."""
        self._state.write(name, content)

    def remove_state(self, name: str) -> None:
        """Remove a file of the agent's own, if it is there."""
        self._state.remove(name)

    def boot_id(self) -> str:
        """As information.boot_id."""
        return information.boot_id(self._windows.machine)

    def release(self) -> Mapping[str, str]:
        """As information.release."""
        return information.release(self._windows.machine, self._windows.registry)

    def distribution(self) -> Distribution:
        """As information.distribution."""
        return information.distribution(self._windows.machine)

    def kernel(self) -> str:
        """As information.kernel."""
        return information.kernel(self._windows.machine, self._windows.registry)

    def cloud_init(self) -> CloudInit:
        """There is none."""
        from ..cloud_init import CloudInit

        return CloudInit()

    def reboot_pending(self) -> bool:
        """As hostname.reboot_pending."""
        return hostname.reboot_pending(self._windows.registry)

    def hostname(self) -> str:
        """The DNS host name that is in use, without domain."""
        return hostname.hostname(self._windows.machine)

    def set_hostname(self, name: HostName) -> None:
        """As hostname.set_hostname: from the next boot on."""
        hostname.set_hostname(self._windows.machine, self._windows.registry, name)

    def interface_names(self) -> Mapping[str, Sequence[str]]:
        """As information.interface_names."""
        return information.interface_names(self._windows.machine)

    def addresses(self) -> Sequence[Mapping[str, str]]:
        """As information.addresses."""
        return information.addresses(self._windows.machine)

    def network_stack_name(self, configuration: Configuration) -> str:
        """There is one only."""
        del configuration
        return "windows"

    def apply_network(self, data: NetworkData, configuration: Configuration) -> Applied:
        """As network.apply_network."""
        del configuration
        # Only here: most guests are asked once in their life or never, and the agent waits with less memory.
        from . import network

        return network.apply_network(self._running_network(), data, self)

    def _running_network(self) -> WindowsNetwork:
        if self._network is None:
            self._network = win32.running_network(self._windows)
        return self._network

    def find_user(self, name: str) -> User:
        """A local account."""
        with failures():
            drive = self._windows.machine.system_directory().partition("\\")[0]
        return accounts.find_user(self._windows.accounts, self._windows.registry, name, drive)

    def minimum_password_length(self) -> int:
        """By the policy of local accounts."""
        return accounts.minimum_password_length(self._windows.accounts)

    def set_password(self, user: str, password: Password | PasswordHash, *, expire: bool = False) -> None:
        """As accounts.set_password."""
        accounts.set_password(self._windows.accounts, user, password, expire=expire)

    def put_file(self, path: str, content: bytes, *, mode: int | None, owner: tuple[str, str | None] | None) -> None:
        """As files.put_file."""
        files.put_file(self._windows.files, self._windows.accounts, path, content, mode=mode, owner=owner)

    def change_ssh_keys(
        self, user: str, add: Sequence[AuthorizedKey], remove: Collection[AuthorizedKey]
    ) -> tuple[int, int]:
        """Unsupported: OpenSSH for Windows is a part that many guests lack, and its keys are in places of its own."""
        del user, add, remove
        raise base.not_on_this_system("ssh_keys")

    def activate(self, server: str | None) -> str:
        """As activation.activate."""
        return activation.activate(self._windows.machine, self._windows.run, server)
