"""Each known defect of other clouds' guest agents, by a test named after it that shows that ours does not have it."""

from __future__ import annotations

import ast
import base64
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

import agent_protocol
import guest_agent
from agent_protocol.legacy import PRIME, HostExchange
from agent_protocol.messages import MAX_VALUE, REPLIES, Password
from agent_protocol.outcomes import Refused, Unsupported
from guest_agent.commands import COMMANDS, Command, Context
from guest_agent.system.accounts import PasswordHash
from guest_agent.system.directory import DirectorySystem
from guest_agent.system.files import write_file
from guest_agent.system.paths import GuestPath

from .conftest import AgentProcess, Host, agent_in_thread, names, ssh_key
from .sealing import SealedHost

StartAgent = Callable[..., AgentProcess]


def injectfile(path: str, content: bytes) -> str:
    """The old command's value."""
    return base64.b64encode(path.encode() + b"," + content).decode()


def file_inject(path: str, content: bytes) -> str:
    """The newer form of it."""
    encoded = {"b64_path": base64.b64encode(path.encode()), "b64_file": base64.b64encode(content)}
    return json.dumps({name: value.decode() for name, value in encoded.items()})


def shadow(root: Path, user: str) -> str:
    lines = (root / "etc/shadow").read_text().splitlines()
    return next(line for line in lines if line.startswith(user + ":")).split(":")[1]


@pytest.fixture
def events() -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
    """What this process does from now on: the interpreter's audit events."""
    seen: list[tuple[str, tuple[Any, ...]]] = []
    listening = True

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if listening:
            seen.append((event, arguments))

    sys.addaudithook(note)  # which cannot be taken away again
    yield seen
    listening = False


# Requests


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keyinit", "not a number"),
        ("__class__", ""),
        ("hostname_file", ""),
        ("__init__", "x"),
        ("injectfile", injectfile("relative/path", b"")),
        ("injectfile", "not base64"),
        ("injectfile", base64.b64encode(b"/no comma").decode()),
        ("password", "AAAA"),
        ("file_inject", "[]"),
    ],
)
def test_one_bad_request_kills_the_agent(agent: AgentProcess, host: Host, name: str, value: str) -> None:
    assert host.ask(name, value)["returncode"] != "0"
    assert host.ask("version")["returncode"] == "0"
    host.assert_nothing_left()


def test_a_request_that_is_no_json_stays_in_the_store_and_kills_again(agent: AgentProcess, host: Host) -> None:
    assert host.reply(host.send_bytes(b"{\xff"))["returncode"] != "0"
    host.assert_nothing_left()
    assert host.ask("version")["returncode"] == "0"


def test_a_binary_file_kills_the_agent(agent: AgentProcess, host: Host, root: Path) -> None:
    content = bytes(range(256))
    assert host.ask("injectfile", injectfile("/etc/binary", content))["returncode"] == "0"
    assert (root / "etc/binary").read_bytes() == content


def test_unknown_commands_are_answered_with_success(agent: AgentProcess, host: Host) -> None:
    reply = host.ask("no_such_command", "")
    assert (reply["returncode"], reply["outcome"]) == ("404", "unsupported")


def test_an_unexpected_exception_leaves_no_reply_and_the_same_request_for_ever(host: Host, context: Context) -> None:
    calls = []

    def broken(context: Context, value: str) -> Any:
        calls.append(value)
        raise RuntimeError("the cryptography engine is broken")

    with agent_in_thread(host, context, {**COMMANDS, "password": Command("password", broken)}):
        reply = host.ask("password", "x")
        assert (reply["outcome"], reply["code"]) == ("failed", "internal_error")
        assert "engine" not in json.dumps(reply)
        assert host.ask("version")["returncode"] == "0"
    assert calls == ["x"]


def test_the_agent_serves_one_cloud_only(agent: AgentProcess, host: Host) -> None:
    assert host.children("vm-data") == []  # no provider's name stands there
    assert host.ask("version")["returncode"] == "0"


def test_replies_pile_up_until_the_guest_is_silenced(agent: AgentProcess, host: Host) -> None:
    for _ in range(120):  # the daemons take 54 or 110 of them
        request_id = host.send("version")
        host.wait(lambda: host.read(f"{REPLIES}/{request_id}") is not None, "a reply")  # noqa: B023
    assert len(host.children(REPLIES)) < 60


