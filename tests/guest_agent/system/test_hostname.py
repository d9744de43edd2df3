from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Failed, Refused, Unsupported
from guest_agent.system import hostname, posix
from guest_agent.system.directory import DirectorySystem
from guest_agent.system.hostname import HostName
from guest_agent.system.linux import LinuxSystem


@pytest.fixture
def system(root: Path) -> DirectorySystem:
    (root / "etc/os-release").write_text("ID=debian\n")
    return DirectorySystem(str(root))


@pytest.mark.parametrize("name", ["a", "web-1", "WEB", "3com.example.com", "a" * 63, "a." * 31 + "aa", "x--y", "1a"])
def test_names(name: str) -> None:
    assert HostName(name).value == name
    assert HostName("web-1.example.com").short == "web-1"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a",
        "a-",
        "a.-b",
        "a_b",
        "a b",
        "a\n",
        "ä",
        "a" * 64,
        "a." * 32 + "a",
        "127.0.0.1",
        "5",
    ],
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(Refused) as caught:
        HostName(name)
    assert caught.value.code == "bad_hostname"


@given(st.text(max_size=70))
def test_nothing_but_refusals(name: str) -> None:
    try:
        accepted = HostName(name).value
    except Refused:
        return
    assert len(accepted.encode()) <= 64
    assert accepted.isascii()


def test_set(system: DirectorySystem, root: Path) -> None:
    system.set_hostname(HostName("web-1"))
    assert (root / "etc/hostname").read_text() == "web-1\n"
    assert (root / "etc/hostname").stat().st_mode & 0o7777 == 0o644
    assert system.hostname() == "web-1"
    assert not (root / "etc/hosts").exists()
    (root / "etc/hostname").chmod(0o600)
    system.set_hostname(HostName("web-2.example.com"))
    assert (root / "etc/hostname").read_text() == "web-2.example.com\n"
    assert (root / "etc/hostname").stat().st_mode & 0o7777 == 0o600


def test_unknown_distribution(system: DirectorySystem, root: Path) -> None:
    (root / "etc/os-release").write_text("ID=gentoo\n")
    with pytest.raises(Unsupported) as caught:
        system.set_hostname(HostName("web-1"))
    assert caught.value.code == "unknown_distribution"
    assert not (root / "etc/hostname").exists()


@pytest.mark.parametrize(
    ("before", "name", "after"),
    [
        ("127.0.1.1\told", "new", "127.0.1.1\tnew"),
        ("127.0.1.1 old.example.com  old", "new", "127.0.1.1 new.example.com new"),
        ("127.0.1.1\told.example.com old", "new.example.org", "127.0.1.1\tnew.example.org new"),
        ("127.0.1.1\told", "new.example.org", "127.0.1.1\tnew.example.org new"),
        ("127.0.1.1 old alias.local alias # mine", "new", "127.0.1.1 new alias.local alias # mine"),
        ("127.0.1.1 other", "new", "127.0.1.1 new other"),
        ("127.0.1.1 old new", "new", "127.0.1.1 new"),
        ("127.0.1.1 old\n127.0.1.1 old", "new", "127.0.1.1 new\n127.0.1.1 old"),
        ("127.0.1.10 old", "new", "127.0.1.10 old"),
        ("#127.0.1.1 old", "new", "#127.0.1.1 old"),
        ("192.0.2.1 old", "new", "192.0.2.1 old"),
    ],
)
def test_the_machines_own_line_of_hosts(
    system: DirectorySystem, root: Path, before: str, name: str, after: str
) -> None:
    (root / "etc/hostname").write_text("old\n")
    (root / "etc/hosts").write_bytes(f"127.0.0.1 localhost old\n{before}\n::1 old \xff\n".encode("latin-1"))
    (root / "etc/hosts").chmod(0o640)
    system.set_hostname(HostName(name))
    assert (root / "etc/hosts").read_bytes() == f"127.0.0.1 localhost old\n{after}\n::1 old \xff\n".encode("latin-1")
    assert (root / "etc/hosts").stat().st_mode & 0o7777 == 0o640


def test_hosts_that_is_a_link_is_left_alone(system: DirectorySystem, root: Path) -> None:
    (root / "etc/hosts").symlink_to("static-hosts")
    system.set_hostname(HostName("new"))
    assert system.hostname() == "new"


class Stubborn(DirectorySystem):
    """A system that does not take a new name."""

    def _activate_hostname(self, name: HostName) -> None:
        raise Failed("hostname_failed", "no")


@pytest.mark.parametrize("before", [None, b"# old \xff"])
def test_the_old_name_comes_back(system: DirectorySystem, root: Path, before: bytes | None) -> None:
    if before is not None:
        (root / "etc/hostname").write_bytes(before)
    with pytest.raises(Failed, match="no; the old name is back"):
        Stubborn(str(root)).set_hostname(HostName("new"))
    assert (root / "etc/hostname").exists() == (before is not None)
    assert before is None or (root / "etc/hostname").read_bytes() == before


def test_success_means_that_it_was_read_back(system: DirectorySystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostname, "write_file", lambda *arguments, **options: None)
    with pytest.raises(Failed, match="has another name nevertheless"):
        system.set_hostname(HostName("new"))


def test_hosts_that_cannot_be_written(system: DirectorySystem, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> NoReturn:
        raise Failed("enospc", "ENOSPC")

    monkeypatch.setattr(posix, "rename_in_hosts", full)
    with pytest.raises(Failed, match="the name is set, but not in /etc/hosts: ENOSPC"):
        system.set_hostname(HostName("new"))


@pytest.mark.parametrize("error", [PermissionError(1, "Operation not permitted"), None])
def test_the_kernels_word(
    system: DirectorySystem, root: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None
) -> None:
    def refuse(name: str) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(socket, "sethostname", refuse)
    running = LinuxSystem()
    running.root = str(root)
    with pytest.raises(Failed) as caught:
        running.set_hostname(HostName("xenward-test"))
    assert ("Operation not permitted" if error else "another one nevertheless") in caught.value.message
    assert not (root / "etc/hostname").exists()


@pytest.mark.services
def test_the_running_kernel(system: DirectorySystem, root: Path) -> None:
    before = socket.gethostname()
    child = os.fork()
    if child == 0:
        try:
            # A UTS namespace of its own; unshare(2), CLONE_NEWUTS.
            import ctypes

            assert ctypes.CDLL(None, use_errno=True).unshare(0x04000000) == 0
            running = LinuxSystem()
            running.root = str(root)
            running.set_hostname(HostName("xenward-test.example.com"))
            assert socket.gethostname() == running.hostname() == "xenward-test.example.com"
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (root / "etc/hostname").read_text() == "xenward-test.example.com\n"
    assert socket.gethostname() == before
