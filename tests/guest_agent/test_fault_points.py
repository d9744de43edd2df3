"""Killed at every step of every command and started again: one reply, nothing half-done, nothing done twice.

With --all every step is tried, otherwise one in five of each command, which are others for each command.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Callable

import pytest

from agent_protocol.legacy import HostExchange
from agent_protocol.messages import CLAIMS, REPLIES, REQUESTS, new_request_id
from agent_protocol.outcomes import Outcome
from guest_agent.commands import COMMANDS, SEALED_COMMANDS
from guest_agent.system.directory import DirectorySystem

from .conftest import DEADLINE, REPOSITORY, Host, simulated_host, ssh_key
from .fault_child import COUNTERS
from .sealing import SealedHost

OLD, NEW = "old", "new"

STRIDE = 5
"""Without --all."""

PASSWORD = "a new Pass-word 1"
HASH = "$6$salt$" + "h" * 86


def shadow(root: Path) -> str:
    """Whether root's password is that of before; every other line must be whole in any case."""
    lines = (root / "etc/shadow").read_text().split("\n")
    assert lines[0] == "daemon:*:19000:0:99999:7:::"
    assert lines[2:] == ["ann:x:1::::::", ""]
    fields = lines[1].split(":")
    assert (fields[0], len(fields)) == ("root", 9)
    return OLD if fields[1] == "!" else NEW


def content(path: str, old: bytes | None, new: bytes) -> Callable[[Path], str]:
    """Whether a file has its old content or the new one. Anything else is neither."""

    def state(root: Path) -> str:
        present = (root / path).read_bytes() if (root / path).exists() else None
        return {old: OLD, new: NEW}[present]

    return state


def nothing(root: Path) -> str:
    """A question changes nothing, and neither does what is unsupported."""
    return OLD


def network(root: Path) -> str:
    """Whether netplan's files are those of before. They change together, or not at all."""
    files = {path.name: path.read_bytes() for path in (root / "etc/netplan").iterdir()}
    if files == {"01-before.yaml": BEFORE}:
        return OLD
    assert files.pop("01-before.yaml") == BEFORE
    # One file for each interface.
    assert sorted(address for address in ADDRESSES for content in files.values() if address in content) == ADDRESSES
    return NEW


def network_and_name(root: Path) -> str:
    """The name follows the network: in between, one is new and the other old, and the agent does not call it done."""
    states = {network(root), content("etc/hostname", b"guest\n", b"renamed\n")(root)}
    return states.pop() if len(states) == 1 else "between"


@dataclass(frozen=True)
class Case:
    """One command: its value, and how to tell from the guest's files whether it was carried out."""

    name: str
    value: str
    state: Callable[[Path], str]
    outcome: Outcome = Outcome.SUCCEEDED

    @property
    def done(self) -> str:
        """The state of a guest in which it was carried out."""
        return OLD if self.state is nothing else NEW


def members(**values: Any) -> str:
    return json.dumps(values)


LARGE = os.urandom(9_000)
"""Takes frames, but not more than may stand in the store at once."""

CALLER = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
"""An X25519 public key (RFC 7748, section 6.1), which passwords are sealed to that nobody is to read."""

MACS = ["00:16:3e:00:00:01", "00:16:3e:00:00:02"]
ADDRESSES = [b"192.0.2.5/24", b"192.0.2.6/24"]
INTERFACES = [{"mac": mac, "addresses": [address.decode()]} for mac, address in zip(MACS, ADDRESSES)]
BEFORE = b'network: {version: 2, ethernets: {before: {match: {macaddress: "00:16:3e:00:00:01"}, dhcp4: true}}}\n'
"""netplan's file of another tool for the same interface."""

MOTD, OLD_MOTD = "etc/motd", b"the old message\n"
KEYS = "home/ann/.ssh/authorized_keys"
FRESH = members(path="/etc/new/file", content=base64.b64encode(b"new").decode(), mode="0644")

SEALED_CASES = [
    Case("version", "", nothing),
    Case("features", "", nothing),
    Case("ping", "", nothing),
    Case("info", "", nothing),
    Case("password", members(value=PASSWORD), shadow),
    Case("password", members(hash=HASH, expire=True), shadow),
    Case("password_generate", members(hpke=CALLER), shadow),
    Case(
        "file_put", members(path="/etc/motd", content=base64.b64encode(LARGE).decode()), content(MOTD, OLD_MOTD, LARGE)
    ),
    Case("file_put", FRESH, content("etc/new/file", None, b"new")),
    Case("ssh_keys", members(user="ann", add=[ssh_key(1)]), content(KEYS, None, ssh_key(1).encode() + b"\n")),
    Case("hostname", members(name="renamed"), content("etc/hostname", b"guest\n", b"renamed\n")),
    Case("network_apply", members(interfaces=INTERFACES), network),
    # A directory has nothing that could be frozen, and no launcher that would start an update.
    Case("freeze", members(seconds=1), nothing, Outcome.UNSUPPORTED),
    Case("thaw", "", nothing, Outcome.UNSUPPORTED),
    Case(
        "agent_update",
        members(version="9.0.0", sha256="0" * 64, signature="AA==", content=""),
        nothing,
        Outcome.UNSUPPORTED,
    ),
]