def test_the_type_of_an_object_is_chosen_by_the_request(agent: AgentProcess, host: Host) -> None:
    untrusted = {"name": "version", "value": {"__type": "System.IO.FileInfo, mscorlib", "fileName": "/etc/passwd"}}
    assert host.reply(host.send_bytes(json.dumps(untrusted).encode()))["code"] == "bad_request"


# Passwords


def test_the_peers_public_number_is_never_checked(agent: AgentProcess, host: Host) -> None:
    for degenerate in (0, 1, PRIME - 1, PRIME, -1):
        assert host.ask("keyinit", str(degenerate))["code"] == "bad_public_number"


def test_a_failed_attempt_leaves_the_key_for_more(agent: AgentProcess, host: Host, root: Path) -> None:
    exchange = HostExchange()
    public = host.ask("keyinit", exchange.public)["message"]
    assert host.ask("password", base64.b64encode(b"x" * 16).decode())["outcome"] == "refused"
    assert host.ask("password", exchange.seal("Passw0rd!", public))["code"] == "no_key"
    assert shadow(root, "root") == "!"


def test_any_padding_and_any_bytes_pass_for_a_password(agent: AgentProcess, host: Host, root: Path) -> None:
    exchange = HostExchange()
    for flipped in range(16):
        sealed = bytearray(base64.b64decode(exchange.seal("p", host.ask("keyinit", exchange.public)["message"])))
        sealed[flipped] ^= 1
        reply = host.ask("password", base64.b64encode(sealed).decode())
        assert reply["outcome"] == "refused", flipped
    assert shadow(root, "root") == "!"


def test_a_box_that_was_changed_is_opened(host: Host, agent: AgentProcess, root: Path) -> None:
    sealed = SealedHost(host)
    asked = sealed.seal("password", {"value": "Passw0rd!"})
    request = json.loads(asked.message.node)
    value = json.loads(request["value"])
    box = bytearray(base64.b64decode(value["box"]))
    box[-20] ^= 1
    value["box"] = base64.b64encode(box).decode()
    host.send_bytes(json.dumps({**request, "value": json.dumps(value)}).encode(), asked.request_id)
    assert host.reply(asked.request_id)["outcome"] == "refused"
    assert shadow(root, "root") == "!"


