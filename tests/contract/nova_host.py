"""A host that asks as Nova's last xenapi driver does, with os-xenapi's dom0 plugin: for agents to be tried against.

Its ways are not ours: it polls, it never removes a reply, it encrypts with whatever the program `openssl` does by
default, its private numbers have 80 bits, and it takes 0 and 500 alike for a network that was configured.
"""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import time
import uuid

from agent_protocol.xenstore import Client, StoreError

PRIME = 162259276829213363391578010288127
GENERATOR = 5
EXPONENT_BYTES = 10

SUCCESS = ("0", "D0")


class AgentTimeout(Exception):
    """Raised when no reply came in time."""


class AgentError(Exception):
    """Raised when the agent's answer is an error: args are returncode and message."""


class NovaHost:
    """The host of one domain.

    poll: seconds between two looks at the reply's node. timeout: seconds until it gives up. digest: what the program
    openssl is told to derive the key with; None tells it nothing, as Nova does: MD5 until OpenSSL 1.0, SHA-256 since.
    """

    def __init__(
        self, store: Client, domid: str, *, poll: float = 0.5, timeout: float = 30.0, digest: str | None = None
    ) -> None:
        self._store = store
        self._domain = f"/local/domain/{domid}"
        self._poll = poll
        self._timeout = timeout
        self._digest = digest

    def call(self, name: str, value: str) -> dict[str, object]:
        """Send a request and wait for the reply, which stays where it is."""
        identity = str(uuid.uuid4())
        self._store.write(f"{self._domain}/data/host/{identity}", json.dumps({"name": name, "value": value}).encode())
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            try:
                reply = json.loads(self._store.read(f"{self._domain}/data/guest/{identity}"))
                assert isinstance(reply, dict)
                return reply
            except StoreError as error:
                assert error.code == "ENOENT", error
            time.sleep(self._poll)
        raise AgentTimeout(name)

    def ask(self, name: str, value: str = "") -> str:
        """The message of a reply that is a success."""
        reply = self.call(name, value)
        if str(reply["returncode"]) not in SUCCESS:
            raise AgentError(reply["returncode"], reply["message"])
        return str(reply["message"]).replace("\\r\\n", "")

    def version(self) -> str:
        return self.ask("version", "agent")

    def features(self) -> list[str]:
        return self.ask("features").split(",")

    def set_admin_password(self, password: str) -> None:
        private = int.from_bytes(secrets.token_bytes(EXPONENT_BYTES), "big")
        agent_public = int(self.ask("keyinit", str(pow(GENERATOR, private, PRIME))))
        shared = pow(agent_public, private, PRIME)
        # Old agents need the line's end.
        self.ask("password", self._encrypt(str(shared), password + "\n"))

    def _encrypt(self, shared: str, text: str) -> str:
        command = ["openssl", "aes-128-cbc", "-A", "-a", "-pass", f"pass:{shared}", "-nosalt"]
        if self._digest:
            command += ["-md", self._digest]
        ended = subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=30)
        return ended.stdout.decode().strip("\n")

    def inject_file(self, path: str, contents: bytes) -> None:
        """By the newer command of the two where the agent says that it has it."""
        encoded_path, encoded = base64.b64encode(path.encode()).decode(), base64.b64encode(contents).decode()
        if "file_inject" in self.features():
            self.ask("file_inject", json.dumps({"b64_path": encoded_path, "b64_file": encoded}))
        else:
            self.inject_file_the_old_way(path, contents)

    def inject_file_the_old_way(self, path: str, contents: bytes) -> None:
        self.ask("injectfile", base64.b64encode(path.encode() + b"," + contents).decode())

    def resetnetwork(self) -> bool:
        """Whether the driver goes on: old agents answer 500 to a success."""
        return str(self.call("resetnetwork", "")["returncode"]) in ("0", "500")
