"""A guest that the tests steer: through the driver's parts and the dom0 plugin, or with their own hands in XenStore."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agent_protocol.frames import FRAMES
from agent_protocol.messages import ADVERT, CLAIMS, REPLIES, REQUESTS, Password, new_request_id
from agent_protocol.sealed import SealedResult
from agent_protocol.xenstore import Client, StoreError
from compute_driver.agents import AgentsInMemory
from compute_driver.files import InjectedFile
from compute_driver.xenapi.agents.agent import GuestAgents
from compute_driver.xenapi.agents.conversation import converse
from compute_driver.xenapi.agents.plugin import Plugin
from compute_driver.xenapi.agents.sealed_agent import SealedAgents
from compute_driver.xenapi.connection.session import Connection, XenServer
from compute_driver.xenapi.guests import vms
from tests.contract.environments import children
from tests.contract.house import House
from tests.contract.inside import Inside, password_opens

SECONDS = 240.0
"""For anything: real guests are emulated."""


@dataclass(frozen=True)
class _Instance:
    """What the driver's parts need to find a VM."""

    uuid: str
    display_name: str = "web"
    memory_mb: int = 64
    vcpus: int = 1
    root_gb: int = 1


class Guest:
    """An instance that runs. Use it as `with Guest.of(…) as guest:`."""

    def __init__(self, home: House, inside: Inside, instance: str, server: XenServer) -> None:
        self.home = home
        self.inside = inside
        self.instance = instance
        self.server = server
        self._memory = AgentsInMemory()
        self._plugin = Plugin(server)
        self._sealed = SealedAgents(self._plugin, self._memory)

    @classmethod
    @contextmanager
    def of(cls, home: House, inside: Inside, instance: str) -> Iterator[Guest]:
        """One of a house."""
        simulator = home.simulator
        server = XenServer(Connection(simulator.url, simulator.username, simulator.password, timeout=SECONDS))
        try:
            yield cls(home, inside, instance, server)
        finally:
            server.close()

    @property
    def vm(self) -> vms.VM:
        """As XenServer describes it now."""
        return vms.find(self.server, _Instance(self.instance))

    @property
    def domid(self) -> int:
        """Of its present domain."""
        return int(self.server.call("VM.get_domid", self.vm.ref))

    def call(self, method: str, *arguments: Any) -> Any:
        """An operation of XenServer on the VM."""
        return self.server.call(method, self.vm.ref, *arguments, timeout=SECONDS)

    def agents(self, policy: str = "sealed") -> GuestAgents:
        """The driver's part for agents. It remembers this guest's only where it is not to speak the old protocol."""
        memory = AgentsInMemory() if policy == "legacy" else self._memory
        return GuestAgents(self.server, memory, policy=policy, timeout=SECONDS, boot_timeout=SECONDS)

    def ask(self, name: str, **members: Any) -> SealedResult:
        """Have the agent carry out a sealed command; raises what it ends with."""
        vm, value = self.vm, json.dumps(members) if members else ""
        if self._memory.recall(self.instance) is None:
            assert self._sealed.meet(vm, timeout=SECONDS) is not None
        return converse(self._plugin, vm, SECONDS, lambda talk: self._sealed.command(talk, name, value))

    def set_password(self, password: str, policy: str = "sealed") -> None:
        """As the driver does."""
        self.agents(policy).set_password(self.vm, Password(password))

    def put(self, path: str, content: bytes, mode: int | None = None, owner: str | None = None) -> None:
        """Put a file as the driver does."""
        self.agents().put_file(self.vm, InjectedFile(path, content, mode, owner))

    def identity(self) -> bytes:
        """Of the agent that tells about itself now. IdentityChanged when it was another one before."""
        agent = self._sealed.meet(self.vm, timeout=SECONDS)
        assert agent is not None
        assert agent.identity is not None
        return agent.identity

    @contextmanager
    def channel(self) -> Iterator[Channel]:
        """The host's end of its present domain's XenStore."""
        with self.home.store() as store:
            channel = Channel(store, self.domid)
            channel.await_agent()
            yield channel


class Channel:
    """Writes requests, and waits for nodes to change."""

    def __init__(self, store: Client, domid: int) -> None:
        self.store = store
        self._home = f"/local/domain/{domid}"
        store.watch(f"{self._home}/data", "data")

    def children(self, directory: str) -> list[str]:
        """The names below a node of the guest."""
        return children(self.store, f"{self._home}/{directory}")

    def read(self, path: str) -> bytes | None:
        """A node of the guest, None when it is missing."""
        try:
            return self.store.read(f"{self._home}/{path}")
        except StoreError as error:
            assert error.code == "ENOENT", error
            return None

    def write(self, path: str, value: bytes) -> None:
        """Write a node of the guest."""
        self.store.write(f"{self._home}/{path}", value)

    def send(self, value: bytes, request_id: str | None = None) -> str:
        """Write a request; its id."""
        request_id = request_id or new_request_id()
        self.write(f"{REQUESTS}/{request_id}", value)
        return request_id

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Until `ready`, looking again whenever something below the guest's data changes."""
        deadline = time.monotonic() + SECONDS
        while not ready():
            remaining = deadline - time.monotonic()
            assert remaining > 0, f"waited in vain for {what}"
            self.store.next_event(remaining)

    def reply(self, request_id: str) -> dict[str, Any]:
        """The reply to a request, read and removed when the agent has cleared request and claim away."""
        self.wait(lambda: self.read(f"{REPLIES}/{request_id}") is not None, "a reply")
        self.wait(lambda: request_id not in self.children(REQUESTS) + self.children(CLAIMS), "request and claim to go")
        value = self.read(f"{REPLIES}/{request_id}")
        assert value is not None
        self.store.remove(f"{self._home}/{REPLIES}/{request_id}")
        reply = json.loads(value)
        assert isinstance(reply, dict)
        return reply

    def ask(self, name: str, value: str = "") -> dict[str, Any]:
        """A request in the clear, and its reply."""
        return self.reply(self.send(request(name, value)))

    def await_agent(self) -> None:
        """Until the agent tells about itself."""
        self.wait(lambda: self.read(ADVERT) is not None, "the advert")

    def assert_nothing_left(self) -> None:
        """No request, no reply, no claim, no frame: once the agent has answered one more request, it is done."""
        assert self.ask("version")["returncode"] == "0"
        assert [self.children(where) for where in (REQUESTS, REPLIES, CLAIMS, FRAMES)] == [[], [], [], []]


def request(name: str, value: str = "") -> bytes:
    """A request in the clear."""
    return json.dumps({"name": name, "value": value}).encode()


def assert_serves(guest: Guest, password: str, *others: int) -> None:
    """The agent tells about itself in the present domain, and changes the guest's own /etc/shadow.

    others: domids that run beside it; no trace of any other domain is left.
    """
    with guest.channel() as channel:
        assert json.loads(channel.read(ADVERT) or b"")["version"]
        guest.set_password(password)
        channel.assert_nothing_left()
        running = {"0", str(guest.domid), *map(str, others)}
        assert set(channel.store.directory("/local/domain")) == running
    assert password_opens(guest.inside, "root", password)
