"""The RPM package of the agent, for RHEL and its like, Fedora, and SUSE. What deb.py says holds here too."""

from __future__ import annotations

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

REPRODUCIBLE = """\
# Nothing is changed after it was laid out: no stripping, no bytecode of the builder's Python.
%global __os_install_post %{nil}
%global debug_package %{nil}
%global _build_id_links none
%global _buildhost reproducible
%global use_source_date_epoch_as_buildtime 1
%global clamp_mtime_to_source_date_epoch 1
%global source_date_epoch_from_changelog 0
# Every rpm can read gzip.
%global _binary_payload w9.gzdio
"""
"""For every spec: the same sources make the same bytes, whatever the machine."""

SPEC = """\
Name: {name}
Version: {version}
Release: 1
Summary: {summary}
License: Apache-2.0
BuildArch: noarch
AutoReqProv: no
Requires: python3 >= 3.9
Requires: python3-cryptography >= 3.4
# The second is SUSE's name of it.
Requires: (shadow-utils or shadow)

{reproducible}
%description
{description}

%post
if [ "$1" -eq 1 ] && command -v systemctl >/dev/null; then
    # Also without a running systemd, as in the chroot of an image's builder: it makes a link.
    systemctl --no-reload enable {unit} >/dev/null 2>&1 || :
fi

%preun
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null; then
    [ ! -d /run/systemd/system ] || systemctl stop {unit} >/dev/null 2>&1 || :
    systemctl --no-reload disable {unit} >/dev/null 2>&1 || :
fi
if [ "$1" -eq 0 ]; then
    find {library} -depth -type d -name __pycache__ -exec rm -rf {{}} +
fi

%postun
[ ! -d /run/systemd/system ] || systemctl daemon-reload >/dev/null 2>&1 || :
if [ "$1" -eq 0 ]; then
    rm -rf /run/xenward
    # All but the identity, by which hosts know this guest.
    if [ -d /var/lib/xenward ]; then
        find /var/lib/xenward -mindepth 1 -maxdepth 1 ! -name identity.json -exec rm -rf {{}} +
        rmdir --ignore-fail-on-non-empty /var/lib/xenward
    fi
fi

# After an upgrade has removed the old version's files.
%posttrans
find {library} -depth -type d -name __pycache__ -exec rm -rf {{}} +
/usr/bin/python3 -I -m compileall -q {library} || :
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
    # What the administrator disabled is not started.
    systemctl --quiet is-enabled {unit} 2>/dev/null && systemctl restart {unit} >/dev/null 2>&1 || :
fi

%files
%defattr(-, root, root, 0755)
%dir /etc/xenward
{files}
"""


def build(directory: Path, release: str | None = None) -> Path:
    """Write the package into a directory and return its path; the same sources make the same bytes.

    release: a version other than the distribution's. PackageError when it cannot be built.
    """
    native = native_version(version() if release is None else release)
    files = installed_files()
    return pack(directory / f"{NAME}-{native}-1.noarch.rpm", _spec(files, native), files)


def pack(destination: Path, spec_text: str, files: dict[str, File]) -> Path:
    """Write a package of these files, as that spec says; gives its path. PackageError when it cannot be built."""
    require("rpmbuild", "rpm")
    epoch = source_date_epoch()
    with tempfile.TemporaryDirectory(prefix="xenward-rpm-") as name:
        top = Path(name)
        tree = top / "tree"
        tree.mkdir(mode=0o755)
        write_tree(tree, files)
        date_tree(tree, epoch)
        spec = top / "package.spec"
        spec.write_text(spec_text, encoding="utf-8")
        macros = {"_topdir": top, "_rpmdir": top, "_tmppath": top, "_rpmfilename": "package.rpm"}
        defined = [part for macro, value in macros.items() for part in ("--define", f"{macro} {value}")]
        run(["rpmbuild", "-bb", "--quiet", "--noclean", "--buildroot", str(tree), *defined, str(spec)], epoch)
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes((top / "package.rpm").read_bytes())
    return destination


def _spec(files: dict[str, File], native: str) -> str:
    listed = [
        f"%config(noreplace) %attr({file.mode:o}, root, root) {path}"
        if path == CONFIGURATION_FILE
        else f"%attr({file.mode:o}, root, root) {path}"
        for path, file in sorted(files.items())
    ]
    below = {Path(path).parent for path in files if path.startswith(f"{LIBRARY}/")}
    directories = {str(directory) for directory in below} | {LIBRARY, "/usr/share/doc/xenward-agent"}
    listed += [f"%dir {directory}" for directory in sorted(directories)]
    return SPEC.format(
        name=NAME,
        reproducible=REPRODUCIBLE,
        version=native,
        summary=SUMMARY,
        description=DESCRIPTION,
        unit=UNIT,
        library=LIBRARY,
        files="\n".join(listed),
    )
