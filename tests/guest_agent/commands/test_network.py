from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.legacy import AgentExchange
from agent_protocol.outcomes import Failed, Outcome, Refused, Unsupported
from agent_protocol.wire import Operation
from agent_protocol.xenstore import StoreError
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context
from guest_agent.configuration import Configuration
from guest_agent.network.configure import CLOUD_INIT_FILE
from guest_agent.network.renderers import RENDERERS
from guest_agent.network.undo import Undo, keep
from guest_agent.nodes import Nodes
from guest_agent.system.cloud_init import says_disabled
from guest_agent.system.directory import DirectorySystem
from guest_agent.system.paths import GuestPath
from guest_agent.system.snapshots import take_snapshot

from ..conftest import Host, agent_in_thread, names
from ..network.standins import ETH0, ETH1, ONE, FileRenderer, RunningDirectory, picture
from ..sealing import SealedHost

VALUE = json.dumps({"interfaces": [{"mac": ETH0, "addresses": ["192.0.2.5/24"], "gateway4": "192.0.2.1"}]})
ENTRY = {
    "label": "public",
    "mac": ETH0,
    "ips": [{"ip": "192.0.2.5", "netmask": "255.255.255.0", "enabled": "1", "gateway": "192.0.2.1"}],
    "gateway": "192.0.2.1",
}


class Stored(Nodes):
    """What the host left in the store."""

    def __init__(self, nodes: dict[str, bytes]) -> None:
        self.left = nodes

    def children(self, path: str) -> list[str]:
        return sorted({node[len(path) + 1 :].partition("/")[0] for node in self.left if node.startswith(path + "/")})

    def read(self, path: str) -> bytes | None:
        return self.left.get(path)


@pytest.fixture
def system(root: Path) -> RunningDirectory:
    (root / "etc/os-release").write_text("ID=debian\n")
    return RunningDirectory(root)