def test_a_password_stands_on_a_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, events: list[tuple[str, tuple[Any, ...]]]
) -> None:
    from guest_agent.system.linux import LinuxSystem

    told = tmp_path / "told"
    fake = tmp_path / "chpasswd"
    fake.write_text(f'#!/bin/sh\ncat > {told}; echo "$0 $@" > {told}.arguments\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    LinuxSystem().set_password("root", Password("very secret words"))
    assert told.read_text() == "root:very secret words\n"
    started = [arguments for event, arguments in events if event == "subprocess.Popen"]
    assert len(started) == 1
    assert "secret" not in repr(started) + (tmp_path / "told.arguments").read_text()


def test_a_line_break_in_a_password_sets_another_accounts_too() -> None:
    for separator in ("\n", "\r", "\0"):
        with pytest.raises(Refused):
            Password(f"harmless{separator}root:chosen")


@pytest.mark.parametrize("locked", ["*", "!", "!!", "!$y$j9T$salt$hash", "$y$j9T$salt$" + "h" * 43, ""])
def test_a_locked_or_modern_hash_becomes_a_weak_or_impossible_one(root: Path, locked: str) -> None:
    from passlib.hash import sha512_crypt

    (root / "etc/shadow").write_text(f"root:{locked}:19000:0:99999:7:::\nann:x:1::::::\n")
    DirectorySystem(str(root)).set_password("root", Password("longer than eight characters"))
    assert sha512_crypt.verify("longer than eight characters", shadow(root, "root"))
    assert not sha512_crypt.verify("longer t", shadow(root, "root"))


def test_a_hash_that_no_crypt_makes_is_written_to_shadow() -> None:
    for impossible in ("*0", "*1", "abJnggxhB/yWI", "plain text", "$y$abc", "$1$salt$hash", ""):
        with pytest.raises(Refused):
            PasswordHash(impossible)


def test_shadow_is_missing_for_a_moment(root: Path, events: list[tuple[str, tuple[Any, ...]]]) -> None:
    DirectorySystem(str(root)).set_password("root", Password("Passw0rd!"))
    renames = [arguments[:2] for event, arguments in events if event == "os.rename"]
    # One rename, onto the file itself; nothing takes it away before.
    assert [os.fspath(target) for _, target in renames] == ["shadow"]
    assert not [arguments for event, arguments in events if event == "os.remove" and "shadow" in repr(arguments)]


def test_shadows_mode_and_the_other_accounts_change(root: Path) -> None:
    before = (root / "etc/shadow").read_text().splitlines()
    DirectorySystem(str(root)).set_password("root", Password("Passw0rd!"))
    after = (root / "etc/shadow").read_text().splitlines()
    assert [line for line in before if not line.startswith("root")] == [
        line for line in after if not line.startswith("root")
    ]
    assert (root / "etc/shadow").stat().st_mode & 0o7777 == 0o640


# Files


@pytest.mark.parametrize("name", ["x.ps1", "key1", "with,comma", "with space", "ünïcode", "a" * 255, "-rf", "..."])
def test_names_that_the_peers_cannot_write(agent: AgentProcess, host: Host, root: Path, name: str) -> None:
    assert host.ask("file_inject", file_inject(f"/etc/{name}", b"content"))["returncode"] == "0"
    assert (root / "etc" / name).read_bytes() == b"content"


def test_a_path_leads_out_of_where_it_says(agent: AgentProcess, host: Host, root: Path) -> None:
    assert host.ask("file_inject", file_inject("/../../../escaped", b"x"))["returncode"] == "0"
    assert (root / "escaped").read_bytes() == b"x"
    assert not (root.parent / "escaped").exists()


def test_a_symbolic_link_is_replaced_by_a_file(agent: AgentProcess, host: Host, root: Path) -> None:
    (root / "etc/target").write_text("old")
    (root / "etc/link").symlink_to("target")
    assert host.ask("file_inject", file_inject("/etc/link", b"new"))["outcome"] == "refused"
    assert (root / "etc/link").is_symlink()
    assert (root / "etc/target").read_text() == "old"


def test_a_file_is_missing_or_half_written_for_a_moment(
    root: Path, events: list[tuple[str, tuple[Any, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "etc/motd").write_text("old")
    synced: list[str] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        assert (root / "etc/motd").read_text() in ("old", "new")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_file(str(root), GuestPath("/etc/motd"), b"new")
    # The content reaches the disk before its name does, and then the name.
    assert len(synced) == 2
    assert synced[1] == "etc" != synced[0]
    assert [os.fspath(arguments[1]) for event, arguments in events if event == "os.rename"] == ["motd"]
    opened = [arguments for event, arguments in events if event == "open" and arguments[0] == "motd"]
    assert not [arguments for arguments in opened if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC)]


def test_a_large_file_is_written_in_part(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    write_file(str(root), GuestPath("/etc/long"), b"0123456789" * 100)
    assert (root / "etc/long").read_bytes() == b"0123456789" * 100


def test_mode_and_owner_of_what_is_replaced_are_lost(root: Path) -> None:
    (root / "etc/motd").write_text("old")
    (root / "etc/motd").chmod(0o604)
    write_file(str(root), GuestPath("/etc/motd"), b"new")
    assert (root / "etc/motd").stat().st_mode & 0o7777 == 0o604
    write_file(str(root), GuestPath("/etc/fresh"), b"new")
    assert (root / "etc/fresh").stat().st_mode & 0o7777 == 0o600


def test_the_temporary_name_can_be_foreseen(root: Path, events: list[tuple[str, tuple[Any, ...]]]) -> None:
    for _ in range(3):
        write_file(str(root), GuestPath("/etc/motd"), b"new")
    sources = [os.fspath(arguments[0]) for event, arguments in events if event == "os.rename"]
    assert len({*sources}) == 2
    assert names(root / "etc") == ["group", "motd", "passwd", "shadow"]


def test_a_path_takes_exponential_time() -> None:
    # The peers' pattern quadruples its time with every two segments; here 2,000 are as good as 20.
    assert GuestPath("/" + "a/" * 2000 + "b").name == "b"
    with pytest.raises(Refused):
        GuestPath("/" + "a/" * 2000)


def test_ssh_keys_replace_those_that_are_there(agent: AgentProcess, host: Host, root: Path) -> None:
    keys = root / "home/ann/.ssh/authorized_keys"
    keys.parent.mkdir(mode=0o700)
    present = f"{ssh_key(1, 'by hand')}\n# a comment\n"
    keys.write_text(present)
    SealedHost(host).ask("ssh_keys", {"user": "ann", "add": [ssh_key(2)]}).raise_unless_successful()
    assert keys.read_text() == f"{present}{ssh_key(2)}\n"


# What is shown


def test_contents_and_ciphertexts_are_logged(agent: AgentProcess, host: Host) -> None:
    content = b"the content of the file"
    assert host.ask("injectfile", injectfile("/etc/motd", content))["returncode"] == "0"
    host.ask("password", base64.b64encode(b"the ciphertext!!").decode())
    agent.end()
    for shown in (content.decode(), base64.b64encode(content).decode()[4:-4], "dGhlIGNpcGhlcnRleHQ"):
        assert shown not in agent.log
    assert "injectfile" in agent.log


def test_the_agent_listens_on_the_network(agent: AgentProcess, host: Host) -> None:
    host.ask("version")
    descriptors = Path(f"/proc/{agent.process.pid}/fd")
    own = {entry.readlink().name for entry in descriptors.iterdir()}
    for table in ("tcp", "tcp6", "udp", "udp6", "raw"):
        for line in Path(f"/proc/{agent.process.pid}/net/{table}").read_text().splitlines()[1:]:
            assert f"socket:[{line.split()[9]}]" not in own, line


# Updates


@pytest.mark.parametrize(
    "value", ["http://example.org/a.tar,0" * 2, "file:///etc/passwd,d41d8cd98f00b204e9800998ecf8427e"]
)
def test_an_update_from_anywhere_with_an_md5_is_installed(agent: AgentProcess, host: Host, value: str) -> None:
    reply = host.ask("agentupdate", value)
    assert (reply["outcome"], reply["returncode"]) == ("unsupported", "404")


# The connection


def test_a_reply_goes_to_an_arbitrary_caller(host: Host) -> None:
    """Many ask at once; nobody gets another's answer."""
    import concurrent.futures

    for number in range(20):
        host.write(f"data/node{number}", str(number).encode())
    with concurrent.futures.ThreadPoolExecutor(8) as callers:
        for number, value in callers.map(lambda n: (n, host.read(f"data/node{n % 20}")), range(400)):
            assert value == str(number % 20).encode()


def test_values_beyond_what_the_daemons_take_are_sent(host: Host, agent: AgentProcess) -> None:
    assert MAX_VALUE <= 2000
    sealed = SealedHost(host)
    result = sealed.ask("file_put", {"path": "/etc/large", "content": base64.b64encode(b"x" * 90000).decode()})
    result.raise_unless_successful()
    assert 0 < sealed.most_alive <= 32


def test_the_shared_group_protects_what_is_sealed() -> None:
    """The old exchange lives in one module, and nothing of the sealed protocol leans on it."""
    for module in ("hpke", "sealed", "agent_keys", "identity", "adverts"):
        source = (Path(agent_protocol.__file__).parent / f"{module}.py").read_text()
        imported = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
        assert "legacy" not in {node.module for node in imported}


def test_objects_of_python_are_read_from_the_wire() -> None:
    """No pickle and its like, and nothing evaluated, in what runs in the guest."""
    for package in (agent_protocol, guest_agent):
        for path in Path(package.__path__[0]).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    modules = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
                    assert not modules & {"pickle", "marshal", "shelve", "yaml"}, path
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in ("eval", "exec"), path


def test_a_guest_without_a_known_system_gets_a_stack_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    from guest_agent import system

    monkeypatch.setattr("platform.system", lambda: "Plan 9")
    with pytest.raises(Unsupported, match="Plan 9"):
        system.choose("/")
