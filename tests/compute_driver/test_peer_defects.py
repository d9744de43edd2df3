"""Each known defect of other clouds' host side, driver and dom0 plugins, by a test that shows that ours has it not."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agent_protocol
import compute_driver
import dom0_plugins
from agent_protocol.legacy import AgentExchange, HostExchange
from agent_protocol.messages import Password
from agent_protocol.outcomes import Outcome, Refused, Unknown, Unreachable, Unsuccessful, Unsupported
from agent_protocol.xenstore import connect
from compute_driver.agents import AgentsInMemory
from compute_driver.errors import XenServerAnswerLost, XenServerFailure
from compute_driver.files import InjectedFile
from compute_driver.states import PowerState
from compute_driver.xenapi.agents.agent import GuestAgents
from compute_driver.xenapi.guests.vms import VM
from dom0_plugins.__main__ import FUNCTIONS
from dom0_plugins.exchange import exchange
from dom0_plugins.xapi import PluginFailure
from tests.agent_protocol.store import lay_out, running_server

from .sealed_agent import SealedAgent
from .xenapi.bad_server import BadServer, Late, client
from .xenapi.plugin import Plugin, replied

SECRET = "hunter2 & <Secret>"
UUID = "6d2f9d0e-3a4b-4c5d-8e6f-708192a3b4c5"
GUEST = VM("OpaqueRef:vm", UUID, "uuid-web", PowerState.RUNNING, "OpaqueRef:host", ())
PRODUCT = [Path(package.__path__[0]) for package in (agent_protocol, dom0_plugins, compute_driver)]


def agents(plugin: Plugin, policy: str = "legacy") -> GuestAgents:
    server: Any = plugin
    return GuestAgents(server, AgentsInMemory(), policy=policy, timeout=5.0, boot_timeout=5.0)


def nodes(directories: list[Path]) -> Iterator[tuple[Path, ast.AST]]:
    for directory in directories:
        for path in directory.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                yield path, node


def imported(directories: list[Path]) -> set[str]:
    found = set()
    for _, node in nodes(directories):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
    return found


# Cryptography


def test_the_broken_group_is_used() -> None:
    """With an agent that knows the sealed protocol, nothing of the old exchange is ever sent."""
    plugin = Plugin(agent=SealedAgent(vm=UUID))
    agents(plugin, "prefer-sealed").set_password(GUEST, Password(SECRET))
    assert set(plugin.names()) == {"sealed"}
    assert "hunter2" not in str(plugin.calls)


def test_the_key_is_derived_with_whatever_openssl_defaults_to() -> None:
    host, agent = HostExchange(123456789012345678901234), AgentExchange(98765432109876543210987654321)
    assert host.seal("Passw0rd!", agent.accept(host.public)) == "KDlA+NyL7vq+mSdQ9bncZw=="


def test_a_degenerate_public_number_of_the_agent_is_taken() -> None:
    for degenerate in ("0", "1", "162259276829213363391578010288126", "162259276829213363391578010288127", "-2", ""):
        with pytest.raises(Refused):
            HostExchange().seal(SECRET, degenerate)


def test_programs_get_secrets_as_arguments() -> None:
    """Nothing on the host's side starts a program, but for the operator's own ssh, which is given no secret."""
    starters = {"subprocess", "pty", "multiprocessing"}
    found = {
        path.name for path, node in nodes(PRODUCT) if isinstance(node, ast.Import) and node.names[0].name in starters
    }
    assert found == {"plugin.py"}
    assert not any(isinstance(node, ast.ImportFrom) and node.module in starters for _, node in nodes(PRODUCT))
    for path, node in nodes(PRODUCT):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in ("system", "popen", "posix_spawn", "execv", "execve", "execvp", "fork"), path


# False success


def test_a_reset_that_failed_is_a_success() -> None:
    plugin = Plugin()
    plugin.say("keyinit", lambda request: replied(request, "500", "no"))
    with pytest.raises(Unsuccessful):
        agents(plugin).set_password(GUEST, Password(SECRET))
    plugin.say("password", lambda request: replied(request, "500", "no"))
    with pytest.raises(Unsuccessful):
        agents(plugin).set_password(GUEST, Password(SECRET))


def test_a_password_that_was_never_applied_is_kept_for_the_user() -> None:
    """None is kept at all: no table has a column for one, and what is remembered of an agent has no room for it."""
    from compute_driver.db.models import Base

    columns = [f"{table.name}.{column.name}" for table in Base.metadata.tables.values() for column in table.columns]
    assert columns
    assert not [name for name in columns if "pass" in name or "secret" in name]


def test_an_error_of_the_plugin_becomes_an_ordinary_answer() -> None:
    plugin = Plugin()
    plugin.say("keyinit", XenServerFailure(["XENAPI_PLUGIN_FAILURE", "exchange", "Error", "it broke"]))
    with pytest.raises(Unsuccessful):
        agents(plugin).set_password(GUEST, Password(SECRET))


def test_an_error_message_is_taken_for_a_list_of_features() -> None:
    plugin = Plugin()
    plugin.say("features", lambda request: replied(request, "500", "file_put,file_inject,password"))
    with pytest.raises(Unsuccessful):
        agents(plugin).put_file(GUEST, InjectedFile("/etc/motd", b"content"))
    assert "file_put" not in plugin.names()


def test_a_file_in_the_old_format_is_no_text_and_fails() -> None:
    plugin = Plugin("version,features,keyinit,password,injectfile")
    plugin.say("injectfile", lambda request: replied(request, "0", ""))
    agents(plugin).put_file(GUEST, InjectedFile("/etc/motd", bytes(range(256))))
    assert plugin.names()[-1] == "injectfile"


def test_an_unanswered_order_is_a_failure_or_a_success() -> None:
    plugin = Plugin()
    plugin.say("password", XenServerAnswerLost("the connection broke"))
    with pytest.raises(Unknown):
        agents(plugin).set_password(GUEST, Password(SECRET))


# Loops and waits


@pytest.mark.parametrize("policy", ["legacy", "prefer-sealed", "sealed"])
def test_a_plugin_that_fails_at_once_is_asked_in_a_hot_loop(policy: str) -> None:
    plugin = Plugin()
    calls = []

    def fails(*arguments: Any, timeout: float) -> Any:
        calls.append(arguments)
        raise XenServerFailure(["XENAPI_MISSING_PLUGIN", "xenward"])

    plugin.call = fails  # type: ignore[method-assign]
    with pytest.raises(Unsupported):
        agents(plugin, policy).await_boot(GUEST)
    assert len(calls) == 1


def test_a_guest_that_restarts_again_and_again_overflows_the_stack() -> None:
    plugin = Plugin()
    plugin.say("keyinit", *["gone"] * (2 * sys.getrecursionlimit()))
    agents(plugin).set_password(GUEST, Password(SECRET))
    assert plugin.passwords == [SECRET]


@pytest.mark.parametrize(("method", "kind"), [("VM.get_all", Unreachable), ("host.call_plugin", Unknown)])
def test_a_call_waits_for_ever(method: str, kind: type[Unsuccessful]) -> None:
    with BadServer() as server:
        server.behave(method, Late(threading.Event()))
        with pytest.raises(kind):
            client(server).call(method, timeout=0.1)


# Dom0


def test_values_are_written_by_programs_and_logged(tmp_path: Path) -> None:
    """One whole exchange in a process of its own: no program, no network, no file but XenStore's socket."""
    code = """
import json, sys
seen = []
sys.addaudithook(lambda event, arguments: seen.append((event, repr(arguments))))
from agent_protocol.xenstore import connect
from dom0_plugins.exchange import exchange
entry = {"vm": sys.argv[2], "id": "0b5e3b0c-6d5f-4f0a-9d3b-0123456789ab", "value": sys.argv[3]}
print(exchange({"requests": json.dumps([entry]), "timeout": "0"}, connect(sys.argv[1])))
bad = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "syslog.syslog", "pickle.find_class")
assert not [event for event in seen if event[0] in bad], seen
assert not [event for event in seen if event[0] == "open" and "'w'" in event[1]], seen
assert [event[0] for event in seen if event[0].startswith("socket.") and "connect" in event[0]], seen
assert not [event for event in seen if sys.argv[3] in event[1]], seen
"""
    with running_server() as server, connect(str(server.socket)) as dom0:
        lay_out(dom0, 7, UUID)
        server.introduce(7)
        command = [sys.executable, "-c", code, str(server.socket), UUID, "what-is-carried"]
        done = subprocess.run(command, cwd=PRODUCT[0].parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["delivery"] == "unanswered"


def test_objects_are_pickled_across_the_boundary() -> None:
    assert not imported(PRODUCT) & {"pickle", "marshal", "shelve", "dill", "yaml"}
    for path, node in nodes(PRODUCT):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec"), path


def test_the_plugin_runs_commands_or_touches_files_of_dom0() -> None:
    """It reads one kind of file, guests' console logs (console_log.py says how), and writes none."""
    assert set(FUNCTIONS) == {"adverts", "console_log", "exchange", "status", "version"}
    assert not imported(PRODUCT[1:2]) & {"subprocess", "shutil", "tempfile", "pathlib", "glob", "ctypes"}


@pytest.mark.parametrize(
    "changed",
    [
        {"vm": "0"},
        {"vm": "../../0"},
        {"vm": f"{UUID}/../x"},
        {"id": "../../../../tool/x"},
        {"id": ""},
        {"id": "x/y"},
        {"vm": UUID + "\n"},
        {"vm": None},
    ],
)
def test_domain_and_path_are_pasted_unchecked(changed: dict[str, Any]) -> None:
    entry = {"vm": UUID, "id": "0b5e3b0c-6d5f-4f0a-9d3b-0123456789ab", "value": "x", **changed}
    with running_server() as server, connect(str(server.socket)) as dom0, pytest.raises(PluginFailure):
        exchange({"requests": json.dumps([entry]), "timeout": "0"}, dom0)


def test_another_domain_can_be_named() -> None:
    """A request goes to the domain of the VM that it names, whatever numbers there are."""
    other = "ffffffff-3a4b-4c5d-8e6f-708192a3b4c5"
    entry = {"vm": UUID, "id": "0b5e3b0c-6d5f-4f0a-9d3b-0123456789ab", "value": "x"}
    with running_server() as server, connect(str(server.socket)) as dom0:
        lay_out(dom0, 7, other)
        server.introduce(7)
        (result,) = json.loads(exchange({"requests": json.dumps([entry]), "timeout": "0"}, dom0))
        assert result["delivery"] == "absent"
        assert dom0.directory("/local/domain/7/data") == []


def test_other_hosts_are_trusted_by_ssh_or_md5() -> None:
    assert not {name.split(".")[0] for name in imported(PRODUCT)} & {"paramiko", "fabric", "asyncssh", "telnetlib"}
    for path, node in nodes(PRODUCT):
        if isinstance(node, ast.Attribute) and node.attr == "md5":
            assert path.name in ("legacy.py", "digests.py"), path


def test_outcomes_are_one_error_for_everything() -> None:
    codes = {
        "absent": (Outcome.UNREACHABLE, "guest_absent"),
        "withdrawn": (Outcome.UNREACHABLE, "agent_silent"),
        "taken": (Outcome.UNKNOWN, "agent_no_answer"),
    }
    for word, expected in codes.items():
        plugin = Plugin()
        plugin.say("password", word)
        with pytest.raises(Unsuccessful) as caught:
            agents(plugin).set_password(GUEST, Password(SECRET))
        assert (caught.value.outcome, caught.value.code) == expected
