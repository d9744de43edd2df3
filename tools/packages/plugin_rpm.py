"""The RPM package of the dom0 plugin, for XenServer and XCP-ng: one file where XAPI looks for it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import dom0_plugins

from . import dom0_plugin
from .agent_tree import File, native_version
from .rpm import REPRODUCIBLE, pack

NAME = "xenward-dom0-plugin"
PATH = "/etc/xapi.d/plugins/xenward"

SPEC = """\
Name: {name}
Version: {version}
Release: 1
Summary: Carries requests of a cloud to the agents in Xen guests
License: Apache-2.0
BuildArch: noarch
AutoReqProv: no
Requires: python3 >= 3.6

{reproducible}
%description
The dom0 plugin of xenward. XAPI runs it for a cloud's compute driver. It
carries requests to guests' agents through XenStore, and reads the log of a
guest's serial console. It starts no daemon and changes no configuration.

%files
%defattr(-, root, root, 0755)
%attr(755, root, root) {path}
"""


def build(
    directory: Path,
    release: str | None = None,
    *,
    interpreter: str = dom0_plugin.INTERPRETER,
    bytecode: Sequence[str] | None = None,
) -> Path:
    """Write the package into a directory and return its path; the same sources make the same bytes.

    release: a version other than the plugin's own. interpreter, bytecode: as of dom0_plugin.build(). PackageError when
    it cannot be built.
    """
    native = native_version(dom0_plugins.__version__ if release is None else release)
    with tempfile.TemporaryDirectory(prefix="xenward-plugin-") as name:
        plugin = Path(name) / "xenward"
        dom0_plugin.build(plugin, interpreter, bytecode)
        files = {PATH: File(plugin.read_bytes(), 0o755)}
    spec = SPEC.format(name=NAME, version=native, reproducible=REPRODUCIBLE, path=PATH)
    return pack(directory / f"{NAME}-{native}-1.noarch.rpm", spec, files)
