"""The existing clouds' agents, with their ways, as processes that a simulated guest runs in place of ours.

    python rackspace_agents.py SOCKET ROOT unix|windows POLL

unix     nova-agent: polls; answers every unknown command with success; one bad request kills it and stays queued;
         key derivation with MD5 only; the key is wiped only after a success
windows  the C# agent: a timer; ids that are no UUIDs are passed over; return codes as numbers or strings; messages
         end with an escaped line break; decrypts without padding, as ASCII, up to the first line break; "1" for
         unknown commands; an unforeseen error leaves the request unanswered, to be tried again for ever

POLL is in seconds: 10 for the real nova-agent, 6 for the Windows agent. A file `poll` in ROOT overrides it.
What they did stands in ROOT: etc/shadow, files, and for Windows `administrator-password`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Union

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from passlib.hash import sha512_crypt

from agent_protocol.xenstore import Client, StoreError, connect

PRIME = 162259276829213363391578010288127
GENERATOR = 5
SUCCESS = "0"

Answer = tuple[Union[str, int], str]
"""Return code and message."""


class Key:
    """What keyinit agreed on. It stays until somebody wipes it."""

    def __init__(self) -> None:
        self.shared: int | None = None

    def agree(self, host_public: str) -> str:
        private = secrets.randbits(600)
        self.shared = pow(int(host_public), private, PRIME)
        return str(pow(GENERATOR, private, PRIME))

    def decrypt(self, value: str) -> bytes:
        assert self.shared is not None
        secret = str(self.shared).encode()
        key = hashlib.md5(secret).digest()
        iv = hashlib.md5(key + secret).digest()
        decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
        return decryptor.update(base64.b64decode(value)) + decryptor.finalize()


class UnixAgent:
    """Rackspace's nova-agent 2.1.25."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._key = Key()
        self._commands: dict[str, Callable[[str], Answer]] = {
            "version": lambda value: (SUCCESS, "2.1.25"),
            "features": lambda value: (SUCCESS, "version,features,keyinit,password,resetnetwork,injectfile"),
            "keyinit": lambda value: ("D0", self._key.agree(value)),
            "password": self._password,
            "injectfile": self._injectfile,
            "resetnetwork": lambda value: (SUCCESS, ""),
        }

    def takes(self, name: str) -> bool:
        return True

    def answer(self, request: bytes) -> str:
        # No handler: what is no JSON, or has no name, ends the process.
        command = json.loads(request)
        returncode, message = self._commands.get(command["name"], lambda value: (SUCCESS, ""))(command["value"])
        return json.dumps({"returncode": returncode, "message": message})

    def _password(self, value: str) -> Answer:
        if self._key.shared is None:
            return "500", "No key: keyinit must come first"
        padded = self._key.decrypt(value)
        size = padded[-1]
        if not 1 <= size <= 16 or padded[-size:] != bytes([size]) * size:
            return "500", "Error: could not decrypt"
        password = padded[:-size].decode().strip()
        shadow = self._root / "etc/shadow"
        lines = shadow.read_text().splitlines()
        hashed = sha512_crypt.using(rounds=1000).hash(password)
        shadow.write_text("\n".join(re.sub("^root:[^:]*", f"root:{hashed}", line) for line in lines) + "\n")
        self._key.shared = None
        return SUCCESS, ""

    def _injectfile(self, value: str) -> Answer:
        path, content = base64.b64decode(value).decode("utf-8").split(",", 1)
        target = self._root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
        return SUCCESS, ""


class WindowsAgent:
    """Rackspace's C# agent."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._key = Key()
        self._commands: dict[str, Callable[[str], Answer]] = {
            "version": lambda value: (SUCCESS, "1.3.2.0"),
            "features": lambda value: (
                SUCCESS,
                "version,password,ready,resetnetwork,agentupdate,xentoolsupdate,kmsactivate,keyinit,injectfile,features,"
                "unrescue,updaterupdate",
            ),
            "keyinit": lambda value: ("D0", self._key.agree(value)),
            "password": self._password,
            "injectfile": self._injectfile,
            "resetnetwork": lambda value: (0, ""),
        }

    def takes(self, name: str) -> bool:
        try:
            uuid.UUID(name)
        except ValueError:
            return False
        return True

    def answer(self, request: bytes) -> str | None:
        try:
            command = json.loads(request)
            known = self._commands.get(command["name"])
            returncode, message = ("1", "Unknown command") if known is None else known(command["value"])
        except Exception:
            return None
        return json.dumps({"returncode": returncode, "message": message + "\\r\\n"})

    def _password(self, value: str) -> Answer:
        if self._key.shared is None:
            return 1, "No key"
        text = self._key.decrypt(value).decode("ascii", "replace").replace("\ufffd", "?").split("\n")[0]
        (self._root / "administrator-password").write_text(text)
        self._key.shared = None
        return 0, ""

    def _injectfile(self, value: str) -> Answer:
        path, content = base64.b64decode(value).decode("ascii").split(",", 1)
        if path[-1].isdigit():
            return "1", "Invalid file path"
        target = self._root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="ascii")
        return SUCCESS, ""


def waiting(store: Client) -> Iterator[tuple[str, bytes]]:
    """Ids and values of the requests."""
    try:
        names = store.directory("data/host")
    except StoreError:
        return
    for name in names:
        try:
            yield name, store.read(f"data/host/{name}")
        except StoreError:
            continue


def serve(store: Client, agent: UnixAgent | WindowsAgent, poll: Callable[[], float]) -> None:
    while True:
        for name, request in waiting(store):
            reply = agent.answer(request) if agent.takes(name) else None
            if reply is not None:
                store.write(f"data/guest/{name}", reply.encode())
                store.remove(f"data/host/{name}")
        time.sleep(poll())


def main(socket: str, root: str, kind: str, poll: str) -> None:
    override = Path(root) / "poll"
    agent = (UnixAgent if kind == "unix" else WindowsAgent)(Path(root))
    serve(connect(socket), agent, lambda: float(override.read_text()) if override.exists() else float(poll))


def agent_command(kind: str, poll: float = 0.5) -> tuple[str, str]:
    """Options of the simulator that run such an agent in its guests."""
    return "--agent-command", json.dumps([sys.executable, __file__, "{socket}", "{root}", kind, str(poll)])


if __name__ == "__main__":
    main(*sys.argv[1:])
