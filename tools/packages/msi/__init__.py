"""The installer of the Windows agent, an MSI for x64 that is made on Linux and needs nothing but itself.

It carries its own Python, which nothing else in the guest uses, and which uses nothing else there. The same commit
makes the same bytes.
"""

from __future__ import annotations

import re
import tempfile
import uuid
from pathlib import Path

from tools.packages.agent_tree import File, PackageError, date_tree, source_date_epoch, write_tree
from tools.packages.agent_tree import version as own_version

from . import contents, wxs
from .lock import RUNTIME, fetch, read_lock
from .signing import Signer
from .tables import Programs, finish

_VERSION = re.compile(r"(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,4})", re.ASCII)
_LARGEST_VERSION = (255, 255, 65535)


def build(
    directory: Path,
    version: str | None = None,
    *,
    python_directory: Path | None = None,
    signer: Signer | None = None,
) -> Path:
    """Write the installer into a directory and return its path.

    version: three numbers, this checkout's unless given. python_directory: an unpacked embeddable zip of python.org,
    for x64 and of the version that the lock's wheels are for, instead of the runtime that the lock names. signer: signs
    it. PackageError when something is missing or is not what the lock names.
    """
    version = checked_version(version or own_version())
    epoch = source_date_epoch()
    programs = Programs()
    locked = read_lock()
    fetched = fetch([each for each in locked if python_directory is None or each.name != RUNTIME])
    files = contents.installed(fetched, python_directory)
    product = wxs.product_code(version, files)
    document = wxs.document(version, product, list(files))
    package = uuid.uuid5(wxs.NAMESPACE, f"package {product} {epoch} {document.decode()}")
    directory.mkdir(parents=True, exist_ok=True)
    destination = directory / f"xenward-agent-{version}-x64.msi"
    with tempfile.TemporaryDirectory(prefix="xenward-msi-") as name:
        tree, made, source = Path(name, "tree"), Path(name, "agent.msi"), Path(name, "agent.wxs")
        tree.mkdir()
        write_tree(tree, {path: File(content) for path, content in files.items()})
        date_tree(tree, epoch)
        source.write_bytes(document)
        # It looks for the files from where it runs.
        programs.run("wixl", "-a", "x64", "-o", str(made), str(source), directory=tree, epoch=epoch)
        finish(programs, made, package, epoch)
        if signer is not None:
            signed = made.with_name("signed.msi")
            signer.sign(made, signed)
            made = signed
        destination.write_bytes(made.read_bytes())
    return destination


def checked_version(version: str) -> str:
    """As it is. PackageError for one that Windows Installer cannot compare: it knows three numbers, and no releases
    before a release."""
    found = _VERSION.fullmatch(version)
    if found is None or any(int(number) > most for number, most in zip(found.groups(), _LARGEST_VERSION)):
        raise PackageError(f"the version of an MSI has three numbers, up to 255.255.65535; {version} is none")
    return version


__all__ = ["PackageError", "Signer", "build", "checked_version"]