CLEAR_CASES = [
    Case("version", "", nothing),
    Case("features", "", nothing),
    Case("keyinit", HostExchange().public, nothing),
    Case("password", "", shadow),
    Case("injectfile", base64.b64encode(b"/etc/motd,new").decode(), content(MOTD, OLD_MOTD, b"new")),
    Case("file_inject", members(b64_path="L2V0Yy9tb3Rk", b64_file="bmV3"), content(MOTD, OLD_MOTD, b"new")),
    Case("file_put", members(path="/etc/motd", content="bmV3"), content(MOTD, OLD_MOTD, b"new")),
    Case("ssh_keys", members(user="ann", add=[ssh_key(1)]), content(KEYS, None, ssh_key(1).encode() + b"\n")),
    Case("resetnetwork", "", network_and_name),
    Case("agentupdate", "https://example.org/agent,d41d8cd98f00b204e9800998ecf8427e", nothing, Outcome.UNSUPPORTED),
]


class Agents:
    """Agents that are forked, one at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.guest_agent.fault_child"]
        self._process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin: IO[str] = self._process.stdin
        self._stdout: IO[str] = self._process.stdout
        self.pid = 0

    def start(self, host: Host, root: Path, directory: Path, request_id: str, at: int = 0) -> None:
        """Fork an agent that is killed right before step `at` of that request."""
        counters = directory / "counters"
        counters.write_bytes(COUNTERS.pack(0, 0))
        said = {"root": root, "socket": host.guest_socket, "log": directory / "log", "counters": counters}
        line = {**{name: str(value) for name, value in said.items()}, "request": request_id, "at": at}
        self._stdin.write(json.dumps(line) + "\n")
        self._stdin.flush()
        self.pid = json.loads(self._stdout.readline())["pid"]

    def wait(self) -> int:
        """The status with which the agent has ended."""
        self.pid = 0
        return int(json.loads(self._stdout.readline())["status"])

    def kill(self) -> None:
        """End whatever runs."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def close(self) -> None:
        self.kill()
        self._stdin.close()
        self._process.wait(DEADLINE)
        self._stdout.close()


@pytest.fixture(scope="module")
def agents() -> Iterator[Agents]:
    forked = Agents()
    yield forked
    forked.close()


@dataclass
class Ended:
    """How it went: the reply's outcome, its code, and how often the command was carried out by both agents."""

    outcome: Outcome
    code: str
    carried_out: int
    steps: int


class Trial:
    """One command, asked of an agent that is killed, and answered by the next one."""

    def __init__(self, agents: Agents, host: Host, root: Path, directory: Path) -> None:
        self._agents = agents
        self._host = host
        self._root = root
        self._directory = directory

    def _counters(self) -> tuple[int, int]:
        steps, carried_out = COUNTERS.unpack((self._directory / "counters").read_bytes())
        return int(steps), int(carried_out)

    def sealed(self, case: Case, at: int) -> Ended:
        request_id = new_request_id()
        self._agents.start(self._host, self._root, self._directory, request_id, at)
        sealed = SealedHost(self._host)
        asked = sealed.seal(case.name, case.value, request_id=request_id)
        sealed.send(asked)
        steps, carried_out = self._after_the_kill(at, request_id)
        receipt, result = sealed.finish(asked)
        self._agree(receipt.outcome, result.outcome)
        return Ended(
            result.outcome, result.code, carried_out + self._counters()[1] * bool(at), steps or self._counters()[0]
        )

    def clear(self, case: Case, at: int) -> Ended:
        request_id = new_request_id()
        self._agents.start(self._host, self._root, self._directory, request_id, at)
        self._host.wait_for_agent()
        value = case.value
        if case.name == "password":
            exchange = HostExchange()
            value = exchange.seal(PASSWORD, self._host.ask("keyinit", exchange.public)["message"])
        if case.name == "resetnetwork":
            for mac, interface in zip(MACS, ADDRESSES):
                entry = {"mac": mac, "ips": [{"ip": interface.decode()[:-3], "netmask": "255.255.255.0"}]}
                name = mac.replace(":", "").upper()
                self._host.write(f"vm-data/networking/{name}", json.dumps(entry).encode())
            self._host.write("vm-data/hostname", b"renamed")
        before = self._counters()[1]
        self._host.send(case.name, value, request_id)
        steps, carried_out = self._after_the_kill(at, request_id)
        reply = self._host.reply(request_id)
        carried_out += self._counters()[1] * bool(at)
        return Ended(
            Outcome(reply["outcome"]), reply.get("code", ""), carried_out - before, steps or self._counters()[0]
        )

    @staticmethod
    def _agree(*outcomes: Outcome) -> None:
        assert len(set(outcomes)) == 1

    def _after_the_kill(self, at: int, request_id: str) -> tuple[int, int]:
        """Wait for the first agent's end and start the second; steps and executions of the first."""
        if not at:
            self._host.wait(
                lambda: request_id not in self._host.children(CLAIMS) + self._host.children(REQUESTS), "an end"
            )
            return self._counters()
        assert self._agents.wait() == -signal.SIGKILL
        counted = self._counters()
        self._agents.start(self._host, self._root, self._directory, "no request")
        return counted

    def assert_settled(self) -> None:
        """The agent that runs now serves, and nothing is left over."""
        assert self._host.ask("version")["outcome"] == "succeeded"
        self._host.assert_nothing_left()
        assert self._host.children(REPLIES) == []
        self._agents.kill()


