"""The account database, and the shim of netapi32 before it, through the calls that the agent makes (pywin32)."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tools.labs.wine.accounts import Account, Accounts
from tools.labs.wine.machine import Machine

from .support import python

pytestmark = pytest.mark.services

TOO_SHORT, NOBODY, NONE_MAPPED, LEVEL = 2245, 2221, 1332, 124

_SETUP = """
import pywintypes, win32net, win32security

def error(function, *arguments):
    try:
        function(*arguments)
    except pywintypes.error as error:
        return error.winerror

def set_password(name, password):
    return error(win32net.NetUserSetInfo, None, name, 1003, {"password": password})

def name_of(sid):
    return win32security.LookupAccountSid(None, win32security.ConvertStringSidToSid(sid))[0]

def sid_of(name):
    return win32security.ConvertSidToStringSid(win32security.LookupAccountName(None, name)[0])

def machine_sid():
    return win32security.ConvertSidToStringSid(win32net.NetUserModalsGet(None, 2)["domain_id"])
"""


@pytest.fixture(scope="module")
def machine(windows_disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tools.labs.wine import disk

    made = tmp_path_factory.mktemp("wine") / "disk"
    disk.copy(windows_disk, made)
    with Machine(made) as machine:
        yield machine


@pytest.fixture
def accounts(machine: Machine) -> Accounts:
    accounts = Accounts(machine.disk)
    accounts.lay_out()
    return accounts


def answers(machine: Machine, *expressions: str) -> list[Any]:
    script = f"{_SETUP}\nprint(ascii([{', '.join(expressions)}]))"
    found = ast.literal_eval(python(machine, script))
    assert isinstance(found, list)
    return found


def test_exactly_this_password_is_set(machine: Machine, accounts: Accounts) -> None:
    for times, password in enumerate(("plain Pass-1", "Grüße-пароль-密😀 2", "x" * 127), start=1):
        assert answers(machine, f"set_password('administrator', {password!r})") == [None]
        account = accounts.of()
        assert account.opens(password)
        assert not account.opens(password + " ")
        assert account.times == times
    assert accounts.of(1001).times == 0


def test_no_password_lies_in_the_file(machine: Machine, accounts: Accounts) -> None:
    password = "find me Pass-1"
    answers(machine, f"set_password('user', {password!r})")
    content = (machine.disk / "drive_c/windows/system32/config/xenward-accounts").read_bytes()
    assert password.encode() not in content
    assert password.encode("utf-16-le") not in content
    first = accounts.of(1001)
    answers(machine, f"set_password('user', {password!r})")
    assert accounts.of(1001).salt != first.salt


def test_the_policy_refuses(machine: Machine, accounts: Accounts) -> None:
    accounts.set_policy(minimum_length=10, complexity=True)
    assert answers(
        machine,
        "set_password('Administrator', 'Short-1')",
        "set_password('Administrator', 'only lower case')",
        "set_password('Administrator', 'UPPER and lower')",
        "win32net.NetUserModalsGet(None, 0)['min_passwd_len']",
    ) == [TOO_SHORT, TOO_SHORT, None, 10]
    assert accounts.of().opens("UPPER and lower")
    assert accounts.of().times == 1


def test_nobody_has_that_name(machine: Machine, accounts: Accounts) -> None:
    assert answers(
        machine,
        "set_password('nobody', 'some Pass-1')",
        "error(win32net.NetUserGetInfo, None, 'nobody', 4)",
        "error(sid_of, 'nobody')",
        "error(name_of, machine_sid() + '-4444')",
    ) == [NOBODY, NOBODY, NONE_MAPPED, NONE_MAPPED]


def test_an_administrator_that_was_renamed(machine: Machine, accounts: Accounts) -> None:
    accounts.rename(500, "Größter")
    sid, name, info, old = answers(
        machine,
        "sid_of('größter') == machine_sid() + '-500'",
        "name_of(machine_sid() + '-500')",
        "[win32net.NetUserGetInfo(None, 'Größter', level)['name'] for level in (0, 1, 2, 3, 4)]",
        "error(sid_of, 'Administrator')",
    )
    assert (sid, name, info, old) == (True, "Größter", ["Größter"] * 5, NONE_MAPPED)


def test_what_the_shim_does_not_know_is_answered_by_wine(machine: Machine, accounts: Accounts) -> None:
    assert answers(machine, "name_of('S-1-5-18')", "sid_of('SYSTEM')", "name_of('S-1-5-32-544')") == [
        "SYSTEM",
        "S-1-5-18",
        "Administrators",
    ]


def test_flags_and_expiry(machine: Machine, accounts: Accounts) -> None:
    accounts.put(replace(accounts.of(1001), flags=0x211))
    script = """
told = win32net.NetUserGetInfo(None, 'user', 4)
win32net.NetUserSetInfo(None, 'user', 4, {**told, 'password': None, 'password_expired': 1})
win32net.NetUserSetInfo(None, 'user', 1008, {'flags': told['flags'] & ~0x10})
print(ascii([told['user_id'] if 'user_id' in told else None, win32net.NetUserGetInfo(None, 'user', 3)['user_id'],
             error(win32net.NetUserSetInfo, None, 'user', 1011, {'full_name': 'x'})]))
"""
    assert ast.literal_eval(python(machine, _SETUP + script)) == [None, 1001, LEVEL]
    assert accounts.of(1001) == Account("user", 1001, 0x201, expired=True)
    answers(machine, "set_password('user', 'new Pass-1')")
    assert not accounts.of(1001).expired


def test_files_belong_to_the_administrators(machine: Machine, accounts: Accounts) -> None:
    script = """
import win32file
def described(path):
    told = win32security.GetNamedSecurityInfo(path, 1, 5)
    return win32security.ConvertSecurityDescriptorToStringSecurityDescriptor(told, 1, 5)
open(r'C:\\open.txt', 'w').close()
attributes = win32security.SECURITY_ATTRIBUTES()
attributes.SECURITY_DESCRIPTOR = win32security.ConvertStringSecurityDescriptorToSecurityDescriptor(
    'O:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)', 1)
win32file.CreateDirectoryW(r'C:\\closed', attributes)
print(ascii([described(r'C:\\open.txt'), described(r'C:\\closed')]))
"""
    opened, closed = ast.literal_eval(python(machine, _SETUP + script))
    assert opened == "O:BAD:(A;;FA;;;SY)(A;;FA;;;BA)(A;;0x1200a9;;;WD)"
    assert closed == "O:BAD:(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"


def test_random_numbers_for_cryptography(machine: Machine) -> None:
    script = """
import ctypes
def draw():
    buffer = ctypes.create_string_buffer(32)
    assert ctypes.WinDLL('bcryptprimitives').ProcessPrng(buffer, ctypes.c_size_t(32))
    return buffer.raw
print(len({draw() for _ in range(100)}), any(draw()))
"""
    assert python(machine, script).split() == ["100", "True"]
