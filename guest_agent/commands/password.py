"""Passwords that the host chose: by the key exchange of the existing clouds, and sealed."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent_protocol.messages import Password

from ..system.accounts import PasswordHash, check_account_name
from .arguments import bad, flag, json_object, optional_text
from .table import CLEAR, SEALED, Context, Result, command

# Both of the old commands take their value as it is: the exchange checks it itself, and must see even a bad one to
# forget its key.


@command("keyinit", tables=CLEAR, parse=str, returncode="D0")
def keyinit(context: Context, untrusted_public: str) -> Result:
    """Agree on a key for one password: takes the host's public number in decimal, returns ours."""
    return Result(context.exchange.accept(untrusted_public))


@command("password", tables=CLEAR, parse=str, secret=True)
def legacy_password(context: Context, untrusted_ciphertext: str) -> Result:
    """Set the administrator's password to what was encrypted with the key that keyinit agreed on."""
    new_password = Password(context.exchange.open(untrusted_ciphertext))
    context.system.set_password(context.system.administrator, new_password)
    return Result()


@dataclass(frozen=True)
class PasswordChange:
    """A password for an account. user: None for the administrator. expire: it must be changed at the next login."""

    user: str | None
    password: Password | PasswordHash = field(repr=False)
    expire: bool


def _parse(untrusted_value: str) -> PasswordChange:
    members = json_object(untrusted_value, [], ["user", "value", "hash", "expire"])
    user, value, hashed = (optional_text(members, name) for name in ("user", "value", "hash"))
    if (value is None) is (hashed is None):
        raise bad("exactly one of value and hash must be there")
    return PasswordChange(
        None if user is None else check_account_name(user),
        Password(value) if value is not None else PasswordHash(hashed or ""),
        flag(members, "expire"),
    )


@command("password", tables=SEALED, parse=_parse, secret=True)
def password(context: Context, change: PasswordChange) -> Result:
    """Set an account's password."""
    system = context.system
    user = system.administrator if change.user is None else change.user
    system.set_password(user, change.password, expire=change.expire)
    return Result("", {"user": user})
