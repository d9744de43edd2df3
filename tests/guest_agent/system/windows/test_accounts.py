from __future__ import annotations

from dataclasses import replace

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Outcome, Refused, Unsuccessful, Unsupported
from guest_agent.system.accounts import PasswordHash
from guest_agent.system.windows import WindowsSystem
from guest_agent.system.windows.accounts import (
    UF_ACCOUNTDISABLE,
    UF_DONT_EXPIRE_PASSWD,
    UF_LOCKOUT,
    UF_PASSWD_CANT_CHANGE,
)

from .fakes import MACHINE_SID, UF_NORMAL, FakeWindows

SECRET = Password("Correct-h0rse-\u00df\U0001f511")


def flags(windows: FakeWindows, name: str = "ann") -> int:
    return windows.accounts.users[name].flags


def set_flags(windows: FakeWindows, value: int, name: str = "ann") -> None:
    windows.accounts.users[name] = replace(windows.accounts.users[name], flags=value)


def failure(system: WindowsSystem, user: str = "ann", *, expire: bool = False) -> Unsuccessful:
    with pytest.raises(Unsuccessful) as caught:
        system.set_password(user, SECRET, expire=expire)
    assert SECRET.value not in str(caught.value) + repr(caught.value)
    return caught.value


def test_the_administrator_by_any_name(system: WindowsSystem, windows: FakeWindows) -> None:
    assert system.administrator == "Administrator"
    windows.accounts.users = {"Verwalter": windows.accounts.users["Administrator"]}
    windows.accounts.add("Administrator", 1002)
    assert system.administrator == "Verwalter"


@pytest.mark.parametrize("there", [True, False])
def test_no_administrator(system: WindowsSystem, windows: FakeWindows, there: bool) -> None:
    if there:
        windows.accounts.errors["machine_sid"] = 5
    else:
        del windows.accounts.users["Administrator"]
    with pytest.raises(Failed) as caught:
        _ = system.administrator
    assert caught.value.code == "administrator_unknown"


def test_a_password(system: WindowsSystem, windows: FakeWindows) -> None:
    system.set_password("ann", SECRET)
    assert windows.accounts.passwords == {"ann": SECRET.value}
    assert windows.accounts.log == ["password ann"]


def test_a_locked_account_is_opened(system: WindowsSystem, windows: FakeWindows) -> None:
    set_flags(windows, UF_NORMAL | UF_LOCKOUT | UF_DONT_EXPIRE_PASSWD)
    system.set_password("ann", SECRET)
    assert flags(windows) == UF_NORMAL | UF_DONT_EXPIRE_PASSWD
    assert windows.accounts.log[0] == "password ann"


def test_a_disabled_account_stays_disabled(system: WindowsSystem, windows: FakeWindows) -> None:
    set_flags(windows, UF_NORMAL | UF_LOCKOUT | UF_ACCOUNTDISABLE)
    system.set_password("ann", SECRET)
    assert flags(windows) == UF_NORMAL | UF_ACCOUNTDISABLE


def test_expire(system: WindowsSystem, windows: FakeWindows) -> None:
    system.set_password("ann", SECRET, expire=True)
    assert windows.accounts.users["ann"].password_expired
    assert windows.accounts.log == ["password ann", "expire ann"]


@pytest.mark.parametrize("flag", [UF_DONT_EXPIRE_PASSWD, UF_PASSWD_CANT_CHANGE])
def test_a_password_that_would_not_expire(system: WindowsSystem, windows: FakeWindows, flag: int) -> None:
    set_flags(windows, UF_NORMAL | flag)
    error = failure(system, expire=True)
    assert (error.outcome, error.code) == (Outcome.REFUSED, "expire_conflict")
    assert windows.accounts.log == []
    system.set_password("ann", SECRET)


@pytest.mark.parametrize("planned", [True, False])
def test_a_password_that_does_not_expire(system: WindowsSystem, windows: FakeWindows, planned: bool) -> None:
    windows.accounts.expires = False
    if planned:
        windows.accounts.errors["expire_password"] = 5
    error = failure(system, expire=True)
    assert (error.outcome, error.code) == (Outcome.FAILED, "expire_failed")
    assert "the password is set" in error.message
    assert windows.accounts.passwords == {"ann": SECRET.value}


