"""Which services systemd starts in a guest, told from its files, so that it works for a guest that does not run too."""

from __future__ import annotations

import fnmatch

from agent_protocol.outcomes import Failed, Refused

from .files import read_file
from .lookup import is_there, link_target, names_in
from .paths import GuestPath

_UNITS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
"""systemd.unit(5): the administrator's units and the distribution's. What stands below /run is made anew at each boot,
by those who use a service themselves, as netplan uses systemd-networkd."""

_PRESETS = ("/etc/systemd/system-preset", "/usr/lib/systemd/system-preset", "/lib/systemd/system-preset")
"""systemd.preset(5)."""

_MACHINE_ID = GuestPath("/etc/machine-id")


def is_enabled(root: str, unit: str, *aliases: str) -> bool:
    """Whether systemd starts this unit, such as `wicked.service`.

    It does when a link in a `.wants` or `.requires` directory has the unit's name, or when a link with the name of one
    of its aliases in /etc leads to it. An image that never booted has no such links yet: its presets decide.
    """
    etc = _UNITS[0]
    if link_target(root, GuestPath(f"{etc}/{unit}")) == "/dev/null":
        return False  # masked
    for directory in _UNITS:
        for name in names_in(root, GuestPath(directory)):
            if name.endswith((".wants", ".requires")) and is_there(root, GuestPath(f"{directory}/{name}/{unit}")):
                return True
    if any(link_target(root, GuestPath(f"{etc}/{alias}")).rpartition("/")[2] == unit for alias in aliases):
        return True
    return _never_booted(root) and _is_preset(root, unit)


def _never_booted(root: str) -> bool:
    """machine-id(5): it is missing or says so; an empty one is that of an image that was cleaned."""
    try:
        content = read_file(root, _MACHINE_ID)
    except (Refused, Failed):
        return False
    return content is None or content.strip() == b"uninitialized"


def _is_preset(root: str, unit: str) -> bool:
    """The first line that speaks of the unit counts, in the order of the files' names; without one, it is enabled.

    A file in an earlier directory stands for one of the same name in a later one.
    """
    files: dict[str, str] = {}
    for directory in _PRESETS:
        for name in names_in(root, GuestPath(directory)):
            if name.endswith(".preset"):
                files.setdefault(name, directory)
    for name, directory in sorted(files.items()):
        try:
            content = read_file(root, GuestPath(f"{directory}/{name}")) or b""
        except (Refused, Failed):
            continue
        for line in content.decode("utf-8", "replace").splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] in ("enable", "disable") and fnmatch.fnmatchcase(unit, words[1]):
                return words[0] == "enable"
    return bool(files)
