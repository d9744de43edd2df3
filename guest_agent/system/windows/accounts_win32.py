"""The local accounts, through netapi32 and the Local Security Authority."""

# ruff: noqa: E402 - the checks of types are to stop where Windows is not
from __future__ import annotations

import sys

assert sys.platform == "win32", "this module calls Windows"

import win32api
import win32con
import win32net
import win32security

from .api import Account
from .calls_win32 import calls


class Win32Accounts:
    """api.Accounts."""

    def own_sid(self) -> str:
        """From the process's token."""
        with calls():
            token = win32security.OpenProcessToken(win32api.GetCurrentProcess(), win32con.TOKEN_QUERY)
            sid, _ = win32security.GetTokenInformation(token, win32security.TokenUser)
            return str(win32security.ConvertSidToStringSid(sid))

    def machine_sid(self) -> str:
        """The domain_id of level 2: that of the account domain, SAM's own."""
        with calls():
            return str(win32security.ConvertSidToStringSid(win32net.NetUserModalsGet(None, 2)["domain_id"]))

    def name_of(self, sid: str) -> str:
        """By LookupAccountSid."""
        with calls():
            name, _, _ = win32security.LookupAccountSid(None, win32security.ConvertStringSidToSid(sid))
        return str(name)

    def sid_of(self, name: str) -> str:
        """By LookupAccountName."""
        with calls():
            sid, _, _ = win32security.LookupAccountName(None, name)
            return str(win32security.ConvertSidToStringSid(sid))

    def account(self, name: str) -> Account:
        """By level 4."""
        with calls():
            told = win32net.NetUserGetInfo(None, name, 4)
            sid = told["user_sid"]
            return Account(
                win32security.ConvertSidToStringSid(sid),
                sid.GetSubAuthority(sid.GetSubAuthorityCount() - 1),
                told["primary_group_id"],
                told["flags"],
                bool(told["password_expired"]),
            )

    def set_password(self, name: str, password: str) -> None:
        """By level 1003."""
        with calls():
            win32net.NetUserSetInfo(None, name, 1003, {"password": password})

    def set_flags(self, name: str, flags: int) -> None:
        """By level 1008."""
        with calls():
            win32net.NetUserSetInfo(None, name, 1008, {"flags": flags})

    def expire_password(self, name: str) -> None:
        """By level 4, which has no part that could be set alone; without a password it leaves that as it is."""
        with calls():
            told = win32net.NetUserGetInfo(None, name, 4)
            win32net.NetUserSetInfo(None, name, 4, {**told, "password": None, "password_expired": 1})

    def minimum_password_length(self) -> int:
        """By level 0."""
        with calls():
            return int(win32net.NetUserModalsGet(None, 0)["min_passwd_len"])
