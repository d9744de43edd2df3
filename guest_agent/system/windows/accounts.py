"""The accounts of a Windows guest: its administrator, and passwords."""

from __future__ import annotations

import re

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Refused, Unsupported

from ..accounts import Owner, PasswordHash, User, no_such_user
from .api import Account, Accounts, CallError, Registry
from .errors import NONE_MAPPED, failures
from .policy import check_length, password_error

ADMINISTRATOR_RID = 500
"""DOMAIN_USER_RID_ADMIN of winnt.h: the last number of its SID, whatever it is called."""

# The flags of accounts, lmaccess.h.
UF_ACCOUNTDISABLE = 0x2
UF_LOCKOUT = 0x10
UF_PASSWD_CANT_CHANGE = 0x40
UF_DONT_EXPIRE_PASSWD = 0x10000

_PROFILES = "SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion\\ProfileList"
_SYSTEM_DRIVE = re.compile(r"%SystemDrive%", re.IGNORECASE)


def administrator(accounts: Accounts) -> str:
    """The name that the built-in administrator has now: it may have been renamed, and Windows translates it.

    On a domain controller that is the domain's. Failed (`administrator_unknown`) when the system does not tell.
    """
    try:
        return accounts.name_of(f"{accounts.machine_sid()}-{ADMINISTRATOR_RID}")
    except CallError as error:
        raise Failed("administrator_unknown", f"the administrator's name cannot be found: {error}") from None


def find_sid(accounts: Accounts, name: str) -> str:
    """The SID of a user or group. Refused (`no_such_user`) when there is none of that name."""
    with failures():
        try:
            return accounts.sid_of(name)
        except CallError as error:
            if error.number == NONE_MAPPED:
                raise no_such_user(name) from None
            raise


def find_user(accounts: Accounts, registry: Registry, name: str, system_drive: str) -> User:
    """A local account; its numbers are the last ones of its SID and of its group's. Refused (`no_such_user`).

    Its home is empty until its first logon has made it.
    """
    account = _account(accounts, name)
    with failures():
        profile = registry.value(f"{_PROFILES}\\{account.sid}", "ProfileImagePath")
    home = _SYSTEM_DRIVE.sub(lambda _: system_drive, profile) if isinstance(profile, str) else ""
    return User(name, Owner(account.rid, account.group), home)


def set_password(accounts: Accounts, user: str, password: Password | PasswordHash, *, expire: bool) -> None:
    """Give a local account this password. One that was locked after too many attempts is unlocked.

    One that is disabled stays so: somebody has closed it on purpose, and a password is not what was closed about it.

    Unsupported (`hash_unsupported`) for a hash; Refused (`no_such_user`, `password_policy`), with nothing changed, and
    `expire_conflict` for an account whose password never expires or cannot be changed by its user: such an account
    would not be asked for a new one. Failed (`expire_failed`, `unlock_failed`) when only that went wrong.
    """
    if isinstance(password, PasswordHash):
        raise Unsupported("hash_unsupported", "Windows takes no hashed passwords")
    check_length(password.value)
    before = _account(accounts, user)
    if expire and before.flags & (UF_DONT_EXPIRE_PASSWD | UF_PASSWD_CANT_CHANGE):
        raise Refused(
            "expire_conflict",
            f"the account {user!r} has a password that never expires, or that its user cannot change; nothing was done",
        )
    try:
        accounts.set_password(user, password.value)
    except CallError as error:
        raise password_error(error, user) from None
    _unlock(accounts, user)
    if expire:
        _expire(accounts, user)


def _unlock(accounts: Accounts, user: str) -> None:
    try:
        flags = accounts.account(user).flags
        if flags & UF_LOCKOUT:
            accounts.set_flags(user, flags & ~UF_LOCKOUT)
    except CallError as error:
        raise Failed("unlock_failed", f"the password is set, but the account may be locked: {error}") from None


def _expire(accounts: Accounts, user: str) -> None:
    try:
        accounts.expire_password(user)
        if not accounts.account(user).password_expired:
            raise Failed("expire_failed", "the password is set, but does not expire, though Windows said that it would")
    except CallError as error:
        raise Failed("expire_failed", f"the password is set, but does not expire: {error}") from None


def minimum_password_length(accounts: Accounts) -> int:
    """Characters that a local account's password must have; 0 when the system does not tell."""
    try:
        return accounts.minimum_password_length()
    except CallError:
        return 0


def _account(accounts: Accounts, name: str) -> Account:
    try:
        return accounts.account(name)
    except CallError as error:
        raise password_error(error, name) from None
