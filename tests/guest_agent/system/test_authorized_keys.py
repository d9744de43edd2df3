from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from guest_agent.system import authorized_keys, paths
from guest_agent.system.accounts import Owner, User
from guest_agent.system.authorized_keys import AuthorizedKey, change_keys, identity_of_line

from ..conftest import ssh_key

ANN = User("ann", Owner(os.getuid(), os.getgid()), "/home/ann/")
K1, K2, K3 = (AuthorizedKey(ssh_key(number, f"key {number}")) for number in (1, 2, 3))


@pytest.fixture
def keys(root: Path) -> Path:
    return root / "home/ann/.ssh/authorized_keys"


def change(root: Path, add: list[AuthorizedKey], remove: list[AuthorizedKey], user: User = ANN) -> tuple[int, int]:
    return change_keys(str(root), user, add, remove)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_first_key(root: Path, keys: Path) -> None:
    assert change(root, [K1, K1, K2], []) == (2, 0)
    assert keys.read_text() == f"{K1.line}\n{K2.line}\n"
    assert (mode_of(keys), mode_of(keys.parent)) == (0o600, 0o700)


def test_the_user_owns_what_is_made(root: Path, keys: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only the superuser can give files away")
    os.chown(root / "home/ann", 1234, 1234)
    assert change(root, [K1], [], User("ann", Owner(1234, 5678), "/home/ann")) == (1, 0)
    for path in (keys, keys.parent):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678)


def test_lines_of_others_stay(root: Path, keys: Path) -> None:
    keys.parent.mkdir()
    options = f'from="1.2.3.4, x",command="say \\"{K3.line}\\""'
    others = f"# note\n\n\xff odd\r\n{options} {K2.line}\nno newline".encode("latin-1")
    keys.write_bytes(others)
    keys.chmod(0o644)
    assert change(root, [K1, AuthorizedKey(ssh_key(2, "other comment"))], []) == (1, 0)
    assert keys.read_bytes() == others + b"\n" + K1.line.encode() + b"\n"
    assert mode_of(keys) == 0o644
    assert change(root, [], [K1, K3]) == (0, 1)
    assert keys.read_bytes() == others + b"\n"
    assert change(root, [], [K2]) == (0, 1)
    assert K2.line.encode() not in keys.read_bytes()
    assert keys.read_bytes().startswith(b"# note\n\n\xff odd\r\n")


def test_nothing_to_do_writes_nothing(root: Path, keys: Path) -> None:
    assert change(root, [], [K1]) == (0, 0)
    assert not keys.parent.exists()
    change(root, [K1], [])
    before = keys.stat().st_ino
    assert change(root, [K1], [K2]) == (0, 0)
    assert keys.stat().st_ino == before


@pytest.mark.parametrize("where", [".ssh", ".ssh/authorized_keys"])
def test_symbolic_links_are_not_followed(root: Path, keys: Path, where: str) -> None:
    elsewhere = root / "home/bob"
    elsewhere.mkdir()
    (elsewhere / "authorized_keys").write_text("bob's\n")
    if where == ".ssh":
        keys.parent.symlink_to(elsewhere)
    else:
        keys.parent.mkdir()
        keys.symlink_to(elsewhere / "authorized_keys")
    with pytest.raises(Refused) as caught:
        change(root, [K1], [])
    assert caught.value.code in ("not_a_directory", "not_a_file")
    assert (elsewhere / "authorized_keys").read_text() == "bob's\n"


@pytest.mark.parametrize("where", ["home/ann", "home/ann/.ssh", "home/ann/.ssh/authorized_keys"])
def test_what_belongs_to_another_user_is_refused(root: Path, keys: Path, where: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only the superuser can give files away")
    keys.parent.mkdir()
    keys.touch()
    for path in (keys, keys.parent, root / "home/ann"):
        os.chown(path, 1234, 1234)
    os.chown(root / where, 999, 999)
    with pytest.raises(Refused) as caught:
        change(root, [K1], [], User("ann", Owner(1234, 1234), "/home/ann"))
    assert caught.value.code == "not_owner"
    assert keys.read_bytes() == b""


def test_a_directory_that_was_swapped_in_is_not_given_away(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only the superuser can give files away")
    home = root / "home/ann"
    os.chown(home, 1234, 1234)
    (home / "roots").mkdir()
    (home / "roots/precious").touch()
    enter = paths.enter

    def swap(directory: int, name: str) -> int:
        if name == ".ssh":
            (home / ".ssh").rmdir()
            (home / "roots").rename(home / ".ssh")
        return enter(directory, name)

    monkeypatch.setattr(authorized_keys, "enter", swap)
    with pytest.raises(Refused) as caught:
        change(root, [K1], [], User("ann", Owner(1234, 1234), "/home/ann"))
    assert caught.value.code == "not_owner"
    assert (home / ".ssh").stat().st_uid == 0


@pytest.mark.parametrize("home", ["/nonexistent", "/home/ann/deeper"])
def test_no_home(root: Path, home: str) -> None:
    with pytest.raises(Refused) as caught:
        change(root, [K1], [], User("ann", ANN.owner, home))
    assert caught.value.code == "no_home"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 !!!!",
        "ssh-ed25519 AAAA",
        ssh_key(1).replace("ssh-ed25519", "ssh-rsa"),
        ssh_key(1) + "\nssh-rsa x",
        ssh_key(1) + "\r",
        ssh_key(1) + " \0",
        'command="x" ' + ssh_key(1),
        ssh_key(1, "c" * 16384),
        ssh_key(1, "\ud800"),
        ssh_key(1, kind="SSH"),
    ],
)
def test_bad_keys(line: str) -> None:
    with pytest.raises(Refused) as caught:
        AuthorizedKey(line)
    assert caught.value.code == "bad_key"


@given(options=st.text(alphabet=' \t"\\,=abc#', max_size=20))
def test_options_hide_no_key_and_make_none(options: str) -> None:
    line = f"{options} {K1.line}".encode()
    assert identity_of_line(line) in (None, K1.identity)
    assert identity_of_line(f'command="{ssh_key(9)}",no-pty {K1.line}'.encode()) == K1.identity
    assert identity_of_line(f'x="{ssh_key(9)}'.encode()) is None


@given(line=st.binary(max_size=100))
def test_any_line_can_be_read(line: bytes) -> None:
    identity_of_line(line)
