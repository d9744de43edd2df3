"""The accounts of a disk's Windows, as a test sees them. The shim of netapi32 (sources/accounts.c) keeps them.

A file of lines whose fields are parted by tabs. The first has the password policy, each other one an account:

    policy <minimum length> <whether passwords must be complex, 0 or 1>
    account <RID> <flags> <expired, 0 or 1> <times> <salt> <digest> <name>

times: how often a password was set. salt, digest: in hexadecimal; the digest is SHA-256 of the salt and the password in
UTF-16. So a test can tell whether it is exactly this password, and the file holds none.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

ADMINISTRATOR_RID = 500
"""DOMAIN_USER_RID_ADMIN, winnt.h."""

_NORMAL_ACCOUNT = 0x200 | 0x1
"""UF_NORMAL_ACCOUNT and UF_SCRIPT, lmaccess.h."""

_NO_SALT, _NO_DIGEST = bytes(16), bytes(32)


@dataclass(frozen=True)
class Account:
    """One account. It has no password that anybody knows while `times` is 0."""

    name: str
    rid: int
    flags: int = _NORMAL_ACCOUNT
    expired: bool = False
    times: int = 0
    salt: bytes = _NO_SALT
    digest: bytes = _NO_DIGEST

    def opens(self, password: str) -> bool:
        """Whether this is its password."""
        return hashlib.sha256(self.salt + password.encode("utf-16-le")).digest() == self.digest


class Accounts:
    """Those of the Windows on `disk`. What is changed here, a machine that runs finds changed."""

    def __init__(self, disk: Path) -> None:
        self._file = disk / "drive_c/windows/system32/config/xenward-accounts"

    def lay_out(self) -> None:
        """Those of a new system: an administrator and a user, and no policy."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._write(_policy(0, False), [Account("Administrator", ADMINISTRATOR_RID), Account("user", 1001)])

    def of(self, rid: int = ADMINISTRATOR_RID) -> Account:
        """The account with that number. KeyError when there is none."""
        return self._all()[rid]

    def rename(self, rid: int, name: str) -> None:
        """Call an account otherwise, as an administrator can."""
        self.put(replace(self.of(rid), name=name))

    def put(self, account: Account) -> None:
        """Have this account, in place of the one with its number."""
        accounts = {**self._all(), account.rid: account}
        self._write(self._lines()[0], list(accounts.values()))

    def set_policy(self, minimum_length: int = 0, complexity: bool = False) -> None:
        """What passwords must be: so long, and of three of the four kinds of characters."""
        self._write(_policy(minimum_length, complexity), list(self._all().values()))

    def _lines(self) -> list[str]:
        return self._file.read_text("utf-8").splitlines()

    def _all(self) -> dict[int, Account]:
        accounts = [_parsed(line) for line in self._lines()[1:]]
        return {account.rid: account for account in accounts}

    def _write(self, policy: str, accounts: list[Account]) -> None:
        lines = [policy, *(_line(account) for account in accounts)]
        unfinished = self._file.with_name(self._file.name + ".unfinished")
        unfinished.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        unfinished.replace(self._file)


def _policy(minimum_length: int, complexity: bool) -> str:
    return f"policy\t{minimum_length}\t{int(complexity)}"


def _line(account: Account) -> str:
    numbers = (account.rid, account.flags, int(account.expired), account.times)
    return "\t".join(["account", *map(str, numbers), account.salt.hex(), account.digest.hex(), account.name])


def _parsed(line: str) -> Account:
    _, rid, flags, expired, times, salt, digest, name = line.split("\t")
    return Account(name, int(rid), int(flags), expired == "1", int(times), bytes.fromhex(salt), bytes.fromhex(digest))
