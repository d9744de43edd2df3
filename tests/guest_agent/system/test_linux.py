from __future__ import annotations

import ipaddress
import json
import os
import pwd
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Refused, Unknown, Unsupported
from guest_agent.system import linux
from guest_agent.system.accounts import PasswordHash
from guest_agent.system.cloud_init import AT_WORK_SECONDS
from guest_agent.system.linux import LinuxSystem

PAM_REFUSES = """BAD PASSWORD: The password is shorter than 8 characters
chpasswd: (user root) pam_chauthtok() failed, error:
Authentication token manipulation error
chpasswd: (line 1, user root) password not changed
"""

PAM_FAILS = """chpasswd: (user root) pam_chauthtok() failed, error:
Authentication token manipulation error
chpasswd: (line 1, user root) password not changed
"""

StandIn = Callable[..., Callable[[], dict[str, Any]]]


@pytest.fixture
def chpasswd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Puts a stand-in for chpasswd on PATH, alone; gives what it saw."""
    programs = tmp_path / "bin"
    programs.mkdir()
    record = tmp_path / "record"
    monkeypatch.setenv("PATH", str(programs))

    def make(exit_code: int = 0, says: str = "", code: str = "") -> Callable[[], dict[str, Any]]:
        program = programs / "chpasswd"
        program.write_text(
            f"#!{sys.executable}\nimport json, os, sys\nread = sys.stdin.read()\n"
            f"saw = dict(argv=sys.argv[1:], stdin=read, environ=dict(os.environ))\n"
            f"open({str(record)!r}, 'w').write(json.dumps(saw))\n{code}\n"
            f"sys.stderr.write({says!r})\nsys.exit({exit_code})\n"
        )
        program.chmod(0o755)
        return lambda: json.loads(record.read_text())

    return make


def test_the_secret_goes_through_stdin_only(chpasswd: StandIn) -> None:
    saw = chpasswd()
    LinuxSystem().set_password("root", Password("pä:ss wörd"))
    seen = saw()
    assert seen["stdin"] == "root:pä:ss wörd\n"
    assert seen["argv"] == []
    assert not any("wörd" in value for value in seen["environ"].values())


def test_the_policys_words(chpasswd: StandIn) -> None:
    chpasswd(1, PAM_REFUSES)
    with pytest.raises(Refused) as caught:
        LinuxSystem().set_password("root", Password("0123"))
    assert caught.value.code == "password_policy"
    assert caught.value.message == "BAD PASSWORD: The password is shorter than 8 characters"


@pytest.mark.parametrize("says", [PAM_FAILS, "chpasswd: cannot lock /etc/passwd; try again later.\n", ""])
def test_failures_that_are_no_policy(chpasswd: StandIn, says: str) -> None:
    chpasswd(1, says)
    with pytest.raises(Failed) as caught:
        LinuxSystem().set_password("root", Password("s3cret"))
    assert caught.value.code == "chpasswd_failed"
    assert " ".join(says.split()) in caught.value.message


def test_a_program_that_repeats_the_password(chpasswd: StandIn) -> None:
    chpasswd(1, code="sys.stderr.write('no: ' + read)")
    with pytest.raises(Refused) as caught:
        LinuxSystem().set_password("root", Password("s3cret"))
    assert caught.value.message == "no: root:***"


def test_unknown_user_does_not_reach_chpasswd(chpasswd: StandIn, tmp_path: Path) -> None:
    chpasswd()
    with pytest.raises(Refused) as caught:
        LinuxSystem().set_password("no-such-user-here", Password("pw"))
    assert caught.value.code == "no_such_user"
    assert not (tmp_path / "record").exists()


def test_missing_chpasswd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="no chpasswd"):
        LinuxSystem().set_password("root", Password("pw"))


def test_a_hanging_chpasswd_is_unknown(chpasswd: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    chpasswd(code="import time; time.sleep(60)")
    monkeypatch.setattr(linux, "CHPASSWD_SECONDS", 0.5)
    with pytest.raises(Unknown):
        LinuxSystem().set_password("root", Password("pw"))


def test_accounts_and_boot_id() -> None:
    me = pwd.getpwuid(os.getuid())
    found = LinuxSystem().find_user(me.pw_name)
    assert (found.owner.uid, found.owner.gid, found.home) == (me.pw_uid, me.pw_gid, me.pw_dir)
    with pytest.raises(Refused, match="no group"):
        LinuxSystem().find_group("no-such-group-here")
    assert len(LinuxSystem().boot_id()) == 36


HASH = PasswordHash("$6$salt$" + "a" * 86)


def test_a_hash_goes_through_stdin_only(chpasswd: StandIn) -> None:
    saw = chpasswd()
    LinuxSystem().set_password("root", HASH)
    assert (saw()["stdin"], saw()["argv"]) == (f"root:{HASH.value}\n", ["-e"])


def stand_in(tmp_path: Path, name: str, exit_code: int = 0) -> Path:
    """Another program beside chpasswd; gives the file with its arguments."""
    record = tmp_path / f"{name}.record"
    program = tmp_path / "bin" / name
    program.write_text(
        f"#!{sys.executable}\nimport sys\nopen({str(record)!r}, 'w').write(' '.join(sys.argv[1:]))\n"
        f"sys.exit({exit_code})\n"
    )
    program.chmod(0o755)
    return record


def test_expire_by_chage(chpasswd: StandIn, tmp_path: Path) -> None:
    chpasswd()
    chage, passwd = stand_in(tmp_path, "chage"), stand_in(tmp_path, "passwd")
    LinuxSystem().set_password("root", Password("pw"))
    assert not chage.exists()
    LinuxSystem().set_password("root", Password("pw"), expire=True)
    assert chage.read_text() == "-d 0 -- root"
    assert not passwd.exists()


def test_expire_without_chage(chpasswd: StandIn, tmp_path: Path) -> None:
    chpasswd()
    passwd = stand_in(tmp_path, "passwd")
    LinuxSystem().set_password("root", HASH, expire=True)
    assert passwd.read_text() == "-e -- root"


def test_a_password_that_was_set_and_does_not_expire(chpasswd: StandIn, tmp_path: Path) -> None:
    chpasswd()
    for spoil in (lambda: None, lambda: stand_in(tmp_path, "chage", 1)):
        spoil()
        with pytest.raises(Failed, match="the password is set, but does not expire") as caught:
            LinuxSystem().set_password("root", Password("pw"), expire=True)
        assert caught.value.code == "expire_failed"


def test_a_password_that_was_not_set_does_not_expire(chpasswd: StandIn, tmp_path: Path) -> None:
    chpasswd(1, PAM_REFUSES)
    chage = stand_in(tmp_path, "chage")
    with pytest.raises(Refused):
        LinuxSystem().set_password("root", Password("pw"), expire=True)
    assert not chage.exists()


def test_what_the_running_system_tells() -> None:
    system = LinuxSystem()
    assert (system.kernel(), system.hostname()) == (os.uname().release, os.uname().nodename)
    for entry in system.addresses():
        assert not ipaddress.ip_address(entry["address"]).is_loopback
        assert entry["interface"]
    assert system.live is not None
    assert system.interface_names() == system.live.names()
    known = {name for _, name in socket.if_nameindex()}
    assert {name for names in system.interface_names().values() for name in names} <= known
    # Whatever cloud-init does here; ten minutes after the boot it is not at work.
    assert not system.cloud_init().at_work or time.clock_gettime(time.CLOCK_BOOTTIME) < AT_WORK_SECONDS
