from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from passlib.hash import sha512_crypt

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Refused, Unsupported
from guest_agent.system.accounts import Owner, PasswordHash
from guest_agent.system.directory import DirectorySystem

from ..conftest import names


@pytest.fixture
def system(root: Path) -> DirectorySystem:
    return DirectorySystem(str(root))


def fields(root: Path, user: str) -> list[str]:
    lines = (root / "etc/shadow").read_text().splitlines()
    return next(line.split(":") for line in lines if line.startswith(user + ":"))


def test_a_locked_account_gets_hash_and_date(system: DirectorySystem, root: Path) -> None:
    system.set_password("root", Password("correct horse"))
    changed = fields(root, "root")
    assert sha512_crypt.verify("correct horse", changed[1])
    assert changed[1].startswith("$6$")
    assert "rounds=" not in changed[1]
    assert abs(int(changed[2]) - time.time() // 86400) <= 1
    assert changed[3:] == ["0", "99999", "7", "", "", ""]


def test_everything_else_stays_byte_for_byte(system: DirectorySystem, root: Path) -> None:
    shadow = root / "etc/shadow"
    shadow.write_bytes(b"daemon:*:1::::::\n+@nis\n# \xff odd\r\nroot:x:1:2:3:4:5:6:7\nann:x:1::::::")
    shadow.chmod(0o604)
    system.set_password("root", Password("pässword"))
    before, _, after = shadow.read_bytes().partition(b"root:")
    assert before == b"daemon:*:1::::::\n+@nis\n# \xff odd\r\n"
    rest, _, last = after.partition(b"\n")
    assert rest.split(b":")[2:] == [b"2", b"3", b"4", b"5", b"6", b"7"]
    assert last == b"ann:x:1::::::"
    assert shadow.stat().st_mode & 0o7777 == 0o604
    assert names(root / "etc") == ["group", "passwd", "shadow"]


def test_the_owner_stays(system: DirectorySystem, root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only the superuser can give files away")
    os.chown(root / "etc/shadow", 12, 34)
    system.set_password("root", Password("pw"))
    found = (root / "etc/shadow").stat()
    assert (found.st_uid, found.st_gid) == (12, 34)


def test_policy(system: DirectorySystem, root: Path) -> None:
    (root / "etc/login.defs").write_text("#PASS_MIN_LEN 99\nPASS_MIN_LEN\t8\nPASS_MAX_DAYS 1\n")
    before = (root / "etc/shadow").read_bytes()
    with pytest.raises(Refused, match=r"PASS_MIN_LEN of /etc/login\.defs wants 8 characters") as caught:
        system.set_password("root", Password("üüüüüüü"))
    assert caught.value.code == "password_policy"
    assert (root / "etc/shadow").read_bytes() == before
    system.set_password("root", Password("üüüüüüüü"))


@pytest.mark.parametrize("user", ["nobody", "ro", "daemon"])
def test_unknown_users(system: DirectorySystem, user: str) -> None:
    with pytest.raises(Refused) as caught:
        system.set_password(user, Password("pw"))
    assert caught.value.code == "no_such_user"


def test_user_without_a_shadow_line(system: DirectorySystem, root: Path) -> None:
    (root / "etc/shadow").write_text("root:!:1\n")
    with pytest.raises(Refused) as caught:
        system.set_password("ann", Password("pw"))
    assert caught.value.code == "no_such_user"


def test_no_shadow_file(system: DirectorySystem, root: Path) -> None:
    (root / "etc/shadow").unlink()
    with pytest.raises(Refused) as caught:
        system.set_password("root", Password("pw"))
    assert caught.value.code == "no_shadow_file"


def test_without_libpass(system: DirectorySystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "passlib.hash", None)
    with pytest.raises(Unsupported, match="libpass"):
        system.set_password("root", Password("pw"))


def test_accounts(system: DirectorySystem, root: Path) -> None:
    ann = system.find_user("ann")
    assert (ann.owner, ann.home) == (Owner(os.getuid(), os.getgid()), "/home/ann/")
    assert system.find_owner("ann", None) == ann.owner
    assert system.find_group("ann") == os.getgid()
    assert system.find_owner("ann", "root").gid == (0 if os.geteuid() == 0 else os.getegid())
    with pytest.raises(Refused, match="no group 'wheel'"):
        system.find_owner("ann", "wheel")
    (root / "etc/passwd").write_text("ann:x:-1:0:::\n")
    with pytest.raises(Failed, match="no number"):
        system.find_user("ann")


def test_an_unprivileged_agent_owns_everything(system: DirectorySystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    monkeypatch.setattr(os, "getegid", lambda: 8765)
    assert system.find_user("root").owner == Owner(4321, 8765)
    assert system.find_group("root") == 8765


def test_account_files_cannot_lead_out_of_the_root(system: DirectorySystem, root: Path, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("eve:x:0:0::/root:\n")
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to(tmp_path / "passwd")
    with pytest.raises(Refused, match="symbolic link"):
        system.find_user("eve")


@pytest.mark.parametrize("locked", ["!", "*", "!$6$old$x"])
def test_a_hash_opens_the_account_and_is_taken_as_it_is(system: DirectorySystem, root: Path, locked: str) -> None:
    (root / "etc/shadow").write_text(f"root:{locked}:1:0:99999:7:::\n")
    (root / "etc/login.defs").write_text("PASS_MIN_LEN 200\n")
    hashed = sha512_crypt.using(rounds=1000).hash("known")
    system.set_password("root", PasswordHash(hashed))
    changed = fields(root, "root")
    assert changed[1] == hashed
    assert abs(int(changed[2]) - time.time() // 86400) <= 1


def test_expire(system: DirectorySystem, root: Path) -> None:
    system.set_password("root", Password("once"), expire=True)
    assert fields(root, "root")[2:] == ["0", "0", "99999", "7", "", "", ""]
    system.set_password("root", Password("again"))
    assert fields(root, "root")[2] != "0"


def test_what_a_directory_does_not_have(system: DirectorySystem) -> None:
    assert (system.kernel(), list(system.addresses()), system.hostname(), dict(system.release())) == ("", [], "", {})
