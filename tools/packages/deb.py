"""The Debian package of the agent, for Debian and Ubuntu.

Its scripts work where systemd runs, and in the chroot of an image's builder, where the service is enabled and nothing
is started. Bytecode is made when it is installed, by the Python that is there.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from guest_agent.service import UNIT

from .agent_tree import (
    CONFIGURATION_FILE,
    DESCRIPTION,
    LIBRARY,
    SUMMARY,
    File,
    date_tree,
    installed_files,
    native_version,
    require,
    run,
    source_date_epoch,
    version,
    write_tree,
)

NAME = "xenward-agent"

CONTROL = """\
Package: {name}
Version: {version}
Architecture: all
Maintainer: The xenward project <xenward@localhost>
Installed-Size: {size}
Pre-Depends: init-system-helpers (>= 1.54~)
Depends: python3 (>= 3.9), python3-cryptography (>= 3.4), passwd
Section: admin
Priority: optional
Description: {summary}
{description}
"""

POSTINST = f"""\
#!/bin/sh
set -e

[ "$1" = configure ] || [ "$1" = abort-upgrade ] || [ "$1" = abort-deconfigure ] || [ "$1" = abort-remove ] || exit 0

if command -v py3compile >/dev/null; then
    py3compile -p {NAME} {LIBRARY}
fi

# It was masked when the package was removed without being purged.
deb-systemd-helper unmask {UNIT} >/dev/null || true
# What the administrator disabled stays disabled.
if deb-systemd-helper --quiet was-enabled {UNIT}; then
    deb-systemd-helper enable {UNIT} >/dev/null || true
else
    deb-systemd-helper update-state {UNIT} >/dev/null || true
fi

if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
    if [ -n "$2" ]; then
        deb-systemd-invoke restart {UNIT} >/dev/null || true
    else
        deb-systemd-invoke start {UNIT} >/dev/null || true
    fi
fi
"""

PRERM = f"""\
#!/bin/sh
set -e

# An upgrade restarts it once the new code is there.
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    deb-systemd-invoke stop {UNIT} >/dev/null || true
fi

# Bytecode of this version and of others, as of another Python or of an agent that could write here.
find {LIBRARY} -depth -type d -name __pycache__ -exec rm -rf {{}} +
"""

POSTRM = f"""\
#!/bin/sh
set -e

if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
fi

if [ "$1" = remove ]; then
    if [ -x /usr/bin/deb-systemd-helper ]; then
        deb-systemd-helper mask {UNIT} >/dev/null || true
    fi
    rm -rf /run/xenward
fi

if [ "$1" = purge ]; then
    if [ -x /usr/bin/deb-systemd-helper ]; then
        deb-systemd-helper purge {UNIT} >/dev/null || true
        deb-systemd-helper unmask {UNIT} >/dev/null || true
    fi
    # All but the identity, by which hosts know this guest.
    if [ -d /var/lib/xenward ]; then
        find /var/lib/xenward -mindepth 1 -maxdepth 1 ! -name identity.json -exec rm -rf {{}} +
        rmdir --ignore-fail-on-non-empty /var/lib/xenward
    fi
fi
"""


def build(directory: Path, release: str | None = None) -> Path:
    """Write the package into a directory and return its path; the same sources make the same bytes.

    release: a version other than the distribution's. PackageError when it cannot be built.
    """
    require("dpkg-deb", "dpkg")
    epoch = source_date_epoch()
    native = native_version(version() if release is None else release)
    files = installed_files()
    destination = directory / f"{NAME}_{native}_all.deb"
    with tempfile.TemporaryDirectory(prefix="xenward-deb-") as name:
        tree = Path(name) / "tree"
        tree.mkdir(mode=0o755)
        write_tree(tree, {**files, **_control(files, native)})
        date_tree(tree, epoch)
        directory.mkdir(parents=True, exist_ok=True)
        run(["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(destination)], epoch)
    return destination


def _control(files: dict[str, File], native: str) -> dict[str, File]:
    sums = "".join(
        f"{hashlib.md5(file.content, usedforsecurity=False).hexdigest()}  {path.lstrip('/')}\n"
        for path, file in sorted(files.items())
        if path != CONFIGURATION_FILE
    )
    control = CONTROL.format(
        name=NAME,
        version=native,
        size=sum(-(-len(file.content) // 1024) for file in files.values()),
        summary=SUMMARY,
        description="\n".join(f" {line}" for line in DESCRIPTION.splitlines()),
    )
    return {
        "/DEBIAN/control": File(control.encode()),
        "/DEBIAN/conffiles": File(f"{CONFIGURATION_FILE}\n".encode()),
        "/DEBIAN/md5sums": File(sums.encode()),
        "/DEBIAN/postinst": File(POSTINST.encode(), 0o755),
        "/DEBIAN/prerm": File(PRERM.encode(), 0o755),
        "/DEBIAN/postrm": File(POSTRM.encode(), 0o755),
    }