def test_an_account_that_stays_locked(system: WindowsSystem, windows: FakeWindows) -> None:
    set_flags(windows, UF_NORMAL | UF_LOCKOUT)
    windows.accounts.errors["set_flags"] = 5
    error = failure(system)
    assert (error.outcome, error.code) == (Outcome.FAILED, "unlock_failed")
    assert "the password is set" in error.message


def test_a_hash(system: WindowsSystem, windows: FakeWindows) -> None:
    with pytest.raises(Unsupported) as caught:
        system.set_password("ann", PasswordHash("$6$salt$" + "a" * 86))
    assert caught.value.code == "hash_unsupported"
    assert windows.accounts.log == []


def test_the_policy_in_its_own_words(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.accounts.minimum = 40
    error = failure(system)
    assert (error.outcome, error.code) == (Outcome.REFUSED, "password_policy")
    assert error.message == "The password does not meet the password policy requirements."
    assert system.minimum_password_length() == 40
    windows.accounts.errors["minimum_password_length"] = 5
    assert system.minimum_password_length() == 0


@pytest.mark.parametrize(
    ("number", "outcome", "code"),
    [
        (2221, Outcome.REFUSED, "no_such_user"),
        (2202, Outcome.REFUSED, "no_such_user"),
        (1317, Outcome.REFUSED, "no_such_user"),
        (2245, Outcome.REFUSED, "password_policy"),
        (1325, Outcome.REFUSED, "password_policy"),
        (1324, Outcome.REFUSED, "password_policy"),
        (86, Outcome.REFUSED, "password_policy"),
        (2203, Outcome.REFUSED, "password_policy"),
        (2243, Outcome.REFUSED, "password_policy"),
        (2244, Outcome.REFUSED, "password_policy"),
        (2246, Outcome.REFUSED, "password_policy"),
        (5, Outcome.FAILED, "access_denied"),
        (87, Outcome.FAILED, "password_failed"),
        (2226, Outcome.FAILED, "password_failed"),
        (1330, Outcome.FAILED, "password_failed"),
    ],
)
@pytest.mark.parametrize("call", ["set_password", "account"])
def test_errors(
    system: WindowsSystem, windows: FakeWindows, call: str, number: int, outcome: Outcome, code: str
) -> None:
    windows.accounts.errors[call] = number
    error = failure(system)
    assert (error.outcome, error.code) == (outcome, code)
    if code != "no_such_user":
        assert f"planned {number}" in error.message and not error.message.endswith("\n")
    if outcome is Outcome.FAILED:
        assert f"error {number}" in error.message
    assert windows.accounts.log == []


def test_a_policy_without_words(system: WindowsSystem, windows: FakeWindows, monkeypatch: pytest.MonkeyPatch) -> None:
    from guest_agent.system.windows.api import CallError

    def silent(name: str, password: str) -> None:
        raise CallError("NetUserSetInfo", 2245)

    monkeypatch.setattr(windows.accounts, "set_password", silent)
    assert "policy forbids it (error 2245)" in failure(system).message


@pytest.mark.parametrize(
    ("text", "fits"), [("a" * 127, True), ("a" * 128, False), ("\U0001f511" * 63, True), ("\U0001f511" * 64, False)]
)
def test_the_longest_password(system: WindowsSystem, windows: FakeWindows, text: str, fits: bool) -> None:
    if fits:
        system.set_password("ann", Password(text))
        return
    with pytest.raises(Refused, match="127 characters") as caught:
        system.set_password("ann", Password(text))
    assert caught.value.code == "password_policy"
    assert windows.accounts.log == []


def test_nobody(system: WindowsSystem) -> None:
    assert failure(system, "nobody").code == "no_such_user"
    with pytest.raises(Refused) as caught:
        system.find_user("nobody")
    assert caught.value.code == "no_such_user"


def test_somebody_who_cannot_be_looked_at(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.machine.errors["system_directory"] = 5
    with pytest.raises(Failed, match="system_directory"):
        system.find_user("ann")


def test_somebody(system: WindowsSystem, windows: FakeWindows) -> None:
    found = system.find_user("ann")
    assert (found.name, found.owner.uid, found.owner.gid, found.home) == ("ann", 1001, 513, "")
    profiles = "SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion\\ProfileList\\"
    windows.registry.set(f"{profiles}{MACHINE_SID}-1001", "ProfileImagePath", "%SystemDrive%\\Users\\ann")
    assert system.find_user("ann").home == "C:\\Users\\ann"
