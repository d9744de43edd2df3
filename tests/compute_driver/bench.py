"""A manager to try things on, with a hypervisor in memory below it."""

from __future__ import annotations

import hashlib
import json
import uuid as uuids
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from agent_protocol.messages import Password
from compute_driver.context import RequestContext
from compute_driver.db.records import Action, Instance
from compute_driver.db.repository import Repository
from compute_driver.errors import ImageNotFound
from compute_driver.fake.driver import FakeDriver
from compute_driver.fake.guest import Guest
from compute_driver.fake.nodes import Node
from compute_driver.files import InjectedFile
from compute_driver.images import DiskFormat, Image, NewImage
from compute_driver.manager import ComputeManager
from compute_driver.memory import RepositoryMemory
from compute_driver.network import Interface, NetworkName
from compute_driver.sealing import SealedAnswer, SealedRequest
from compute_driver.states import PowerState, VmState
from compute_driver.volumes import VdiConnection, Volume

CONTEXT = RequestContext("req-1", "ada")
PASSWORD = Password("a Secret-pass 1")
FILE = InjectedFile("/etc/motd", b"secret content")
SECRET = "hunter2-in-a-text"
DEADLINE = 10.0
KEYS = ("ssh-ed25519 AAAA",)
SEALED_VALUE = '{"name":"sealed","value":"{\\"v\\":2,\\"key_id\\":\\"0123456789abcdef\\",\\"box\\":\\"AAAA\\"}"}'
UUID = "11111111-1111-4111-8111-111111111111"
FIRST_NODE, SECOND_NODE = "node-1", "node-2"
IMAGE = "debian"
VOLUME = Volume("volume-1", VdiConnection("22222222-2222-4222-8222-222222222222"))
INTERFACE = Interface("port-1", "00:16:3e:00:00:01", NetworkName("bridge", "xenbr0"), dhcp4=True)


class NoSteps:
    """A Progress that nobody reads."""

    def step(self, name: str) -> AbstractContextManager[None]:
        del name
        return nullcontext()


class _Bytes:
    digest_required = False

    def open(self) -> Any:
        raise AssertionError("the hypervisor in memory reads no images")


@dataclass
class Images:
    """An image service whose images have no bytes. stored: those that came from snapshots."""

    stored: dict[str, Image] = field(default_factory=dict)

    def get(self, image_ref: str) -> Image:
        if image_ref == IMAGE:
            return Image(IMAGE, "Debian", DiskFormat.VHD, _Bytes())
        try:
            return self.stored[image_ref]
        except KeyError:
            raise ImageNotFound(image_ref) from None

    def store(self, new: NewImage, pieces: Iterator[bytes]) -> Image:
        content = b"".join(pieces)
        identity, digest = str(uuids.uuid4()), hashlib.sha256(content).hexdigest()
        self.stored[identity] = Image(identity, new.name, new.disk_format, _Bytes(), digest, len(content))
        return self.stored[identity]

    def delete(self, image_ref: str) -> None:
        self.stored.pop(image_ref, None)


class Hypervisor(FakeDriver):
    """One whose guests' agents read their network data again when they are told to."""

    def reset_network(self, instance: Any) -> None:
        with self.steering.verb("reset_network", {"instance": instance}):
            self._it.access.admit()
            self._it.running(instance)


def hypervisor(repository: Repository, **wanted: Any) -> FakeDriver:
    """One with two nodes, whose agents are remembered in the database. wanted: as of FakeDriver."""
    nodes = Node(FIRST_NODE), Node(SECOND_NODE)
    return Hypervisor(RepositoryMemory(repository), **{"nodes": nodes, **wanted})


