"""The existing clouds' software on the other side: their host asks our agent, our host asks their agents."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .house import FIRST_PASSWORD, SECOND_PASSWORD, Done, House, house
from .nova_host import AgentError, NovaHost
from .rackspace_agents import agent_command
from .test_outcomes import ended

POLL = 0.02
"""Seconds between two looks of the host of Nova's or of an agent; both take half a second or more in earnest."""

REPLIES_LEFT = 60
"""Replies that nobody removes: more than the 53 whose names C xenstored lets stand in one directory."""


@pytest.fixture(scope="module", autouse=True)
def own_pace() -> Iterator[tuple[House, str, subprocess.Popen[str]]]:
    """A reset that goes on while the other tests run: with nova-agent's own poll it takes up to 20 seconds."""
    with tempfile.TemporaryDirectory(prefix="xw-") as name, rackspace(Path(name), "unix", timeout="30") as home:
        instance = home.create()
        (home.guest(instance) / "poll").write_text("10")
        arguments = ("server", "password", "set", "web", "--password-stdin", "-f", "json")
        yield home, instance, home.start(*arguments, stdin=SECOND_PASSWORD + "\n")


# Nova asks our agent


@contextmanager
def nova(home: House, instance: str, digest: str | None = None) -> Iterator[NovaHost]:
    with home.store() as store:
        yield NovaHost(store, home.vm(instance)["domid"], poll=POLL, timeout=3.0, digest=digest)


def test_our_agent_serves_nova(home: House) -> None:
    instance = home.create()
    guest = home.guest(instance)
    with nova(home, instance) as host:
        assert host.version() == "0.1.0"
        assert {"keyinit", "password", "injectfile", "file_inject"} <= set(host.features())
        host.inject_file("/etc/one", b"1,2\n")
        host.inject_file_the_old_way("/etc/two", b"3,4\n")
        assert (guest / "etc/one").read_bytes() == b"1,2\n"
        assert (guest / "etc/two").read_bytes() == b"3,4\n"
        # As Nova calls it on this machine's openssl; and as it was on those before 1.1.
        for digest in (None, "sha256", "md5"):
            password = f"for-{digest}-пароль"
            NovaHost(host._store, home.vm(instance)["domid"], poll=POLL, digest=digest).set_admin_password(password)
            assert home.opens(instance, password), digest
        with pytest.raises(AgentError, match="404"):
            host.ask("kmsactivate", "127.0.0.1:1688")
        with pytest.raises(AgentError, match="500"):
            host.ask("password", "AAAA")
        # What resetnetwork is answered with does not matter to Nova; that it is answered does.
        assert host.resetnetwork() in (True, False)


def test_replies_that_nobody_removes_do_not_silence_our_agent(home: House) -> None:
    instance = home.create()
    with nova(home, instance) as host:
        for number in range(REPLIES_LEFT):
            assert host.version() == "0.1.0", number
    # Our own host still gets through.
    assert home.set_password(SECOND_PASSWORD).status == 0
    assert home.opens(instance, SECOND_PASSWORD)


# We ask Rackspace's agents


@contextmanager
def rackspace(directory: Path, kind: str, **agent: str) -> Iterator[House]:
    with house(directory, *agent_command(kind, 0.1)) as it:
        it.configure(agent={"boot_timeout": "60", **agent})
        yield it


def outcomes(home: House) -> list[tuple[str, str, str]]:
    return [(row["action"], row["outcome"], row["code"]) for row in home.actions() if not row["step"]]


def legacy_uses(home: House) -> int:
    """Rows of the audit trail that warn of the old protocol."""
    return json.dumps(home.actions()).count("legacy_protocol")


def put(home: House, local: Path, path: str, *options: str) -> Done:
    return home.xenward("server", "file", "put", "web", str(local), path, *options)


def test_a_nova_agent_does_what_we_ask(directory: Path) -> None:
    with rackspace(directory, "unix") as home:
        instance = home.create()
        guest = home.guest(instance)
        assert home.opens(instance, FIRST_PASSWORD)
        assert home.set_password(SECOND_PASSWORD + "ß").status == 0
        assert home.opens(instance, SECOND_PASSWORD + "ß")
        (directory / "file").write_text("a,b\n")
        assert put(home, directory / "file", "/etc/file").status == 0
        assert (guest / "etc/file").read_text() == "a,b\n"
        assert legacy_uses(home) >= 3

        # It says success to everything that it does not know, and so it is not asked for such things.
        before = {path: path.read_bytes() for path in guest.rglob("*") if path.is_file()}
        ended(put(home, directory / "file", "/etc/other", "--mode", "0644"), "unsupported", "file_mode_unsupported")
        ended(put(home, directory / "file", "/etc/a,b"), "unsupported", "file_path_unsupported")
        ended(home.xenward("server", "password", "generate", "web"), "unsupported", "agent_not_sealed")
        assert {path: path.read_bytes() for path in guest.rglob("*") if path.is_file()} == before


def test_a_nova_agent_that_died_of_a_file_did_not_succeed(directory: Path) -> None:
    with rackspace(directory, "unix", timeout="1") as home:
        instance = home.create()
        (directory / "binary").write_bytes(b"\xff\xfe\x00")
        # It dies of what is not UTF-8, with the request in its hands.
        done = put(home, directory / "binary", "/etc/binary")
        ended(done, "unknown", "agent_no_answer")
        assert not (home.guest(instance) / "etc/binary").exists()
        done = home.set_password(SECOND_PASSWORD)
        ended(done, "unreachable", "agent_no_answer")
        assert home.opens(instance, FIRST_PASSWORD)


def test_a_nova_agent_at_its_own_pace(own_pace: tuple[House, str, subprocess.Popen[str]]) -> None:
    home, instance, reset = own_pace
    assert home.end(reset).status == 0
    assert home.opens(instance, SECOND_PASSWORD)
    assert home.last_action() == ("set_admin_password", "succeeded", "legacy_protocol")


def test_a_windows_agent_does_what_we_ask(directory: Path) -> None:
    with rackspace(directory, "windows", timeout="1") as home:
        instance = home.create()
        guest = home.guest(instance)
        assert (guest / "administrator-password").read_text() == FIRST_PASSWORD
        # 16 bytes with its line break, so that there is a whole block of padding.
        assert home.set_password("fifteen-letters").status == 0
        assert (guest / "administrator-password").read_text() == "fifteen-letters"
        (directory / "file").write_text("a,b\r\n")
        assert put(home, directory / "file", "/temp/file.txt").status == 0
        assert (guest / "temp/file.txt").read_bytes() == b"a,b\r\n"
        assert legacy_uses(home) >= 3

        refused = put(home, directory / "file", "/temp/script.ps1")
        ended(refused, "failed", "agent_error")
        assert refused.shown["message"] == "Invalid file path"
        (directory / "file").write_bytes(b"\xff")
        ended(put(home, directory / "file", "/temp/other.txt"), "unknown", "agent_no_answer")
        assert [path.name for path in (guest / "temp").iterdir()] == ["file.txt"]


def test_a_password_that_a_windows_agent_cannot_read_is_no_success(directory: Path) -> None:
    with rackspace(directory, "windows", timeout="1") as home:
        instance = home.create()
        done = home.set_password("пароль-ß")
        told = (home.guest(instance) / "administrator-password").read_text()
        assert (done.status == 0) is (told == "пароль-ß"), (done, told)
