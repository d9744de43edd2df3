"""A RabbitMQ of a test's own."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import amqp  # type: ignore[import-untyped]

from .authority import Authority
from .contained import INSIDE, own_file
from .server import Server, free_port, program

_SETTINGS = """\
load_definitions = {inside}/definitions.json
loopback_users = none
log.console.level = error
"""

_PLAIN = "listeners.tcp.local = 127.0.0.1:{port}\n"

_TLS = """\
listeners.tcp = none
listeners.ssl.local = 127.0.0.1:{port}
ssl_options.cacertfile = {inside}/authority.pem
ssl_options.certfile = {inside}/server.pem
ssl_options.keyfile = {inside}/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = {certificates}
"""

_SMALL = "+S 1:1 +SDio 1"
"""One scheduler. With it and tables of a test's size Erlang starts in six seconds instead of twelve."""

TRACE = "amq.rabbitmq.trace"
"""RabbitMQ's own exchange for copies of all messages, those of the default exchange too. Its keys are
`publish.<exchange>` and `deliver.<queue>`."""

_TIMEOUT = 5.0


class RabbitMQ(Server):
    """A user with a random password, and the virtual host `xenward`, where it may do everything.

    tls: whether it listens for TLS, and for nothing else. client_certificates: whether clients need one.
    trace: whether the exchange TRACE gets a copy of each message, as it was published and as it was delivered.
    ca_file, client_certificate, client_key: with tls, the PEM files that clients need; empty otherwise.
    """

    user = "rabbitmq"
    package = "rabbitmq-server"

    def __init__(
        self, directory: Path, *, tls: bool = False, client_certificates: bool = False, trace: bool = False
    ) -> None:
        super().__init__(directory)
        # Clustering is not wanted, but a node has no queues without its network.
        self._erlang_ports = (free_port(), free_port())
        self.username = "xenward"
        self.password = secrets.token_hex(16)
        self.virtual_host = "xenward"
        self.ca_file = self.client_certificate = self.client_key = ""
        own_file(self._directory / "definitions.json", json.dumps(self._definitions()))
        own_file(self._directory / ".erlang.cookie", secrets.token_hex(16))
        (self._directory / ".erlang.cookie").chmod(0o400)
        own_file(self._directory / "enabled_plugins", "[].\n")
        traced = f'<<"{self.virtual_host}">>' if trace else ""
        own_file(self._directory / "advanced.config", f"[{{rabbit, [{{trace_vhosts, [{traced}]}}]}}].\n")
        settings = _SETTINGS + (_TLS if tls else _PLAIN)
        certificates = str(client_certificates).lower()
        own_file(
            self._directory / "rabbitmq.conf",
            settings.format(inside=INSIDE, port=self.port, certificates=certificates),
        )
        if tls:
            self._make_certificates(directory)
        self.start()

    @property
    def url(self) -> str:
        """oslo.messaging's transport URL."""
        return f"rabbit://{self.username}:{self.password}@127.0.0.1:{self.port}/{self.virtual_host}"

    def connect(self) -> Any:
        """An AMQP connection of its own (amqp.Connection), to be closed."""
        verified = {
            "ca_certs": self.ca_file,
            "certfile": self.client_certificate,
            "keyfile": self.client_key,
            "cert_reqs": ssl.CERT_REQUIRED,
            "server_hostname": "127.0.0.1",
        }
        connection = amqp.Connection(
            f"127.0.0.1:{self.port}",
            self.username,
            self.password,
            virtual_host=self.virtual_host,
            ssl=verified if self.ca_file else False,
            connect_timeout=_TIMEOUT,
            read_timeout=_TIMEOUT,
            write_timeout=_TIMEOUT,
        )
        connection.connect()
        return connection

    def _command(self) -> Sequence[str]:
        return [program(self.package, "usr/lib/rabbitmq/bin/rabbitmq-server")]

    def _environment(self) -> Mapping[str, str]:
        address, node = self._erlang_ports
        return {
            "HOME": str(INSIDE),
            # Otherwise this machine's own settings are read.
            "RABBITMQ_CONF_ENV_FILE": f"{INSIDE}/none",
            "RABBITMQ_CONFIG_FILE": f"{INSIDE}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{INSIDE}/advanced.config",
            "RABBITMQ_CONFIG_FILES": f"{INSIDE}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{INSIDE}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{INSIDE}/data",
            "RABBITMQ_LOG_BASE": str(INSIDE),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{INSIDE}/pid",
            "RABBITMQ_NODENAME": f"private-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(node),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel inet_dist_use_interface {{127,0,0,1}} {_SMALL}",
            "RABBITMQ_MAX_NUMBER_OF_PROCESSES": "32768",
            "ERL_MAX_PORTS": "1024",
            "ERL_EPMD_PORT": str(address),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # Lets the script become the server, instead of starting it and waiting.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _log_in(self) -> None:
        self.connect().close()

    def _definitions(self) -> dict[str, Any]:
        salt = secrets.token_bytes(4)
        hashed = base64.b64encode(salt + hashlib.sha256(salt + self.password.encode()).digest()).decode()
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        return {
            "vhosts": [{"name": self.virtual_host}],
            "users": [
                {
                    "name": self.username,
                    "password_hash": hashed,
                    "hashing_algorithm": "rabbit_password_hashing_sha256",
                    "tags": "",
                }
            ],
            "permissions": [{"user": self.username, "vhost": self.virtual_host, **everything}],
        }

    def _make_certificates(self, directory: Path) -> None:
        (directory / "certificates").mkdir()
        authority = Authority(directory / "certificates")
        server, client = authority.server("127.0.0.1"), authority.client()
        for file in (authority.file, *server):
            own_file(self._directory / file.name, file.read_bytes())
        self.ca_file = str(authority.file)
        self.client_certificate, self.client_key = map(str, client)


@contextmanager
def private_rabbitmq(
    directory: Path, *, tls: bool = False, client_certificates: bool = False, trace: bool = False
) -> Iterator[RabbitMQ]:
    """A running RabbitMQ that is gone after the block. directory: an empty one. LabError when it cannot be had."""
    server = RabbitMQ(directory, tls=tls, client_certificates=client_certificates, trace=trace)
    try:
        yield server
    finally:
        server.kill()
