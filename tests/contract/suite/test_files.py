"""Files and SSH keys that are put into a guest, as the guest itself finds them."""

from __future__ import annotations

import random

import pytest

from agent_protocol.outcomes import Refused
from tests.contract.environments import GuestEnvironment
from tests.contract.inside import FileStatus

from .conftest import KEY
from .guest import Guest

OTHER_KEY = KEY.replace("HR4f", "HR4g")
KEYS_FILE = "/root/.ssh/authorized_keys"


def test_a_small_file_has_the_content_mode_and_owner_that_were_asked_for(guest: Guest) -> None:
    content = bytes(range(256))
    guest.put("/opt/new/small", content, 0o640, "root:root")
    assert guest.inside.read("/opt/new/small") == content
    assert guest.inside.status("/opt/new/small") == FileStatus(0o640, "root", "root")
    guest.put("/opt/new/empty", b"")
    assert guest.inside.read("/opt/new/empty") == b""
    assert guest.inside.status("/opt/new/empty").mode == 0o600


def test_a_large_file_arrives_whole(guest: Guest, environment: GuestEnvironment) -> None:
    content = random.Random(1).randbytes(environment.large_file)
    guest.put("/opt/new/large", content)
    assert guest.inside.read("/opt/new/large") == content


def test_a_file_that_is_replaced_keeps_its_mode_and_leaves_nothing_beside_it(guest: Guest) -> None:
    guest.inside.write("/opt/kept/file", "before", 0o754)
    guest.put("/opt/kept/file", b"after")
    assert guest.inside.read("/opt/kept/file") == b"after"
    assert guest.inside.status("/opt/kept/file") == FileStatus(0o754, "root", "root")
    assert guest.inside.names("/opt/kept") == ["file"]


@pytest.mark.parametrize(
    ("path", "code"),
    [("relative/path", "bad_path"), ("/opt/", "bad_path"), ("/opt/..", "bad_path"), ("/etc", "not_a_file")],
)
def test_paths_that_are_refused(guest: Guest, path: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        guest.put(path, b"content")
    assert refused.value.code == code


def test_owner_that_the_guest_does_not_have(guest: Guest) -> None:
    with pytest.raises(Refused) as refused:
        guest.put("/opt/unowned", b"content", None, "nobody-here")
    assert refused.value.code == "no_such_user"
    with pytest.raises(FileNotFoundError):
        guest.inside.read("/opt/unowned")


def test_keys_are_added_once_and_those_that_are_there_stay(guest: Guest) -> None:
    agents = guest.agents()
    for keys in ([OTHER_KEY], [KEY, OTHER_KEY]):
        agents.add_ssh_keys(guest.vm, keys)
        assert guest.inside.read(KEYS_FILE).decode().splitlines() == [KEY, OTHER_KEY]
    assert guest.inside.status(KEYS_FILE) == FileStatus(0o600, "root", "root")
    with pytest.raises(Refused):
        agents.add_ssh_keys(guest.vm, ["no key at all"])
    assert guest.inside.read(KEYS_FILE).decode().splitlines() == [KEY, OTHER_KEY]
