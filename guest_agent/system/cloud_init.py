"""Whether cloud-init configures this guest too: two that write the same files must not undo each other's work."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent_protocol.outcomes import Failed, Refused

from .files import read_file
from .lookup import any_there, is_there, names_in
from .paths import GuestPath

PROGRAMS = ("/usr/bin/cloud-init", "/bin/cloud-init", "/usr/local/bin/cloud-init")
"""Its configuration alone does not count: packages leave that behind when they are removed."""

MAIN_FILE = GuestPath("/etc/cloud/cloud.cfg")
DIRECTORY = GuestPath("/etc/cloud/cloud.cfg.d")
"""Files in it whose names end in .cfg are read after the main one, in order of their names."""

DISABLED_FILE = GuestPath("/etc/cloud/cloud-init.disabled")

RUN_DIRECTORY = GuestPath("/run/cloud-init")
NO_DATASOURCE = GuestPath("/run/cloud-init/disabled")
"""What its generator for systemd leaves when it found nothing to work with, and therefore does not start it."""

RESULT = GuestPath("/run/cloud-init/result.json")
"""What it writes at the end of its last stage; below /run, so it is of this boot."""

AT_WORK_SECONDS = 600.0
"""Seconds after the boot for which it may be at work. One that left no result by then has failed or hangs."""

_MAX_FILES = 256
"""Files in DIRECTORY that are read; distributions and clouds put a handful there."""

_SPACE = r"[ \t]*"
_END = _SPACE + r"(?:#[^\n]*)?(?:\n|\Z)"
_TOP = re.compile(rf"^(?:network|\"network\"|'network'){_SPACE}:(?=[\s]|\Z)", re.MULTILINE)
_VALUE = r"[\"']?config[\"']?\s*:\s*[\"']?(?P<value>[a-z]*)[\"']?"
_FLOW = re.compile(rf"\s*\{{(?:[^{{}}\n]*,)?\s*{_VALUE}(?P<end>\s*[,}}])?")
_BLOCK = re.compile(rf"{_END}(?P<lines>(?:(?:{_SPACE}(?:#[^\n]*)?|[ ]+[^\n]+)(?:\n|\Z))*)")
_MEMBER = re.compile(rf"(?P<indent>[ ]+){_VALUE}{_SPACE}(?P<rest>[^\s#][^\n]*)?(?:#[^\n]*)?\Z")


@dataclass(frozen=True)
class CloudInit:
    """What cloud-init does in this guest.

    enabled: whether it is installed and starts. owns_network: whether it writes the network's configuration.
    at_work: whether it has not come to the end of its work at this boot.
    """

    enabled: bool = False
    owns_network: bool = False
    at_work: bool = False


def find_cloud_init(root: str, *, command_line: str = "", seconds_since_boot: float | None = None) -> CloudInit:
    """What it does in the guest whose `/` is `root`.

    command_line: the running kernel's. seconds_since_boot: None where nothing runs, cloud-init neither.
    Failed and Refused when its configuration cannot be read: then nobody can tell.
    """
    words = command_line.split()
    if (
        not any_there(root, *PROGRAMS)
        or is_there(root, DISABLED_FILE)
        or is_there(root, NO_DATASOURCE)
        or "cloud-init=disabled" in words
    ):
        return CloudInit()
    return CloudInit(
        enabled=True,
        owns_network="network-config=disabled" not in words and not _network_disabled(root),
        at_work=(
            seconds_since_boot is not None
            and seconds_since_boot < AT_WORK_SECONDS
            and is_there(root, RUN_DIRECTORY)
            and not is_there(root, RESULT)
        ),
    )


def _network_disabled(root: str) -> bool:
    """Whether `network: {config: disabled}` stands in its configuration. The last file that says anything counts."""
    names = [name for name in names_in(root, DIRECTORY) if name.endswith(".cfg")]
    if len(names) > _MAX_FILES:
        raise Failed("cloud_init_unreadable", f"{DIRECTORY.text} has more than {_MAX_FILES} files")
    disabled = False
    for path in (MAIN_FILE, *(GuestPath(f"{DIRECTORY.text}/{name}") for name in names)):
        try:
            content = read_file(root, path)
        except Refused:
            continue  # a link, say: then cloud-init counts as the owner
        said = None if content is None else says_disabled(content.decode("utf-8", "replace"))
        disabled = disabled if said is None else said
    return disabled


def says_disabled(text: str) -> bool | None:
    """Whether the text, in YAML, disables cloud-init's network configuration; None when it says nothing about it.

    Only the plain forms of `network: {config: disabled}` are understood, in braces and indented: for any other,
    cloud-init counts as the owner.
    """
    said = None
    text = text.replace("\r\n", "\n")
    for top in _TOP.finditer(text):
        flow = _FLOW.match(text, top.end())
        if flow:
            said = flow["value"] == "disabled" and flow["end"] is not None
            continue
        block = _BLOCK.match(text, top.end())
        if block:
            said = _block_says(block["lines"], said)
    return said


def _block_says(lines: str, said: bool | None) -> bool | None:
    """As says_disabled, of the lines below `network:`; members of its members are not looked at."""
    indent = None
    for line in lines.splitlines():
        if not line.strip() or line.strip().startswith("#"):
            continue
        depth = len(line) - len(line.lstrip(" "))
        indent = depth if indent is None else indent
        member = _MEMBER.match(line)
        if depth == indent and member:
            said = member["value"] == "disabled" and not member["rest"]
    return said
