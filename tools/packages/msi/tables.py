"""The programs that make an installer on Linux, and what wixl cannot say and so is said in its tables afterwards.

A table is read and written as text: three lines of names, types and keys, then one for each row, with tabs between
the columns (the IDT format of Windows Installer).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from tools.labs.cache import LabError
from tools.labs.packages import unpacked
from tools.packages.agent_tree import PackageError, run

DEBIAN = ("libgcab-1.0-0", "libgsf-1-114", "libmsi0", "msitools", "wixl", "wixl-data")
"""The packages that have them, taken where they are not installed. What these need in turn is in Debian's base but for
GLib and libxml2."""

_SUMMARY = "_SummaryInformation"
_HEADER_LINES = 3

_VERSION_MAX_INCLUSIVE = 0x200
_AFTER_INSTALL_INITIALIZE = 1501

_REVISION, _CREATED, _SAVED = "9", "12", "13"
"""Properties of the summary by their numbers: the package's own identity, and two dates."""

Row = list[str]


class Programs:
    """wixl, msiinfo, msibuild and msiextract: those that are installed, or else Debian's, kept in the user's cache.

    PackageError when they cannot be had.
    """

    def __init__(self) -> None:
        self._directory = ""
        self._libraries = ""
        if shutil.which("wixl") is None or shutil.which("msibuild") is None:
            try:
                directory = unpacked(DEBIAN)
            except LabError as error:
                raise PackageError(f"wixl and msitools are neither installed nor to be had: {error}") from None
            (library,) = (str(path) for path in directory.glob("usr/lib/*-linux-gnu"))
            self._directory, self._libraries = str(directory), library

    def run(self, name: str, *arguments: str, directory: Path | None = None, epoch: int | None = None) -> str:
        """What the program prints, run in `directory`. PackageError, with its words, when it fails."""
        program = str(Path(self._directory, "usr/bin", name)) if self._directory else name
        return run([*self._environment(directory), program, *arguments], epoch)

    def _environment(self, directory: Path | None) -> list[str]:
        command = ["env"] + ([f"--chdir={directory}"] if directory is not None else [])
        known = os.environ.get("LD_LIBRARY_PATH")
        paths = os.pathsep.join(filter(None, [self._libraries, known]))
        return command + ([f"LD_LIBRARY_PATH={paths}"] if paths else [])

    def table(self, installer: Path, name: str) -> list[Row]:
        """The rows of a table; the first three are its head."""
        text = self.run("msiinfo", "export", str(installer), name)
        return [line.split("\t") for line in text.replace("\r\n", "\n").split("\n") if line]

    def write_table(self, installer: Path, name: str, rows: list[Row]) -> None:
        """Put these rows, head included, in the place of what the table held."""
        with tempfile.TemporaryDirectory(prefix="xenward-msi-") as directory:
            path = Path(directory, f"{name}.idt")
            path.write_bytes("".join("\t".join(row) + "\r\n" for row in rows).encode("ascii"))
            self.run("msibuild", str(installer), "-i", str(path))

    def edit(self, installer: Path, name: str, change: Callable[[Row], Row], expected: int = 1) -> None:
        """Change each row of a table. PackageError unless that makes a difference to as many rows as expected."""
        rows = self.table(installer, name)
        changed = rows[:_HEADER_LINES] + [change(list(row)) for row in rows[_HEADER_LINES:]]
        differences = sum(1 for old, new in zip(rows, changed) if old != new)
        if differences != expected:
            raise PackageError(f"{differences} rows of the table {name} were to be changed, not {expected}")
        self.write_table(installer, name, changed)


def finish(programs: Programs, installer: Path, package: uuid.UUID, epoch: int) -> None:
    """Bring what wixl made to its final form. package: its identity; epoch: seconds since 1970 that it is dated with.

    The same version of other content takes the other's place, instead of standing beside it. The version before is
    removed within the transaction, so that it is back when the new one cannot be installed. START=0 leaves the service
    to the next boot.
    """
    programs.edit(installer, "Upgrade", _same_version_too)
    programs.edit(installer, "InstallExecuteSequence", _sequence, expected=2)
    programs.edit(installer, "Property", _secure)
    date = time.strftime("%Y/%m/%d %H:%M:%S", time.gmtime(epoch))
    values = {_REVISION: f"{{{str(package).upper()}}}", _CREATED: date, _SAVED: date}
    rows = programs.table(installer, _SUMMARY)
    # wixl dates it, and gives it an identity, by chance.
    written = rows[:_HEADER_LINES] + [[row[0], values.get(row[0], row[1])] for row in rows[_HEADER_LINES:]]
    programs.write_table(installer, _SUMMARY, written)


def _same_version_too(row: Row) -> Row:
    attributes, action = 4, 6
    if row[action] == "WIX_UPGRADE_DETECTED":
        row[attributes] = str(int(row[attributes]) | _VERSION_MAX_INCLUSIVE)
    return row


def _sequence(row: Row) -> Row:
    if row[0] == "RemoveExistingProducts":
        row[2] = str(_AFTER_INSTALL_INITIALIZE)
    elif row[0] == "StartServices":
        row[1] = f'{row[1]} AND START <> "0"'
    return row


def _secure(row: Row) -> Row:
    """START reaches the part of the installation that runs with the administrator's rights."""
    if row[0] == "SecureCustomProperties":
        row[1] += ";START"
    return row
