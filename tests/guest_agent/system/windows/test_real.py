"""The real calls, in Wine; what it lacks of Windows' accounts is stood in for (tools/labs/wine)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tools.labs.wine.support import module, put_checkout, put_python
from tools.labs.wine import disk
from tools.labs.wine.accounts import Accounts
from tools.labs.wine.machine import Machine

from . import contract_files, contract_machine  # noqa: F401
from .contract import NOT_IN_WINE

pytestmark = pytest.mark.services

LOCKED, NEVER_EXPIRES, DISABLED = 0x10, 0x10000, 0x2


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="xw-wine-") as directory:
        made = Path(directory, "disk")
        disk.copy(disk.installed(), made)
        put_python(made)
        put_checkout(made)
        with Machine(made) as running:
            yield running


@pytest.fixture
def accounts(machine: Machine) -> Iterator[Accounts]:
    accounts = Accounts(machine.disk)
    accounts.lay_out()
    yield accounts
    accounts.lay_out()


def ask(machine: Machine, *calls: str) -> list[str]:
    """How calls of WindowsSystem end, in Windows."""
    status, printed = module(machine, "tests.guest_agent.system.windows.real_calls", *calls)
    assert status == 0, printed
    return printed.splitlines()


def test_the_contracts(machine: Machine) -> None:
    status, printed = module(machine, "tests.guest_agent.system.windows.contract", "--disposable")
    lines = printed.splitlines()
    assert status == 0, printed
    left_out = {line.split()[2].rstrip(":") for line in lines if line.startswith("left out ")}
    assert left_out == set(NOT_IN_WINE)
    assert sum(line.startswith("ok ") for line in lines) == len(lines) - len(left_out) >= 20


def test_passwords(machine: Machine, accounts: Accounts) -> None:
    accounts.rename(500, "Verwalter")
    accounts.set_policy(12, complexity=True)
    assert ask(
        machine,
        "administrator",
        "minimum_password_length()",
        "set_password('Verwalter', Password('Sh0rt-1'))",
        "set_password('Verwalter', Password('Gr\u00fc\u00dfe-und-\U0001f511-1'))",
        "set_password('Administrator', Password('Long-enough-123'))",
    ) == [
        "'Verwalter'",
        "12",
        "refused password_policy",
        "None",
        "refused no_such_user",
    ]
    assert accounts.of().times == 1
    assert accounts.of().opens("Gr\u00fc\u00dfe-und-\U0001f511-1")


def test_states_of_an_account(machine: Machine, accounts: Accounts) -> None:
    account = accounts.of(1001)
    accounts.put(replace(account, flags=account.flags | LOCKED | DISABLED))
    assert ask(machine, "set_password('user', Password('Secret-1'), expire=True)") == ["None"]
    changed = accounts.of(1001)
    assert (changed.flags, changed.expired, changed.times) == (account.flags | DISABLED, True, 1)
    accounts.put(replace(account, flags=account.flags | NEVER_EXPIRES))
    assert ask(machine, "set_password('user', Password('Secret-2'), expire=True)") == ["refused expire_conflict"]
    assert accounts.of(1001).times == 0


def test_files(machine: Machine) -> None:
    long = "\\\\".join(["C:", *["d" * 200] * 3, "long.txt"])
    assert ask(
        machine,
        "put_file('C:/new/dir/a.txt', b'one', mode=None, owner=None)",
        "put_file('c:\\\\new\\\\DIR\\\\A.txt', b'two' * 100000, mode=None, owner=None)",
        f"put_file('{long}', b'', mode=None, owner=None)",
        "put_file('C:\\\\new\\\\dir', b'', mode=None, owner=None)",
        "put_file('C:\\\\new\\\\dir\\\\a.txt\\\\b', b'', mode=None, owner=None)",
    ) == ["None", "None", "None", "refused not_a_file", "refused not_a_directory"]
    written = machine.path("C:\\new\\dir")
    assert [path.name.lower() for path in written.iterdir()] == ["a.txt"]
    assert machine.path("C:\\new\\dir\\a.txt").read_bytes() == b"two" * 100000


def test_state(machine: Machine) -> None:
    assert ask(
        machine,
        "read_configuration()",
        "read_state('identity.json')",
        "write_state('identity.json', b'one')",
        "write_state('identity.json', b'two')",
        "read_state('identity.json')",
        "remove_state('identity.json')",
        "read_state('identity.json')",
    ) == ["None", "None", "None", "None", "b'two'", "None", "None"]
    assert sorted(path.name for path in machine.path("C:\\ProgramData\\xenward").iterdir()) == ["state"]


def test_what_it_is(machine: Machine) -> None:
    first, second = ask(machine, "boot_id()", "boot_id()")
    assert first == second
    assert ask(machine, "boot_id()", "distribution().family", "hostname() != ''") == [first, "'windows'", "True"]
