"""Storage repositories that have no room, or do not answer."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from .. import power
from ..database import Database
from ..errors import ApiError

UNAVAILABLE = ("SR_BACKEND_FAILURE_47", "", "The SR is not available [opterr=the medium does not answer]", "")
"""What the storage manager says of a repository that it cannot reach (SRUnavailable in XE_SR_ERRORCODES.xml)."""

_BOOTING = {
    "VM.start": "start",
    "VM.start_on": "start_on",
    "VM.resume": "resume",
    "VM.resume_on": "resume_on",
    "VM.clean_reboot": "clean_reboot",
    "VM.hard_reboot": "hard_reboot",
}
"""The calls that attach all disks of a VM, and the operation that it must allow."""


class BrokenRepositories:
    """Which storage repositories do not answer. Every method may be called by any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._guard = threading.Lock()
        self._broken: dict[str, ApiError] = {}

    def set(self, sr: str, error: ApiError | None) -> None:
        """Let what needs a repository fail with an error, or no longer."""
        with self._guard:
            if error is None:
                self._broken.pop(sr, None)
            else:
                self._broken[sr] = error

    def check(self, sr: str) -> None:
        """ApiError when the repository does not answer."""
        with self._guard:
            error = self._broken.get(sr)
        if error is not None:
            raise ApiError(*error.description)

    def check_call(self, name: str, arguments: Mapping[str, Any]) -> None:
        """ApiError when a call would attach what is in a repository that does not answer, or the repository itself.

        What the call itself would refuse is left to it.
        """
        if self._broken:
            for sr in list(self._needed(name, arguments)):
                self.check(sr)

    def _needed(self, name: str, arguments: Mapping[str, Any]) -> Iterator[str]:
        database = self._database
        with contextlib.suppress(ApiError):
            if name == "PBD.plug":
                if not database.get("PBD", arguments["self"], "currently_attached"):
                    yield database.get("PBD", arguments["self"], "SR")
            elif name == "VBD.plug":
                power.assert_pluggable(database, "VBD", arguments["self"], attached=False)
                yield from self._of_vbds([arguments["self"]])
            elif name in _BOOTING:
                record = power.assert_allowed(database, arguments["vm"], _BOOTING[name])
                yield from self._of_vbds(record["VBDs"])

    def _of_vbds(self, vbds: list[str]) -> Iterator[str]:
        for vbd in vbds:
            vdi = self._database.get("VBD", vbd, "VDI")
            if self._database.exists("VDI", vdi):
                yield self._database.get("VDI", vdi, "SR")