@dataclass
class Bench:
    """A manager with its database and hypervisor."""

    repository: Repository
    driver: FakeDriver
    manager: ComputeManager
    images: Images = field(default_factory=Images)

    @classmethod
    def of(cls, repository: Repository, **wanted: Any) -> Bench:
        """wanted: as of ComputeManager."""
        driver, images = hypervisor(repository), Images()
        return cls(repository, driver, ComputeManager(repository, driver, "here", images, **wanted), images)

    def record(self, vm_state: str = "active", *, name: str = "web", host: str = "here", uuid: str = UUID) -> Instance:
        """An instance as if made earlier, of which there is no guest."""
        self.repository.create_instance(
            uuid=uuid, display_name=name, host=host, memory_mb=64, vcpus=1, root_gb=1, image_ref=""
        )
        return self.repository.end_task(uuid, vm_state=vm_state)

    def have(self, vm_state: str = "active", *, name: str = "web", uuid: str = UUID) -> Instance:
        """An instance as if made earlier, with a guest that is as its state says."""
        instance = self.record(vm_state, name=name, uuid=uuid)
        self.driver.spawn(instance, node=FIRST_NODE, interfaces=(), progress=NoSteps())
        _REACHED.get(VmState(vm_state), lambda bench, instance: None)(self, instance)
        info = self.driver.get_info(instance)
        self.driver.steering.clear_calls()
        return self.repository.update_instance(uuid, power_state=info.state, node=info.node)

    def attach(self, instance: Instance) -> None:
        """It has a volume and an interface."""
        self.repository.save_volume(instance.uuid, VOLUME, self.driver.attach_volume(instance, VOLUME))
        self.driver.attach_interface(instance, INTERFACE)
        self.repository.save_interfaces(instance.uuid, [INTERFACE])
        self.driver.steering.clear_calls()

    @property
    def instance(self) -> Instance:
        """The only one, be it deleted."""
        (instance,) = self.repository.list_instances() or [self.repository.get_instance(UUID, include_deleted=True)]
        return instance

    @property
    def guest(self) -> Guest:
        """Its guest."""
        return self.driver.guest(self.instance)

    def action(self) -> Action:
        """The newest action that is no step."""
        return [row for row in self.repository.list_actions() if row.step is None][-1]

    @property
    def asked(self) -> list[str]:
        """The verbs that changed something, or were to."""
        return [
            verb for verb in self.driver.steering.verbs if not verb.startswith(("get_", "check_", "await_", "list"))
        ]

    def create(self, context: RequestContext = CONTEXT, **changes: Any) -> Any:
        wanted: dict[str, Any] = {"display_name": "web", "memory_mb": 64, "vcpus": 1, "root_gb": 1}
        return self.manager.build_and_run_instance(context, **{"admin_password": PASSWORD, **wanted, **changes})

    def seal(self, name: str = "password", value: str | None = None) -> SealedRequest:
        """A command to the guest's agent, as a caller seals it."""
        agent = self.manager.get_agent(CONTEXT, "web", None)
        assert agent is not None
        told = json.dumps({"value": PASSWORD.value}) if value is None else value
        return SealedRequest.seal(agent, agent.guest, name, told, timeout=DEADLINE)

    def send(self, action: str, request: SealedRequest, context: RequestContext = CONTEXT) -> SealedAnswer:
        return self.manager.send_sealed(
            context, "web", action, request_id=request.request_id, value=request.value, box=request.box
        )


def _rescue(bench: Bench, instance: Instance) -> None:
    bench.driver.rescue(instance, image=bench.images.get(IMAGE), rescue_password=None, progress=NoSteps())


def _resize(bench: Bench, instance: Instance) -> None:
    sizes = {f"{age}_{name}": getattr(instance, name) for age in ("old", "new") for name in SIZES}
    wanted = {**sizes, "new_memory_mb": 128, "kind": "resize", "status": "finished"}
    bench.repository.create_migration(instance_uuid=instance.uuid, source_node=FIRST_NODE, **wanted)
    sized = bench.repository.update_instance(instance.uuid, memory_mb=128)
    bench.driver.migrate_disk_and_power_off(sized, progress=NoSteps())
    bench.driver.finish_migration(sized, progress=NoSteps())


SIZES = ("memory_mb", "vcpus", "root_gb")

_REACHED: Mapping[VmState, Callable[[Bench, Instance], None]] = {
    VmState.STOPPED: lambda bench, instance: bench.driver.power_off(instance),
    VmState.PAUSED: lambda bench, instance: bench.driver.pause(instance),
    VmState.SUSPENDED: lambda bench, instance: bench.driver.suspend(instance),
    VmState.RESCUED: _rescue,
    VmState.RESIZED: _resize,
}
"""How a guest that runs gets to be so."""

POWER = {
    VmState.ACTIVE: PowerState.RUNNING,
    VmState.STOPPED: PowerState.SHUTDOWN,
    VmState.PAUSED: PowerState.PAUSED,
    VmState.SUSPENDED: PowerState.SUSPENDED,
}
"""What the guest of an instance at rest is."""
