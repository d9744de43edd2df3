"""The name of a guest: what it can be, and the files that keep it."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from agent_protocol.outcomes import Failed, Refused

from .files import read_file, write_file
from .paths import GuestPath

MAX_HOSTNAME = 64
"""Bytes of a name: Linux's HOST_NAME_MAX."""

HOSTNAME_FILE = GuestPath("/etc/hostname")
"""hostname(5), which all families of distributions have."""

HOSTS_FILE = GuestPath("/etc/hosts")

FILE_MODE = 0o644

_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_NAME = re.compile(rf"(?=.{{1,{MAX_HOSTNAME}}}\Z){_LABEL}(\.{_LABEL})*\Z", re.ASCII)
_NUMBERS = re.compile(r"[0-9.]+\Z", re.ASCII)

_OWN_LINE = re.compile(rb"^(127\.0\.1\.1[ \t]+)([^#\n]*?)([ \t]*(?:#[^\n]*)?)$", re.MULTILINE)
"""The line of /etc/hosts in which Debian and its children name the machine itself (Debian Reference, 5.1.1)."""


@dataclass(frozen=True)
class HostName:
    """A host's name or fully qualified name by RFC 1123, section 2.1, at most MAX_HOSTNAME bytes, and no IP address.

    Refused (`bad_hostname`) otherwise.
    """

    value: str

    def __post_init__(self) -> None:
        if not _NAME.match(self.value) or _NUMBERS.match(self.value):
            raise Refused(
                "bad_hostname",
                "a host's name consists of letters, digits and hyphens, in parts of at most 63 with dots between them "
                f"that neither begin nor end with a hyphen, has at most {MAX_HOSTNAME} characters and is no number",
            )

    @property
    def short(self) -> str:
        """The name without its domain."""
        return self.value.partition(".")[0]


def read_hostname(root: str) -> str:
    """What /etc/hostname says, empty without one."""
    return (read_file(root, HOSTNAME_FILE) or b"").decode("utf-8", "replace").strip()


def write_hostname(root: str, name: HostName) -> None:
    """Write /etc/hostname and read it back. Failed (`hostname_failed`) when something else stands there then."""
    present = read_file(root, HOSTNAME_FILE)
    content = f"{name.value}\n".encode("ascii")
    if present != content:
        write_file(root, HOSTNAME_FILE, content, mode=FILE_MODE if present is None else None)
    if read_hostname(root) != name.value:
        raise Failed("hostname_failed", f"{HOSTNAME_FILE.text} was written and has another name nevertheless")


def rename_in_hosts(root: str, old_names: Collection[str], name: HostName) -> None:
    """Let the machine's own line of /etc/hosts name it anew; every other line stays, and nothing is added.

    old_names: what it was called up to now. A link in the file's place is left alone: then others keep it.
    """
    try:
        present = read_file(root, HOSTS_FILE)
    except Refused:
        return
    if present is None:
        return
    changed = _OWN_LINE.sub(lambda line: line[1] + _renamed(line[2], old_names, name) + line[3], present, count=1)
    if changed != present:
        write_file(root, HOSTS_FILE, changed)


def _renamed(line: bytes, old_names: Collection[str], name: HostName) -> bytes:
    """The names of the line: the new one, with the old one's domain when it brings none, and other aliases as before.

    hosts(5): the fully qualified name comes first.
    """
    old = {old_name.partition(".")[0].encode() for old_name in old_names if old_name}
    before = line.split()
    own = [known for known in before if known.partition(b".")[0] in old]
    new = [name.value.encode("ascii")]
    domains = [domain for _, dot, domain in (known.partition(b".") for known in own) if dot]
    if name.short != name.value:
        new.append(name.short.encode("ascii"))
    elif domains:
        new.insert(0, new[0] + b"." + domains[0])
    return b" ".join([*new, *(alias for alias in before if alias not in own and alias not in new)])
