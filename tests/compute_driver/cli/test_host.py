"""`xenward host …`, with a compute service that a test plays, and an ssh that is a shell on this machine."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.outcomes import Outcome, Refused, Unknown, Unreachable, unsuccessful
from compute_driver.cli import plugin as commands
from compute_driver.manager import ComputeManager
from compute_driver.resources import InventoryItem, NodeResources, NodeState
from tools.packages.dom0_plugin import build

from .service import Service, run, shown

GOOD = NodeState("xen-1", enabled=True, live=True, helper=Outcome.SUCCEEDED, helper_version="0.1.0")
OLD = NodeState("xen-2", True, True, Outcome.UNSUPPORTED, "0.0.9", "plugin_too_old", "it is too old")
BARE = NodeState("xen-3", True, True, Outcome.UNSUPPORTED, "", "plugin_missing", "there is none")
DOWN = NodeState("xen-4", False, False, Outcome.UNREACHABLE, "", "node_down", "it is down")
RESOURCES = NodeResources("xen-1", "XenServer", 8003000, 16, 2, 65536, 2560, 512, 3, {"vendor": "x"}, "192.0.2.1")


class Driver:
    """As much of a driver as these questions need."""

    def __init__(self, *states: NodeState) -> None:
        self.states = {state.hypervisor_hostname: state for state in states}
        self.done: list[tuple[str, str]] = []

    def get_available_nodes(self) -> list[str]:
        return list(self.states)

    def check_node(self, node: str) -> NodeState:
        try:
            return self.states[node]
        except KeyError:
            raise Refused("node_not_found", f"the pool has no host {node!r}") from None

    def get_available_resource(self, node: str) -> NodeResources:
        if not self.states[node].live:
            raise Unreachable("xenserver_unreachable", "it is down")
        return replace(RESOURCES, hypervisor_hostname=node)

    def get_host_uptime(self, node: str) -> float:
        return 86400.5

    def get_inventory(self, node: str) -> dict[str, InventoryItem]:
        self.check_node(node)
        return {"VCPU": InventoryItem(16, 2, allocation_ratio=4.0), "MEMORY_MB": InventoryItem(65536, 2048)}

    def set_host_enabled(self, node: str, enabled: bool) -> None:
        self.check_node(node)
        self.done.append(("enable" if enabled else "disable", node))

    def host_maintenance_mode(self, node: str, enabled: bool) -> None:
        self.done.append(("empty" if enabled else "refill", node))

    def host_power_action(self, node: str, action: str) -> None:
        if node == "xen-4":
            raise Unknown("xenserver_answer_lost", "the answer was lost")
        self.done.append((action, node))


class Nodes(Service):
    """The service, with a real endpoint over such a driver."""

    def __init__(self, *states: NodeState) -> None:
        super().__init__()
        self.driver: Any = Driver(*states)
        # Imported late: the fixture decides on concurrency first.
        from compute_driver.rpc import ComputeEndpoint

        nothing: Any = None
        self._endpoint = ComputeEndpoint(ComputeManager(nothing, self.driver, "compute-1"))

    def ask(self, context: Any, method: str, **arguments: Any) -> Any:
        self.calls.append((method, arguments))
        answer = getattr(self._endpoint, method)(context.to_dict(), **arguments)
        if "error" in answer:
            told = answer["error"]
            raise unsuccessful(Outcome(told["outcome"]), told["code"], told["message"])
        return answer["result"]

    order = ask


@pytest.fixture
def nodes(service: Service, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    it = Nodes(GOOD, OLD, BARE, DOWN)
    monkeypatch.setattr("compute_driver.cli.main.XenwardApp.client", property(lambda _: it))
    return it


def test_hosts_are_listed_with_what_they_have(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("host", "list", "-f", "json") == 0
    listed = shown(capsys)
    assert [(it["hypervisor_hostname"], it["plugin"]) for it in listed] == [
        ("xen-1", "ok"),
        ("xen-2", "too old"),
        ("xen-3", "missing"),
        ("xen-4", "unknown"),
    ]
    assert (listed[0]["vcpus"], listed[0]["memory_mb_used"], listed[0]["host_ip"]) == (16, 2560, "192.0.2.1")
    assert (listed[3]["live"], listed[3]["vcpus"]) == (False, None)


@pytest.mark.parametrize(
    ("hosts", "status"),
    [(["xen-1"], 0), (["xen-1", "xen-2"], 4), (["xen-3"], 4), (["xen-4"], 7), ([], 4), (["xen-9"], 3)],
)
def test_the_exit_status_tells(nodes: Nodes, capsys: pytest.CaptureFixture[str], hosts: list[str], status: int) -> None:
    assert run("host", "check-plugin", *hosts, "-f", "json") == status
    if status != 3:
        assert [row["host"] for row in shown(capsys)] == (hosts or list(nodes.driver.states))


def test_a_host_is_shown(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("host", "show", "xen-1", "-f", "json") == 0
    told = shown(capsys)
    assert (told["hypervisor_hostname"], told["plugin"], told["vcpus"], told["uptime"]) == ("xen-1", "ok", 16, 86400.5)
    assert run("host", "show", "xen-4", "-f", "json") == 0
    assert "uptime" not in shown(capsys)
    assert run("host", "show", "xen-9") == 3
    assert "node_not_found" in capsys.readouterr().err


def test_an_inventory_is_shown(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("host", "inventory", "show", "xen-1", "-f", "json") == 0
    rows = shown(capsys)
    assert [row["resource_class"] for row in rows] == ["MEMORY_MB", "VCPU"]
    assert (rows[1]["total"], rows[1]["reserved"], rows[1]["allocation_ratio"]) == (16, 2, 4.0)
    assert run("host", "inventory", "show", "xen-9") == 3


@pytest.mark.parametrize(
    ("words", "done"),
    [
        ("enable", "enable"),
        ("disable", "disable"),
        ("maintenance on", "empty"),
        ("maintenance off", "refill"),
        ("power shutdown", "shutdown"),
        ("power reboot", "reboot"),
        ("power startup", "startup"),
    ],
)
def test_what_is_done_to_a_host(nodes: Nodes, capsys: pytest.CaptureFixture[str], words: str, done: str) -> None:
    assert run("host", *words.split(), "xen-1", "-f", "json") == 0
    told = shown(capsys)
    assert (told["outcome"], told["host"]) == ("succeeded", "xen-1")
    assert nodes.driver.done == [(done, "xen-1")]
    # The audit trail has orders on instances only: no id by which it could be asked for.
    assert "order_id" not in told
    assert run("host", *words.split(), "xen-1", "--no-wait") == 2


def test_a_host_order_that_fails_tells_so(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("host", "enable", "xen-9", "-f", "json") == 3
    assert shown(capsys)["code"] == "node_not_found"
    assert run("host", "power", "reboot", "xen-4", "-f", "json") == 8
    assert "ask: xenward host show xen-4\n" in capsys.readouterr().err
    assert nodes.driver.done == []


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "xenward"
    build(path, sys.executable, [])
    return path


@pytest.fixture
def dom0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the plugin goes, and an `ssh` on PATH that runs its last argument here and remembers the others."""
    directory = tmp_path / "dom0"
    directory.mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$1 $2 $3 $4" > {tmp_path}/login\nexec sh -c "$5"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(commands, "PLUGIN", str(directory / "xenward"))
    return directory


