"""What PosixSystem brings to the commands. Its parts have tests of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent_protocol.outcomes import Refused, Unsupported
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, served
from guest_agent.configuration import Configuration
from guest_agent.places import CONFIGURATION_FILE
from guest_agent.system.directory import DirectorySystem

from ..conftest import names


@pytest.fixture
def system(root: Path) -> DirectorySystem:
    return DirectorySystem(str(root))


@pytest.mark.parametrize("path", ["", "etc/f", "/etc/", "/etc/..", "/a\0b", "/" + "a" * 5000, "C:\\f", "/\udcff\ud800"])
def test_paths_are_parsed(system: DirectorySystem, path: str) -> None:
    with pytest.raises(Refused) as raised:
        system.put_file(path, b"x", mode=None, owner=None)
    assert raised.value.code == "bad_path"


def test_a_file_with_mode_and_owner(system: DirectorySystem, root: Path) -> None:
    system.put_file("/etc/new/f", b"x", mode=0o640, owner=("ann", None))
    status = (root / "etc/new/f").stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o640, os.getuid())
    with pytest.raises(Refused) as raised:
        system.put_file("/etc/g", b"x", mode=None, owner=("ann", "nobody-of-that-name"))
    assert raised.value.code == "no_such_group"
    assert not (root / "etc/g").exists()


def test_the_configuration(system: DirectorySystem, root: Path) -> None:
    assert system.read_configuration() is None
    path = root / CONFIGURATION_FILE.text[1:]
    path.parent.mkdir()
    path.write_bytes(b"[agent]\n")
    assert (system.read_configuration(), system.configuration_name) == (b"[agent]\n", "/etc/xenward/agent.conf")


def test_its_own_files(system: DirectorySystem, root: Path) -> None:
    directory = root / "var/lib/xenward"
    assert system.read_state("a.json") is None
    assert directory.stat().st_mode & 0o7777 == 0o700
    directory.chmod(0o777)
    system.write_state("a.json", b"1")
    system.write_state("a.json", b"2")
    assert directory.stat().st_mode & 0o7777 == 0o700
    assert (directory / "a.json").stat().st_mode & 0o7777 == 0o600
    assert (system.read_state("a.json"), names(directory)) == (b"2", ["a.json"])


def test_its_own_files_that_cannot_be_kept(system: DirectorySystem, root: Path) -> None:
    (root / "var").write_text("")
    with pytest.raises(Refused):
        system.write_state("a.json", b"1")
    (root / "var").unlink()
    (root / "var/lib/xenward/a.json").mkdir(parents=True)
    with pytest.raises(Refused, match="is a directory"):
        system.read_state("a.json")
    with pytest.raises(Refused, match="is a directory"):
        system.write_state("a.json", b"1")


def test_the_stacks_name(system: DirectorySystem) -> None:
    assert system.network_stack_name(Configuration()) == ""
    system.network_stack = None
    assert system.network_stack_name(Configuration(network_stack="netplan")) == "netplan"


def test_no_descriptor_stays_open(system: DirectorySystem) -> None:
    descriptors = Path("/proc/self/fd")
    before = names(descriptors)
    for _ in range(5):
        system.write_state("a.json", b"1")
        system.read_state("a.json")
    assert len(names(descriptors)) == len(before)


def test_what_it_lacks(system: DirectorySystem) -> None:
    assert system.lacks == {"kmsactivate"}
    assert not system.reboot_pending()
    with pytest.raises(Unsupported) as raised:
        system.activate("kms")
    assert raised.value.code == "not_on_this_system"
    for table in (COMMANDS, SEALED_COMMANDS):
        assert not served(table, (), system.lacks)["kmsactivate"].announced