@pytest.fixture
def context(context: Context, system: RunningDirectory, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A guest that runs, with netplan's place taken by a stack that the test can follow."""
    standins = {**RENDERERS, "netplan": FileRenderer(), "standin": FileRenderer()}
    monkeypatch.setattr("guest_agent.network.renderers.RENDERERS", standins)
    context.system = system
    context.configuration = Configuration(network_stack="netplan")
    return context


def leave(context: Context, *, hostname: bytes | None = None, **entries: Any) -> None:
    nodes = {f"vm-data/networking/{name}": json.dumps(entry).encode() for name, entry in entries.items()}
    context.nodes = Stored(nodes if hostname is None else {**nodes, "vm-data/hostname": hostname})


def apply(context: Context, value: str = VALUE) -> dict[str, object]:
    return dict(SEALED_COMMANDS["network_apply"](context, value).data)


def reset(context: Context) -> str:
    return COMMANDS["resetnetwork"](context, "whatever").message


def test_network_apply(context: Context, root: Path, system: RunningDirectory) -> None:
    assert apply(context) == {"stack": "netplan", "changed": ["/etc/net/eth0"], "active": True}
    assert (root / "etc/net/eth0").read_text() == f"{ETH0}\n192.0.2.5/24"
    assert len(system.live.standing) == 1
    assert (
        SEALED_COMMANDS["network_apply"](context, VALUE).message == "files changed: 0; active, static addresses seen: 1"
    )


def test_network_apply_is_not_for_the_clear() -> None:
    assert "network_apply" not in COMMANDS
    assert "resetnetwork" not in SEALED_COMMANDS


@pytest.mark.parametrize("value", ["", "{}", '{"interfaces":[{"mac":"eth0"}]}', " " * 10**6])
def test_bad_data(context: Context, root: Path, value: str) -> None:
    before = picture(root)
    with pytest.raises(Refused):
        apply(context, value)
    assert picture(root) == before


def test_an_unknown_distribution(context: Context, root: Path) -> None:
    context.configuration = Configuration()
    (root / "etc/os-release").write_text("ID=gentoo\n")
    with pytest.raises(Unsupported) as caught:
        apply(context)
    assert caught.value.code == "unknown_distribution"


def test_resetnetwork(context: Context, root: Path) -> None:
    leave(context, hostname=b"web-1", **{"00163E000001": ENTRY})
    assert reset(context) == "files changed: 1; active, static addresses seen: 1; the name is web-1"
    assert (root / "etc/net/eth0").read_text() == f"{ETH0}\n192.0.2.5/24"
    assert (root / "etc/hostname").read_text() == "web-1\n"


def test_resetnetwork_without_data(context: Context, root: Path) -> None:
    before = picture(root)
    leave(context)
    assert reset(context) == "nothing was changed: the host left neither network data nor a name"
    context.nodes = None
    assert reset(context).startswith("nothing was changed")
    assert picture(root) == before


def test_resetnetwork_with_a_name_only(context: Context, system: RunningDirectory) -> None:
    leave(context, hostname=b"web-1\n")
    assert reset(context) == "the name is web-1"
    assert system.live.ran == []


def test_a_bad_name_leaves_the_network_alone(context: Context, root: Path) -> None:
    before = picture(root)
    leave(context, hostname=b"my server", **{"00163E000001": ENTRY})
    with pytest.raises(Refused) as caught:
        reset(context)
    assert caught.value.code == "bad_hostname"
    assert picture(root) == before


def test_a_name_that_cannot_be_set_after_the_network(context: Context, root: Path) -> None:
    leave(context, hostname=b"web-1", **{"00163E000001": ENTRY})
    (root / "etc/os-release").write_text("ID=gentoo\n")
    with pytest.raises(Failed, match="static addresses seen: 1; but the name is not set: this guest calls itself"):
        reset(context)
    assert (root / "etc/net/eth0").exists()
    leave(context, hostname=b"web-1")
    with pytest.raises(Unsupported):
        reset(context)


def test_data_that_cannot_be_read(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> bytes:
        raise StoreError(Operation.READ, path, "EACCES")

    leave(context, **{"00163E000001": ENTRY})
    monkeypatch.setattr(context.nodes, "read", refuse)
    with pytest.raises(Refused, match="EACCES") as caught:
        reset(context)
    assert caught.value.code == "unreadable_network_data"


def own(root: Path) -> None:
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/cloud-init").touch()


def test_what_cloud_init_owns(context: Context, root: Path) -> None:
    own(root)
    before = picture(root)
    leave(context, **{"00163E000001": ENTRY})
    for command in (apply, reset):
        with pytest.raises(Refused, match=r"network = override in section \[cloud-init\] of /etc/xenward") as caught:
            command(context)
        assert caught.value.code == "cloud_init_owns_network"
    assert picture(root) == before


def test_taking_the_network_from_cloud_init(context: Context, root: Path, system: RunningDirectory) -> None:
    own(root)
    context.configuration = Configuration(network_stack="netplan", cloud_init_network="override")
    assert apply(context)["changed"] == ["/etc/net/eth0", CLOUD_INIT_FILE.text]
    assert says_disabled((root / CLOUD_INIT_FILE.text[1:]).read_text())
    # It does not come back, and needs no override any more.
    context.configuration = Configuration(network_stack="netplan")
    assert apply(context)["changed"] == []


def test_cloud_init_keeps_the_network_when_it_fails(context: Context, root: Path, system: RunningDirectory) -> None:
    own(root)
    context.configuration = Configuration(network_stack="netplan", cloud_init_network="override")
    before = names(root / "etc")
    system.live.lame = {"eth0"}
    with pytest.raises(Failed):
        apply(context)
    assert not (root / CLOUD_INIT_FILE.text[1:]).exists()
    assert set(names(root / "etc")) - set(before) <= {"net", "cloud"}


def test_what_an_earlier_run_left_in_the_middle_is_put_back_first(context: Context, root: Path) -> None:
    path = GuestPath("/etc/half")
    keep(str(root), Undo("standin", ONE, (take_snapshot(str(root), path),)))
    (root / "etc/half").touch()
    apply(context)
    assert not (root / "etc/half").exists()


def test_through_an_agent(context: Context, host: Host, root: Path) -> None:
    host.write("vm-data/networking/00163E000001", json.dumps(ENTRY).encode())
    host.write("vm-data/hostname", b"web-1")
    host.store.set_permissions(host.path("vm-data"), ["n7"])
    with agent_in_thread(host, context, COMMANDS):
        reply = host.ask("resetnetwork")
        assert str(reply["returncode"]) == "0"
        assert (root / "etc/hostname").read_text() == "web-1\n"
        second = {"interfaces": [{"mac": ETH1, "addresses": ["198.51.100.5/24"]}]}
        sealed = SealedHost(host)
        result = sealed.ask("network_apply", second)
        assert (result.outcome, result.data["active"]) == (Outcome.SUCCEEDED, True)
        assert sealed.ask("hostname", {"name": "web-2"}).data == {"name": "web-2"}


@pytest.mark.parametrize("stack", sorted(RENDERERS))
def test_every_stack_on_a_guest_that_does_not_run(root: Path, stack: str) -> None:
    (root / "sys/class/net/eth0").mkdir(parents=True)
    (root / "sys/class/net/eth0/address").write_text(f"{ETH0}\n")
    configuration = Configuration(network_stack=stack)
    context = Context(DirectorySystem(str(root)), AgentExchange(), "1", (), configuration=configuration)
    told = apply(context)
    assert (told["stack"], told["active"]) == (stack, False)
    assert told["changed"]
    assert any(b"192.0.2.5" in content for *_, content in picture(root).values())
    assert apply(context)["changed"] == []