def prepare(root: Path) -> None:
    (root / MOTD).write_bytes(OLD_MOTD)
    (root / "etc/hostname").write_bytes(b"guest\n")
    (root / "etc/os-release").write_text("ID=ubuntu\n")
    (root / "etc/netplan").mkdir()
    (root / "etc/netplan/01-before.yaml").write_bytes(BEFORE)
    (root / "etc/xenward").mkdir()
    (root / "etc/xenward/agent.conf").write_text("[network]\nstack = netplan\n")


@pytest.fixture
def stride(request: pytest.FixtureRequest) -> int:
    """Every how many steps an agent is killed."""
    return 1 if request.config.getoption("--all") else STRIDE


def all_points(agents: Agents, template: Path, directory: Path, ask: str, case: Case, stride: int) -> dict[str, int]:
    """Try every point, or one in `stride`. Returns how often each outcome was seen."""
    seen: dict[str, int] = {}
    last = 0
    at = 0
    while at <= last:
        root = directory / f"root-{at}"
        shutil.copytree(template, root, symlinks=True)
        with simulated_host() as host:
            trial = Trial(agents, host, root, directory)
            ended: Ended = getattr(trial, ask)(case, at)
            trial.assert_settled()
        state = case.state(root)
        told = f"killed before step {at} of {last}: {ended}, the guest's files are {state}"
        assert ended.carried_out <= 1, told
        if at == 0:
            # Nobody was killed: this is how many steps there are.
            assert (ended.outcome, state) == (case.outcome, case.done), told
            last = ended.steps
        elif ended.outcome is Outcome.SUCCEEDED:
            assert state == case.done, told
        elif ended.outcome is Outcome.UNKNOWN:
            assert ended.code == "agent_restarted", told
        else:
            assert state == OLD, told
        seen[str(ended.outcome)] = seen.get(str(ended.outcome), 0) + 1
        shutil.rmtree(root)
        at += 1 + len(case.name) % stride if at == 0 else stride
    return seen


def assert_all_kinds(seen: dict[str, int], case: Case, stride: int) -> None:
    """In between nobody knows; when the reply stands, it stands. A few steps only may miss either."""
    if stride == 1:
        assert seen["unknown"] >= 1
        assert seen[str(case.outcome)] >= 2


def ids(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", SEALED_CASES, ids=ids)
def test_sealed(agents: Agents, root: Path, tmp_path: Path, case: Case, stride: int) -> None:
    prepare(root)
    seen = all_points(agents, root, tmp_path, "sealed", case, stride)
    assert_all_kinds(seen, case, stride)


@pytest.mark.parametrize("case", CLEAR_CASES, ids=ids)
def test_in_the_clear(agents: Agents, root: Path, tmp_path: Path, case: Case, stride: int) -> None:
    prepare(root)
    seen = all_points(agents, root, tmp_path, "clear", case, stride)
    assert_all_kinds(seen, case, stride)


def test_every_command_is_tried() -> None:
    assert {case.name for case in SEALED_CASES} == set(SEALED_COMMANDS) - DirectorySystem.lacks
    assert {case.name for case in CLEAR_CASES} == set(COMMANDS) - DirectorySystem.lacks
