from __future__ import annotations

import json
import signal
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_protocol.legacy import HostExchange
from agent_protocol.messages import ADVERT, CLAIMS, REPLIES, REQUESTS, parse_advert
from agent_protocol.wire import Operation
from agent_protocol.xenstore import Client, StoreError
from guest_agent import VERSION
from guest_agent.commands import COMMANDS, Command, Context, Result
from guest_agent.nodes import Nodes

from .conftest import ANNOUNCED, DEADLINE, AgentProcess, Host, agent_in_thread

StartAgent = Callable[..., AgentProcess]


def noting(seen: list[str]) -> Callable[[Context, str], Result]:
    """A command that notes its value and gives it back."""

    def note(context: Context, text: str) -> Result:
        seen.append(text)
        return Result(text)

    return note


def made_up(name: str, run: Callable[[Context, str], Result]) -> dict[str, Command]:
    return {**COMMANDS, name: Command(name, run, "0", 4096, False)}


# As a process


def test_advert_tells_version_and_commands(agent: AgentProcess, host: Host) -> None:
    advert = parse_advert(host.read(ADVERT) or b"")
    assert advert.version == VERSION
    assert advert.boot_id
    assert advert.features == ANNOUNCED
    assert host.ask("features")["message"].split(",") == list(advert.features)


def test_each_start_has_its_own_boot_id(start_agent: StartAgent, host: Host) -> None:
    seen = set()
    for _ in range(2):
        started = start_agent()
        host.wait_for_agent()
        seen.add(parse_advert(host.read(ADVERT) or b"").boot_id)
        assert started.end() == 0
    assert len(seen) == 2


def test_success(agent: AgentProcess, host: Host) -> None:
    reply = host.ask("version", "agent")
    assert reply == {"returncode": "0", "message": VERSION, "outcome": "succeeded"}
    host.assert_nothing_left()


def test_legacy_password_reset_end_to_end(agent: AgentProcess, host: Host, root: Path) -> None:
    exchange = HostExchange()
    answer = host.ask("keyinit", exchange.public)
    assert answer["returncode"] == "D0"
    sealed = exchange.seal("пароль-ß-密", answer["message"])
    assert host.ask("password", sealed) == {"returncode": "0", "message": "", "outcome": "succeeded"}
    from passlib.hash import sha512_crypt

    line = next(line for line in (root / "etc/shadow").read_text().splitlines() if line.startswith("root:"))
    assert sha512_crypt.verify("пароль-ß-密", line.split(":")[1])
    assert host.ask("password", sealed)["code"] == "no_key"
    agent.end()
    assert "пароль" not in agent.log
    assert sealed not in agent.log


BAD_REQUESTS = [
    (b"", "bad_request"),
    (b"{", "bad_request"),
    (b"null", "bad_request"),
    (b'"text"', "bad_request"),
    (b"\xff\xfe\x00\x01", "bad_request"),
    (b"[" * 2000, "bad_request"),
    (b'{"name":5,"value":""}', "bad_request"),
    (b'{"name":"version","value":{}}', "bad_request"),
    (b'{"name":"file_put","value":"' + b"A" * 1950 + b'"}', "bad_arguments"),
    (b'{"name":"version","value":"' + b"A" * 1950 + b'"}', None),
    (b'{"name":"keyinit","value":"NaN"}', "bad_public_number"),
    (b'{"name":"keyinit","value":"0"}', "bad_public_number"),
    (b'{"name":"password","value":"!"}', "no_key"),
    (b'{"name":"injectfile","value":"cmVsYXRpdmUscGF0aA=="}', "bad_path"),
    (b'{"name":"file_put","value":"{\\"path\\":\\"/\\\\ud800\\",\\"content\\":\\"\\"}"}', "bad_path"),
    (b'{"name":"ssh_keys","value":"{\\"user\\":\\"ann\\",\\"add\\":[\\"\\\\ud800\\"]}"}', "bad_key"),
]


def test_bad_requests_are_answered_and_survived(agent: AgentProcess, host: Host) -> None:
    for value, code in BAD_REQUESTS:
        reply = host.reply(host.send_bytes(value))
        assert reply.get("code") == code, value
        if code is not None:
            assert (reply["returncode"], reply["outcome"]) == ("500", "refused")
        assert host.ask("version")["returncode"] == "0"
        host.assert_nothing_left()


