"""A host of a simulated pool as a machine: what carries its domains, where its API listens, whether it has power."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Callable, NamedTuple

from . import local_api
from .database import Database
from .guest_watch import GuestWatch
from .http import Handler, HttpServer, Protocol
from .hypervisor import Hypervisor
from .local_api import LocalServer
from .state_directory import Machine
from .tls import HostCertificates


class Front(NamedTuple):
    """What a host answers over HTTP: remote calls by path, other requests by method and path.

    local: remote calls of dom0's own programs, over its socket.
    """

    protocols: Mapping[str, Protocol]
    handlers: Mapping[tuple[str, str], Handler]
    local: Mapping[str, Protocol]


class Host:
    """One machine of the pool.

    machine: its name, and its ports: as of Settings for the one of `url`, 0 for any that is free; after the first start
    they stay. directory: for its certificates and what stands for its dom0. front: makes what it answers, once it has
    power.

    ref: its reference in the database, empty until it has one. is_up: whether it has power. is_lost: whether it has
    power, but no coordinator. starts: how often it was given power. local_sessions: logins to the host itself, which
    are in no database. certificates: what it shows once started, None without TLS.
    """

    guests: GuestWatch
    """Follows what its guests write into its XenStore, while it has power."""

    def __init__(
        self,
        machine: Machine,
        directory: Path,
        hypervisor: Hypervisor,
        front: Callable[[Host], Front],
        *,
        with_tls: bool = False,
    ) -> None:
        self.name = machine.name
        self.hypervisor = hypervisor
        self.ref = ""
        self.is_up = False
        self.is_lost = False
        self.starts = 0
        self.local_sessions: set[str] = set()
        self.certificates: HostCertificates | None = None
        self._directory = directory
        self._front = front
        self._with_tls = with_tls
        self._number = machine.number
        self._port = machine.port
        self._plain_port = machine.plain_port if with_tls else machine.port
        self._https: HttpServer | None = None
        self._http: HttpServer | None = None
        self._local: LocalServer | None = None
        self._is_listening = False

    @property
    def url(self) -> str:
        """Where its API is, once started: HTTPS if that is served, plain HTTP otherwise."""
        return f"https://127.0.0.1:{self._port}" if self._with_tls else self.plain_url

    @property
    def plain_url(self) -> str:
        """Where its API is without TLS, once started."""
        return f"http://127.0.0.1:{self._plain_port}"

    @property
    def address(self) -> str:
        """Its `url` without the scheme, as `host.address` has it."""
        return self.url.partition("://")[2]

    @property
    def machine(self) -> Machine:
        """What it keeps over a restart, once started."""
        ports = (self._port, self._plain_port) if self._with_tls else (self._plain_port, 0)
        return Machine(self._number, self.name, *ports)

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the certificate, such as `0A:1B:…`, once started; None without TLS."""
        return None if self.certificates is None else self.certificates.shown().fingerprint

    @property
    def servers(self) -> list[HttpServer]:
        """What listens at its ports and in its dom0, while it has power."""
        return [server for server in (self._https, self._http, self._local) if server is not None]

    def start(self, database: Database) -> None:
        """Give it power: its XenStore and its ports are there when this returns, but nothing is answered yet.

        OSError when a port is taken or a directory cannot be made, ValueError when a path is too long for sockets.
        """
        self.starts += 1
        self._directory.mkdir(exist_ok=True)
        local_api.lay_out(self._directory / local_api.DIRECTORY)
        self.hypervisor.start()
        self.guests = GuestWatch(database, self.hypervisor.socket)
        front = self._front(self)
        if self._with_tls:
            self.certificates = HostCertificates(self._directory, self.name)
            self._https = HttpServer(self._port, front.protocols, front.handlers, tls=self.certificates.context())
            self._port = self._https.server_address[1]
        self._http = HttpServer(self._plain_port, front.protocols, front.handlers)
        self._plain_port = self._http.server_address[1]
        self._local = LocalServer(self._directory / local_api.DIRECTORY / local_api.SOCKET_NAME, front.local)
        self.is_up = True

    def listen(self) -> None:
        """Answer from now on."""
        self._is_listening = True
        for server in self.servers:
            server.start()

    def hang_up(self) -> None:
        """Answer nothing more, and cut all connections."""
        for server in self.servers:
            if self._is_listening:
                server.stop()
            else:
                server.server_close()
        self._https = self._http = self._local = None
        self._is_listening = False

    def stop(self, clean: bool = True) -> None:
        """Take its power away. clean: guests and plugins may end by themselves; otherwise in the middle of what they
        do. Nothing is left of its XenStore."""
        self.is_up = False
        self.local_sessions.clear()
        self.hang_up()
        self.hypervisor.stop(clean)
