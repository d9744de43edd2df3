"""`xenward-agent --check`: tells whoever builds an image, or looks after a guest, what would work and what would not.

Nothing is changed, and XenStore need not be there. It works on the running system and, with `--root DIR`, on an image
that is mounted there; then what only a running system can tell is left out. Each check is a function of the list at
the end.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Callable

from agent_protocol.outcomes import Refused, Unsuccessful
from agent_protocol.primitives import missing
from agent_protocol.xenstore import StoreClosed

from . import system
from .configuration import REFUSE, Configuration, read_configuration
from .places import CONFIGURATION_FILE, IDENTITY_FILE, STATE_DIRECTORY
from .service import UNIT
from .store import check_store, open_store, store_path
from .system.base import System
from .system.files import read_file
from .system.lookup import any_there, is_there, link_target, names_in
from .system.mounts import parse_mountinfo
from .system.paths import GuestPath
from .system.posix import PosixSystem
from .system.units import is_enabled

OK, MISSING, WARNING = "ok", "missing", "warning"

LEAST_PYTHON = (3, 9)
LEAST_CRYPTOGRAPHY = (3, 4)

FREEZABLE = ("bcachefs", "btrfs", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "reiserfs", "xfs")
"""File systems of Linux that freeze: those whose super_operations have freeze_fs, of those a guest can boot from that
are not shared by a cluster: the agent leaves these alone."""

_PROGRAMS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
_RUNLEVEL = GuestPath("/etc/runlevels/default/xenward-agent")
_PYTHON = GuestPath("/usr/bin/python3")
_PYTHON_NAME = re.compile(r"python3\.([0-9]{1,3})\Z")
_CRYPTOGRAPHY = re.compile(r"cryptography-([0-9]+)\.([0-9]+)[^/]*\.(?:dist-info|egg-info)\Z")
_PAM_FILES = ("/etc/pam.d/chpasswd", "/etc/pam.d/common-password", "/etc/pam.d/system-auth", "/etc/pam.d/password-auth")
_PWQUALITY = re.compile(rb"^[ \t]*password[ \t][^#\n]*pam_pwquality\.so(?P<options>[^#\n]*)", re.MULTILINE)
_ENFORCE = re.compile(rb"^[ \t]*enforce_for_root\b", re.MULTILINE)
_SELINUX = re.compile(rb"^[ \t]*SELINUX[ \t]*=[ \t]*(enforcing|permissive)", re.MULTILINE)


@dataclass(frozen=True)
class Finding:
    """One line. state: OK, MISSING for what cannot work, WARNING for what should be known."""

    state: str
    what: str
    why: str


@dataclass(frozen=True)
class Guest:
    """What the checks look at. store: as on the command line, None where the configuration decides."""

    system: System
    store: str | None

    @property
    def root(self) -> str:
        """The directory that the guest sees as `/`."""
        return self.system.root

    @property
    def is_posix(self) -> bool:
        """Whether its files tell about it."""
        return isinstance(self.system, PosixSystem)

    @property
    def is_running(self) -> bool:
        """Whether it is the system that the check itself runs on."""
        return self.root == "/" or not self.is_posix

    @functools.cached_property
    def configuration(self) -> Configuration:
        """The defaults when the file is wrong; _configuration tells about that."""
        try:
            return read_configuration(self.system)
        except Unsuccessful:
            return Configuration()


Findings = Iterator[Finding]
Check = Callable[[Guest], Findings]


def _python(guest: Guest) -> Findings:
    if guest.is_running:
        minor = sys.version_info[1]
    else:
        target = link_target(guest.root, _PYTHON)
        named = _PYTHON_NAME.search(target)
        if named is None:
            found = WARNING if is_there(guest.root, _PYTHON) else MISSING
            yield Finding(found, "python", f"the version of {_PYTHON.text} cannot be told; install Python 3.9 or later")
            return
        minor = int(named[1])
    enough = (3, minor) >= LEAST_PYTHON
    yield Finding(OK if enough else MISSING, "python", f"3.{minor}" + ("" if enough else "; install 3.9 or later"))


def _cryptography(guest: Guest) -> Findings:
    if guest.is_running:
        reason = missing()
        if reason is not None:
            yield Finding(MISSING, "cryptography", f"it cannot be loaded ({reason}); only the old protocol is served")
            return
        import cryptography

        from agent_protocol import hpke

        version = tuple(int(number) for number in re.findall(r"[0-9]+", cryptography.__version__)[:2])
        kind = "its own HPKE" if hpke.HAS_LIBRARY else "HPKE composed of its parts"
        told = f"{cryptography.__version__}, {kind}"
    else:
        found = _installed_cryptography(guest.root)
        if found is None:
            yield Finding(MISSING, "cryptography", "not found; install python3-cryptography, or use the zipapp")
            return
        version, told = found, ".".join(map(str, found))
    enough = version >= LEAST_CRYPTOGRAPHY
    yield Finding(OK if enough else MISSING, "cryptography", told + ("" if enough else "; install 3.4 or later"))


def _installed_cryptography(root: str) -> tuple[int, ...] | None:
    found = []
    for library in ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"):
        for name in names_in(root, GuestPath(library)):
            if name.startswith("python3"):
                for packages in ("site-packages", "dist-packages"):
                    found += names_in(root, GuestPath(f"{library}/{name}/{packages}"))
    versions = [(int(match[1]), int(match[2])) for match in map(_CRYPTOGRAPHY.match, found) if match]
    return max(versions, default=None)


def _xenstore(guest: Guest) -> Findings:
    if not guest.is_running:
        return
    where = guest.store or guest.configuration.store
    try:
        check_store(where)
        if not guest.is_posix:
            open_store(where).close()
            yield Finding(OK, "xenstore", where)
            return
        path = store_path(where)
    except (ValueError, StoreClosed) as error:
        yield Finding(MISSING, "xenstore", str(error))
        return
    if os.path.exists(path):  # noqa: PTH110
        yield Finding(OK, "xenstore", path)
    else:
        yield Finding(MISSING, "xenstore", f"there is no {path}; the agent waits for it. Is this a guest of Xen?")


def _configuration(guest: Guest) -> Findings:
    from .commands import COMMANDS, SEALED_COMMANDS

    name = guest.system.configuration_name
    if guest.system.read_configuration() is None:
        yield Finding(OK, "configuration", f"no {name}, so the defaults hold")
        return
    configuration = read_configuration(guest.system)
    unknown = sorted(configuration.block - COMMANDS.keys() - SEALED_COMMANDS.keys())
    if unknown:
        yield Finding(MISSING, "configuration", f"[agent] block names {unknown[0]}, and there is no such command")
        return
    check_store(configuration.store)
    blocked = f"; blocked: {', '.join(sorted(configuration.block))}" if configuration.block else ""
    yield Finding(OK, "configuration", f"{name} is valid{blocked}")


def _owners(guest: Guest) -> Findings:
    """Whoever can write the configuration decides whose updates are run."""
    for path in (GuestPath("/etc/xenward"), CONFIGURATION_FILE):
        place = os.path.join(guest.root, path.text.lstrip("/"))  # noqa: PTH118
        try:
            found = os.lstat(place)
        except FileNotFoundError:
            continue
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield Finding(MISSING, "ownership", f"others than root can write {path.text}: chown root, chmod go-w")
        elif stat.S_ISLNK(found.st_mode):
            yield Finding(MISSING, "ownership", f"{path.text} is a symbolic link")
        else:
            yield Finding(OK, "ownership", f"only root can write {path.text}")


def _distribution(guest: Guest) -> Findings:
    distribution = guest.system.distribution()
    name = f"{distribution.id} {distribution.version}".strip() or "without a name"
    if distribution.family is None:
        yield Finding(WARNING, "distribution", f"{name} is not known; name the network's stack in the configuration")
    else:
        yield Finding(OK, "distribution", f"{name}, as {distribution.family}")


def _passwords(guest: Guest) -> Findings:
    for program, needed_for in (("chpasswd", "setting passwords"), ("chage", "making a password expire")):
        path = any_there(guest.root, *(f"{directory}/{program}" for directory in _PROGRAMS))
        if path:
            yield Finding(OK, program, path)
        else:
            # Without chage there is still `passwd -e` on some systems.
            state = MISSING if program == "chpasswd" else WARNING
            yield Finding(state, program, f"not found, needed for {needed_for}; install passwd or shadow-utils")


def _policy(guest: Guest) -> Findings:
    least = guest.system.minimum_password_length()
    yield Finding(
        OK, "policy", f"/etc/login.defs asks for {least} characters" if least else "/etc/login.defs asks none"
    )
    for path in _PAM_FILES:
        try:
            rule = _PWQUALITY.search(read_file(guest.root, GuestPath(path)) or b"")
        except Refused:
            continue  # a link to one of the others
        if rule:
            enforced = b"enforce_for_root" in rule["options"] or _enforced_by_file(guest.root)
            told = "holds for the agent" if enforced else "does not hold for root, so not for the agent"
            state = OK if enforced else WARNING
            yield Finding(state, "policy", f"pam_pwquality in {path} {told} (enforce_for_root)")
            return


def _enforced_by_file(root: str) -> bool:
    directory = "/etc/security/pwquality.conf.d"
    names = [f"{directory}/{name}" for name in names_in(root, GuestPath(directory)) if name.endswith(".conf")]
    paths = ["/etc/security/pwquality.conf", *names]
    return any(_ENFORCE.search(read_file(root, GuestPath(path)) or b"") for path in paths)


def _network(guest: Guest) -> Findings:
    from .network.stacks import stack_of

    stack = stack_of(guest.system, guest.configuration)
    yield Finding(OK, "network", f"{stack.name}: {stack.reason}")


def _cloud_init(guest: Guest) -> Findings:
    found = guest.system.cloud_init()
    if not found.enabled:
        yield Finding(OK, "cloud-init", "not there, or disabled")
    elif found.owns_network and guest.configuration.cloud_init_network == REFUSE:
        yield Finding(
            WARNING,
            "cloud-init",
            "it owns the network, so the agent refuses to configure that; disable it there "
            "(network: {config: disabled} in /etc/cloud/cloud.cfg.d), or set [cloud-init] network = override",
        )
    else:
        yield Finding(OK, "cloud-init", "it is at work, and leaves the network to the agent")


def _freezing(guest: Guest) -> Findings:
    if not guest.is_running:
        return
    with open("/proc/self/mountinfo", "rb") as file:  # noqa: PTH123
        kinds = [mount.kind for mount in parse_mountinfo(file.read()) if mount.mount_point == "/"]
    kind = kinds[-1] if kinds else "unknown"
    if kind in FREEZABLE:
        yield Finding(OK, "freeze", f"the root file system is {kind}")
    else:
        yield Finding(WARNING, "freeze", f"the root file system is {kind}, which does not freeze")


def _identity(guest: Guest) -> Findings:
    directory = STATE_DIRECTORY
    place = os.path.join(guest.root, "var/lib/xenward")  # noqa: PTH118
    while not os.path.isdir(place) and place != guest.root:  # noqa: PTH112
        place = os.path.dirname(place)  # noqa: PTH120
    if os.statvfs(place).f_flag & os.ST_RDONLY or not os.access(place, os.W_OK):
        yield Finding(MISSING, "identity", f"{directory.text} cannot be written: hosts will not recognise this guest")
    elif not is_there(guest.root, IDENTITY_FILE):
        yield Finding(OK, "identity", "none yet; the agent makes one when it starts")
    elif guest.is_running:
        yield Finding(OK, "identity", f"{IDENTITY_FILE.text}; remove it before this becomes an image")
    else:
        yield Finding(
            WARNING,
            "identity",
            f"{IDENTITY_FILE.text} is in the image, and must not be: it is a secret of one guest. Remove it. A clone "
            "with another uuid makes a new one all the same",
        )


def _updates(guest: Guest) -> Findings:
    if guest.configuration.update_key is None:
        yield Finding(WARNING, "updates", "no [update] key is configured, so hosts cannot update the agent")
    else:
        yield Finding(OK, "updates", "those signed by the configured key")


def _service(guest: Guest) -> Findings:
    if is_enabled(guest.root, UNIT):
        yield Finding(OK, "service", f"systemd starts {UNIT}")
    elif is_there(guest.root, _RUNLEVEL):
        yield Finding(OK, "service", "OpenRC starts xenward-agent in the runlevel default")
    else:
        yield Finding(MISSING, "service", f"not enabled: systemctl enable {UNIT}, or rc-update add xenward-agent")


def _mandatory_access(guest: Guest) -> Findings:
    if guest.is_running:
        selinux = read_file("/", GuestPath("/sys/fs/selinux/enforce"))
        apparmor = read_file("/", GuestPath("/sys/module/apparmor/parameters/enabled"))
        if selinux is not None:
            yield Finding(OK, "selinux", "enforcing" if selinux.strip() == b"1" else "permissive")
        if apparmor is not None and apparmor.strip() == b"Y":
            yield Finding(OK, "apparmor", "enabled; the agent has no profile")
        return
    mode = _SELINUX.search(read_file(guest.root, GuestPath("/etc/selinux/config")) or b"")
    if mode is not None:
        told = f"{mode[1].decode()} in the image; files that were put in from outside need labels: touch /.autorelabel"
        yield Finding(WARNING, "selinux", told)


CHECKS: tuple[tuple[str, Check], ...] = (
    ("python", _python),
    ("cryptography", _cryptography),
    ("xenstore", _xenstore),
    ("configuration", _configuration),
    ("ownership", _owners),
    ("distribution", _distribution),
    ("passwords", _passwords),
    ("policy", _policy),
    ("network", _network),
    ("cloud-init", _cloud_init),
    ("freeze", _freezing),
    ("identity", _identity),
    ("updates", _updates),
    ("service", _service),
    ("security", _mandatory_access),
)
"""In the order in which they are told. The name is that of a finding for a check that fails."""

NEUTRAL = ("python", "cryptography", "xenstore", "configuration", "updates")
"""Those of them that make sense on any system; the others look at files of a Linux distribution."""


def findings(root: str, store: str | None = None) -> list[Finding]:
    """All that is found in the guest whose `/` is `root`. Errors as system.choose; a check that fails is a finding."""
    guest = Guest(system.choose(root), store)
    found: list[Finding] = []
    for what, check in CHECKS:
        if not guest.is_posix and what not in NEUTRAL:
            continue
        try:
            found += check(guest)
        except (Unsuccessful, OSError, ValueError) as error:
            found.append(Finding(MISSING, what, str(error)))
    return found


def main(root: str, store: str | None = None, *, as_json: bool = False) -> int:
    """Print the findings, a line each or as JSON. The exit status is 1 when something is missing, and 0 otherwise."""
    # What the checks would log is what they find.
    logging.getLogger(__package__).addHandler(logging.NullHandler())
    try:
        found = findings(root, store)
    except Unsuccessful as error:
        found = [Finding(MISSING, "system", str(error))]
    if as_json:
        print(json.dumps([asdict(finding) for finding in found]))
    else:
        for finding in found:
            print(f"{finding.state:8} {finding.what:14} {_printable(finding.why)}")
    return int(any(finding.state == MISSING for finding in found))


def _printable(text: str) -> str:
    """Names in an image may hold what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)