def test_unknown_commands_are_unsupported(agent: AgentProcess, host: Host) -> None:
    for name in ("", "__class__", "hostname_file", "frobnicate\nx", "VERSION", "run"):
        reply = host.ask(name)
        assert (reply["returncode"], reply["outcome"], reply["code"]) == ("404", "unsupported", "unknown_command")
    agent.end()
    assert "frobnicate" not in agent.log


def test_requests_that_wait_before_the_start(start_agent: StartAgent, host: Host) -> None:
    first, second = host.send("version"), host.send("features")
    start_agent()
    assert host.reply(first)["message"] == VERSION
    assert "version" in host.reply(second)["message"]
    host.assert_nothing_left()


def test_leftover_claim_is_answered_unknown(start_agent: StartAgent, host: Host, root: Path) -> None:
    value = json.dumps({"path": "/effect", "content": ""})
    request_id = host.send("file_put", value)
    host.write(f"{CLAIMS}/{request_id}", b"")
    start_agent()
    reply = host.reply(request_id)
    assert (reply["returncode"], reply["outcome"], reply["code"]) == ("500", "unknown", "agent_restarted")
    assert not (root / "effect").exists()
    host.assert_nothing_left()


BLOCKING = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from guest_agent.commands.table import BOTH, Result, command
    from guest_agent.__main__ import main

    @command("block", tables=BOTH, parse=str)
    def block(context, untrusted):
        with (Path(context.system.root) / "effects").open("a") as file:
            file.write("once ")
        while (Path(context.system.root) / "blocked").exists():
            time.sleep(0.01)
        return Result("done")

    sys.exit(main())
    """
)


def blocked(start_agent: StartAgent, host: Host, root: Path) -> tuple[AgentProcess, str]:
    """An agent in the middle of a command, which goes on once `blocked` is removed."""
    (root / "blocked").touch()
    started = start_agent(BLOCKING)
    host.wait_for_agent()
    request_id = host.send("block")
    deadline = time.monotonic() + DEADLINE
    while not (root / "effects").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert host.children(CLAIMS) == [request_id]
    return started, request_id


def test_killed_in_the_middle_is_unknown_and_happens_once(start_agent: StartAgent, host: Host, root: Path) -> None:
    killed, request_id = blocked(start_agent, host, root)
    killed.process.kill()
    killed.process.wait(DEADLINE)
    start_agent(BLOCKING)
    assert host.reply(request_id)["outcome"] == "unknown"
    assert (root / "effects").read_text() == "once "


def test_sigterm_lets_the_request_in_hand_end(start_agent: StartAgent, host: Host, root: Path) -> None:
    started, request_id = blocked(start_agent, host, root)
    waiting = host.send("version")
    started.process.send_signal(signal.SIGTERM)
    (root / "blocked").unlink()
    assert host.reply(request_id)["message"] == "done"
    assert started.process.wait(DEADLINE) == 0
    assert host.read(ADVERT) is None
    assert (host.children(REQUESTS), host.children(CLAIMS)) == ([waiting], [])


def test_an_answer_that_was_given_before_the_end_stands(start_agent: StartAgent, host: Host, root: Path) -> None:
    request_id = host.send("version")
    host.write(f"{CLAIMS}/{request_id}", b"")
    host.write(f"{REPLIES}/{request_id}", b"given")
    start_agent()
    host.wait(lambda: host.children(CLAIMS) == [], "the claim's removal")
    assert host.read(f"{REPLIES}/{request_id}") == b"given"
    assert host.children(REQUESTS) == []


def test_withdrawn_while_it_worked_leaves_nothing(start_agent: StartAgent, host: Host, root: Path) -> None:
    started, request_id = blocked(start_agent, host, root)
    host.remove(f"{REQUESTS}/{request_id}")
    (root / "blocked").unlink()
    assert host.ask("version")["message"] == VERSION
    host.assert_nothing_left()
    assert started.end() == 0


def test_sigterm(agent: AgentProcess, host: Host) -> None:
    assert agent.end() == 0
    assert host.read(ADVERT) is None


def test_one_log_line_for_each_command_without_arguments(agent: AgentProcess, host: Host) -> None:
    request_id = host.send("file_put", json.dumps({"path": "/etc/hidden", "content": "c2VjcmV0", "mode": "0640"}))
    assert host.reply(request_id)["outcome"] == "succeeded"
    agent.end()
    lines = [line for line in agent.log.splitlines() if request_id in line]
    assert len(lines) == 1
    assert lines[0].endswith(" s succeeded")
    assert "file_put" in lines[0]
    assert not any(word in agent.log for word in ("hidden", "c2VjcmV0", "0640"))


def test_idle_agent_does_not_wake_up(agent: AgentProcess, host: Host) -> None:
    def switches() -> list[str]:
        tasks = sorted(Path(f"/proc/{agent.process.pid}/task").iterdir())
        statuses = [(task / "status").read_text().splitlines() for task in tasks]
        return [line for status in statuses for line in status if line.startswith("voluntary")]

    host.ask("version")
    before: list[str] = []
    deadline = time.monotonic() + DEADLINE
    while before != (before := switches()):  # until the events of its own removals are read
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)
    assert switches() == before


# In this process, with commands that are made up


@pytest.mark.parametrize("error", [ValueError("s3cret"), SystemExit(3), RecursionError(), BaseException("s3cret")])
def test_any_exception_is_answered(
    host: Host, context: Context, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(context: Context, untrusted: str) -> Result:
        raise error

    with agent_in_thread(host, context, made_up("crash", crash)):
        reply = host.ask("crash")
        assert (reply["returncode"], reply["outcome"], reply["code"]) == ("500", "failed", "internal_error")
        assert "s3cret" not in json.dumps(reply)
        assert host.ask("version")["returncode"] == "0"
    assert "s3cret" not in caplog.text
    assert f"{type(error).__name__} < crash (" in caplog.text


def test_a_long_message_is_cut(host: Host, context: Context) -> None:
    with agent_in_thread(host, context, made_up("talk", lambda context, untrusted: Result("ü" * 5000))):
        assert set(host.ask("talk")["message"]) == {"ü"}


def test_requests_are_served_in_order(host: Host, context: Context) -> None:
    order: list[str] = []
    for number in ("3", "1", "2"):
        host.send("note", number, f"id-{number}")
    with agent_in_thread(host, context, made_up("note", noting(order))):
        for number in ("3", "2", "1"):
            host.reply(f"id-{number}")
    assert order == ["1", "2", "3"]


def test_an_id_is_never_carried_out_twice(host: Host, context: Context) -> None:
    runs: list[str] = []
    with agent_in_thread(host, context, made_up("note", noting(runs))):
        assert host.reply(host.send("note", "a", "same"))["outcome"] == "succeeded"
        again = host.reply(host.send("note", "b", "same"))
    assert (again["outcome"], again["code"], runs) == ("unknown", "request_id_reused", ["a"])


def test_withdrawn_before_it_was_read(host: Host, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    # The host withdraws between the agent's listing and its reading: simulated by a listing that is too old.
    runs: list[str] = []
    monkeypatch.setattr(
        Nodes,
        "children",
        lambda self, path: ["withdrawn", *Client.directory(self._store, path)] if path == REQUESTS else [],
    )
    host.store.mkdir(host.path(REQUESTS))
    with agent_in_thread(host, context, made_up("note", noting(runs))):
        host.wait_for_agent()
        assert host.ask("version")["returncode"] == "0"
        host.wait(lambda: host.children(CLAIMS) == [], "the claim's removal")
        assert (host.children(REPLIES), runs) == ([], [])


def test_claims_of_an_earlier_run_are_cleared(host: Host, context: Context) -> None:
    host.write(f"{CLAIMS}/orphan", b"")
    with agent_in_thread(host, context, COMMANDS):
        host.ask("version")
        assert host.children(CLAIMS) == []


def test_advert_that_vanished_is_written_again(host: Host, context: Context) -> None:
    with agent_in_thread(host, context, COMMANDS):
        host.wait_for_agent()
        host.remove(ADVERT)
        host.wait_for_agent()


def directory_refused(monkeypatch: pytest.MonkeyPatch, path: str, times: int) -> None:
    """Make the store refuse to list `path` as many times."""
    directory = Client.directory
    left = times

    def refuse(self: Client, asked: str) -> list[str]:
        nonlocal left
        if asked == path and left:
            left -= 1
            raise StoreError(Operation.DIRECTORY, asked, "EIO")
        return directory(self, asked)

    monkeypatch.setattr(Client, "directory", refuse)


def test_no_start_without_the_claims(host: Host, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    host.send("note", "interrupted", "id")
    host.write(f"{CLAIMS}/id", b"")
    directory_refused(monkeypatch, CLAIMS, times=2)
    with agent_in_thread(host, context, made_up("note", noting(runs))):
        assert host.reply("id")["code"] == "agent_restarted"
    assert runs == []


def test_requests_that_cannot_be_listed_are_looked_for_again(
    host: Host, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent_in_thread(host, context, COMMANDS):
        host.wait_for_agent()
        host.ask("version")
        directory_refused(monkeypatch, REQUESTS, times=1)
        first = host.send("version")
        second = host.send("version")
        assert [host.reply(one)["returncode"] for one in (first, second)] == ["0", "0"]


def refusing(prefix: str, refused: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the store refuse the agent's writes below `prefix`, as for quota, until the returned function is called."""
    write = Client.write
    full = True

    def refuse(self: Client, path: str, value: bytes) -> None:
        if full and path.startswith(prefix):
            refused.set()
            raise StoreError(Operation.WRITE, path, "ENOSPC")
        write(self, path, value)

    def relent() -> None:
        nonlocal full
        full = False

    monkeypatch.setattr(Client, "write", refuse)
    return relent


