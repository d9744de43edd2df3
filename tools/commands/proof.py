"""Proofs, read from a guest's own disk: what its root directory holds, not what anybody reported."""

from __future__ import annotations

import stat
from pathlib import Path

from passlib.hash import sha512_crypt

from compute_driver.files import InjectedFile


class NotProven(Exception):
    """Raised when something that was reported as done cannot be seen in the guest. args[0] says what."""


def require(holds: bool, claim: str) -> None:
    """NotProven unless the claim holds."""
    if not holds:
        raise NotProven(claim)


def password_opens(guest: Path, user: str, password: str) -> bool:
    """Whether the hash in the guest's etc/shadow is one of this password."""
    for line in (guest / "etc/shadow").read_text().splitlines():
        name, stored, *_ = line.split(":")
        if name == user:
            return sha512_crypt.identify(stored) and bool(sha512_crypt.verify(password, stored))
    return False


def key_is_authorized(guest: Path, user: str, key: str) -> bool:
    """Whether the user's authorized_keys has this line, and nobody else can write it."""
    keys = guest / _home(guest, user) / ".ssh/authorized_keys"
    return keys.is_file() and key in keys.read_text().splitlines() and not keys.stat().st_mode & 0o022


def file_is(guest: Path, file: InjectedFile) -> bool:
    """Whether a regular file stands there with exactly this content, mode and owner (as the guest's passwd has it)."""
    path = guest / file.path.lstrip("/")
    if not path.is_file() or path.is_symlink():
        return False
    status = path.stat()
    user = (file.owner or "root").partition(":")[0]
    return (
        path.read_bytes() == file.content
        and stat.S_IMODE(status.st_mode) == (0o600 if file.mode is None else file.mode)
        and status.st_uid == int(_passwd(guest, user)[2])
    )


def _passwd(guest: Path, user: str) -> list[str]:
    for line in (guest / "etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == user:
            return fields
    raise NotProven(f"the guest has a user {user}")


def _home(guest: Path, user: str) -> str:
    return _passwd(guest, user)[5].lstrip("/")