def install(plugin: Path, *options: str, name: str = "xen-1", login: str = "root@192.0.2.1") -> int:
    return run("host", "install-plugin", name, "--ssh", login, "--plugin", str(plugin), *options, "-f", "json")


class TestInstall:
    def test_it_arrives_whole(
        self, nodes: Nodes, plugin: Path, dom0: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (dom0 / "xenward").write_text("the old one")
        assert install(plugin) == 0
        assert (dom0 / "xenward").read_bytes() == plugin.read_bytes()
        assert (dom0 / "xenward").stat().st_mode & 0o7777 == 0o755
        assert [path.name for path in dom0.iterdir()] == ["xenward"]
        assert (tmp_path / "login").read_text() == "-o ConnectTimeout=30 -- root@192.0.2.1\n"
        told = shown(capsys)
        assert (told["outcome"], told["plugin"], told["version"]) == ("succeeded", "ok", "0.1.0")

    def test_a_dry_run_does_nothing(
        self, nodes: Nodes, plugin: Path, dom0: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert install(plugin, "--dry-run") == 0
        command = shown(capsys)["command"]
        assert command.startswith("ssh ") and "root@192.0.2.1" in command and str(plugin) in command
        assert list(dom0.iterdir()) == []
        assert not (tmp_path / "login").exists()
        assert nodes.calls == []

    def test_what_is_cut_off_is_not_installed(
        self,
        nodes: Nodes,
        plugin: Path,
        dom0: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (dom0 / "xenward").write_text("the old one")
        real = commands._run
        monkeypatch.setattr(commands, "_run", lambda command, content: real(command, content[:-1]))
        assert install(plugin) == 6
        assert shown(capsys)["code"] == "plugin_not_installed"
        assert (dom0 / "xenward").read_text() == "the old one"
        assert [path.name for path in dom0.iterdir()] == ["xenward"]

    @pytest.mark.parametrize(("status", "outcome"), [(255, "unreachable"), (1, "failed")])
    def test_ssh_that_fails(
        self,
        nodes: Nodes,
        plugin: Path,
        dom0: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        status: int,
        outcome: str,
    ) -> None:
        (tmp_path / "bin/ssh").write_text(f"#!/bin/sh\nexit {status}\n")
        install(plugin)
        assert shown(capsys)["outcome"] == outcome

    def test_no_ssh_at_all(
        self, nodes: Nodes, plugin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        assert install(plugin) == 4
        assert shown(capsys)["code"] == "ssh_missing"

    @pytest.mark.parametrize("login", ["-oProxyCommand=x", "root", "root@-x", "root@a b", "a;b@c", "root@h\n"])
    def test_logins_that_are_none(
        self, nodes: Nodes, plugin: Path, dom0: Path, capsys: pytest.CaptureFixture[str], login: str
    ) -> None:
        command = ["host", "install-plugin", "xen-1", f"--ssh={login}", "--plugin", str(plugin), "-f", "json"]
        assert run(*command) == 3
        assert shown(capsys)["code"] == "bad_ssh_login"
        assert list(dom0.iterdir()) == []

    @pytest.mark.parametrize("content", [None, b"", b"#!/bin/sh\n", b"PK"])
    def test_files_that_are_not_the_plugin(
        self, nodes: Nodes, dom0: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
    ) -> None:
        path = tmp_path / "file"
        if content is not None:
            path.write_bytes(content)
        assert install(path) == 3
        assert shown(capsys)["code"] == ("unreadable_file" if content is None else "not_the_plugin")
        assert list(dom0.iterdir()) == []

    def test_a_host_that_is_not_there_gets_nothing(
        self, nodes: Nodes, plugin: Path, dom0: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert install(plugin, name="xen-9") == 3
        assert shown(capsys)["code"] == "node_not_found"
        assert list(dom0.iterdir()) == []

    @pytest.mark.parametrize(("name", "code"), [("xen-3", "other_host"), ("xen-2", "plugin_too_old")])
    def test_a_host_that_is_no_better_for_it(
        self, nodes: Nodes, plugin: Path, dom0: Path, capsys: pytest.CaptureFixture[str], name: str, code: str
    ) -> None:
        assert install(plugin, name=name) != 0
        assert shown(capsys)["code"] == code