@pytest.mark.parametrize("prefix", [REPLIES, CLAIMS])
def test_refused_writes_are_tried_again(
    host: Host, context: Context, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    runs: list[str] = []
    host.write(f"{REPLIES}/old", b"{}")
    refused = threading.Event()
    relent = refusing(prefix, refused, monkeypatch)
    with agent_in_thread(host, context, made_up("note", noting(runs))):
        request_id = host.send("note", "kept")
        assert refused.wait(DEADLINE)
        assert host.read(f"{REPLIES}/{request_id}") is None
        assert runs == (["kept"] if prefix == REPLIES else [])
        # One that the agent does not know: the old one it may have removed itself, for want of room.
        host.write(f"{REPLIES}/late", b"{}")
        relent()
        # Removing replies makes room, and is all that the host does.
        for name in ("old", "late"):
            host.remove(f"{REPLIES}/{name}")
        assert host.reply(request_id)["message"] == "kept"
    assert runs == ["kept"]
    host.assert_nothing_left()


def test_ids_too_long_to_be_claimed_harm_nobody(host: Host, context: Context, caplog: pytest.LogCaptureFixture) -> None:
    with agent_in_thread(host, context, COMMANDS):
        # The path of the request is as long as the daemon lets it be, the claim's would be longer.
        host.send("version", "", "x" * 1010)
        assert host.ask("version")["returncode"] == "0"


_VALUES = st.one_of(
    st.binary(max_size=1500),
    st.builds(
        lambda name, value: json.dumps({"name": name, "value": value}).encode(),
        st.one_of(st.sampled_from(sorted(COMMANDS)), st.text(max_size=20)),
        st.one_of(
            st.text(max_size=150),
            st.recursive(
                st.one_of(st.none(), st.integers(), st.text(max_size=8)),
                lambda inner: st.one_of(
                    st.lists(inner, max_size=3),
                    st.dictionaries(
                        st.sampled_from(["path", "content", "mode", "owner", "user", "add", "b64_path", "b64_file"]),
                        inner,
                        max_size=4,
                    ),
                ),
                max_leaves=6,
            ).map(json.dumps),
        ),
    ),
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(values=st.lists(_VALUES.filter(lambda value: len(value) <= 2000), min_size=1, max_size=5))
def test_random_requests_get_exactly_one_reply(agent: AgentProcess, host: Host, values: list[bytes]) -> None:
    for request_id in [host.send_bytes(value) for value in values]:
        reply = host.reply(request_id)
        assert (reply["outcome"] == "succeeded") is (reply["returncode"] in ("0", "D0"))
    host.assert_nothing_left()
    assert agent.process.poll() is None
