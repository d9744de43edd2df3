"""Putting an update onto the disk: unpacked, compiled, tried, and only then named as the version to start.

At any moment the launcher finds a complete version, because each step takes effect at once and lasts before the next
begins: all files lie in `<version>.unfinished` until they have been tried, one rename makes that `<version>`, and one
write of the state file has it started.
"""

from __future__ import annotations

import contextlib
import os
import py_compile
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from agent_protocol.outcomes import Failed, Refused, Unknown

from .. import process
from ..launch import (
    STATE_FILE,
    TRYING,
    State,
    Unusable,
    check_directory,
    clear,
    code_version,
    parse_version,
    read_state,
    sync_directory,
    write_state,
)
from ..system.paths import failures
from .artefact import Artefact, unfit
from .running import Launch

REHEARSAL_SECONDS = 15.0
"""How long new code may take to be tried; it takes half a second."""

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600


def prepare(updates: str) -> None:
    """Make the directory of updates if it is missing, the superuser's alone.

    Refused (`unsafe_directory`) when others could change or swap it; Failed with the system's errno name.
    """
    directory = Path(updates)
    with failures(updates):
        try:
            missing = [path for path in (directory.parent, directory) if not path.is_dir()]
            for path in missing:
                path.mkdir(_DIRECTORY_MODE)
                sync_directory(str(path.parent))
            check_directory(updates)
        except Unusable as error:
            raise Refused("unsafe_directory", f"updates cannot be kept safely: {error}") from None


def check_requirements(artefact: Artefact, running: str) -> None:
    """Refused with `python_too_old` or `agent_too_old` when this guest or the running agent does not suffice for it."""
    if sys.version_info < (3, artefact.python):
        raise Refused("python_too_old", f"the update needs Python 3.{artefact.python}")
    if (parse_version(running) or ()) < artefact.minimum:
        minimum = ".".join(str(number) for number in artefact.minimum)
        raise Refused("agent_too_old", f"the update can be installed from version {minimum} on, this is {running}")


def install(launch: Launch, artefact: Artefact, root: str) -> None:
    """Install an artefact, so that the next start of the agent tries it. prepare() comes first.

    root: the guest's root directory, whose configuration the new code must understand. Refused (`bad_artefact`) when
    it does not compile or is of another version than it says; Failed with `update_rehearsal_failed` and why, or with
    the system's errno name: then the agent that runs stays the one that is started. Unknown (`update_state_unknown`)
    when the last step failed halfway.
    """
    updates = launch.updates
    with failures(updates):
        clear(updates, _needed(launch))
        with _unfinished(f"{updates}/{artefact.version}.unfinished") as directory:
            _unpack(artefact, directory)
            if code_version(directory) != artefact.version:
                raise unfit("its code is of another version than its manifest")
            _rehearse(directory, root)
            _take_its_place(directory, f"{updates}/{artefact.version}")
        sync_directory(updates)
        _switch(launch, State(artefact.version, TRYING, previous=launch.version))


def _needed(launch: Launch) -> list[str | None]:
    """The names in the directory of updates that the launcher may need if nothing more happens."""
    try:
        state = read_state(launch.updates)
    except (Unusable, OSError):
        return [launch.version]
    return [launch.version] if state is None else [launch.version, STATE_FILE, state.version, state.previous]


@contextlib.contextmanager
def _unfinished(path: str) -> Iterator[str]:
    Path(path).mkdir(_DIRECTORY_MODE)
    try:
        yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _unpack(artefact: Artefact, directory: str) -> None:
    top = Path(directory)
    for name, content in sorted(artefact.files.items()):
        path = top / name
        path.parent.mkdir(_DIRECTORY_MODE, parents=True, exist_ok=True)
        _write(path, content)
        try:
            py_compile.compile(str(path), doraise=True)
        except py_compile.PyCompileError:
            raise unfit(f"{name} is no Python that this guest's can compile") from None
    for folder, _, files in os.walk(directory):
        for file in files:
            _sync(Path(folder, file))
        Path(folder).chmod(_DIRECTORY_MODE)  # parents are made by the umask alone
        sync_directory(folder)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    with open(descriptor, "wb") as file:  # noqa: PTH123
        file.write(content)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _take_its_place(directory: str, place: str) -> None:
    # Of an earlier attempt with the same version. It does not run, and the launcher does without it.
    if Path(place).is_dir():
        shutil.rmtree(place)
    Path(directory).rename(place)


def _rehearse(directory: str, root: str) -> None:
    try:
        ended = process.run(
            [sys.executable, "-I", "-B", f"{directory}/guest_agent/launch.py", "--rehearse", root],
            timeout=REHEARSAL_SECONDS,
            allowed_exit_codes=range(-signal.NSIG, 256),
        )
    except Unknown:
        raise _rehearsal_failed(f"it took more than {REHEARSAL_SECONDS:g} s") from None
    if ended.exit_code != 0:
        lines = ended.output.splitlines() or ["it said nothing"]
        raise _rehearsal_failed(f"it ended with {ended.exit_code}: {lines[-1]}")


def _rehearsal_failed(reason: str) -> Failed:
    return Failed("update_rehearsal_failed", f"the update was tried and is not installed: {reason}")


def _switch(launch: Launch, state: State) -> None:
    try:
        write_state(launch.updates, state)
    except OSError:
        with contextlib.suppress(Unusable, OSError):
            if read_state(launch.updates) == state:
                raise Unknown("update_state_unknown", _HALFWAY) from None
        raise


_HALFWAY = "the update is installed, but it cannot be told whether it lasts until the agent's next start"
