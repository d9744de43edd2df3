"""The entry of an installed agent: it chooses which agent runs, the packaged one or an update, and undoes a bad update.

    python3 -I …/guest_agent/launch.py [--updates DIR] [OPTION …]

It is run by its path, as the packaged `xenward-agent` does, so that nothing of the agent is loaded before the choice.
It needs the standard library alone. Whatever it finds in the directory of updates, some agent is started: the packaged
one when there is doubt. Code from that directory is run only when none but the superuser and the agent's own user could
have put it there. Its signature was checked before it came there; it is not checked again.

How an update comes to stay:

1. The agent that installs it writes `trying` into the state file, and starts again.
2. Each start in that state is counted on disk, before any of the new code runs.
3. The new agent writes `proven` when it serves (update/running.py). Until then a timer of the kernel runs, which
   ends the process after TRIAL_SECONDS whatever that is doing.
4. After MAX_ATTEMPTS starts that did not come to step 3 the state is `rolled_back`, and the version before runs.

Why an attempt failed is not asked: an update that cannot be told from a broken one is not kept. Going back is always
safe, and the host can send the update again. Two power failures right after an update, or a store that is away for
four minutes, count like two crashes.

The packaged version wins, and the update is removed, once it is the same or newer.

An older launcher starts newer agents. So the state file, and what _run() uses of the agent it starts, only ever grow.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

UPDATES = "/var/lib/xenward/update"
"""Where updates are, one directory for each version; beside them the state file. `--updates` names another place.

It is the place of the machine that the agent runs on, not of the root directory that it serves: an image must not bring
code along that is run by whoever serves it.
"""

STATE_FILE = "state.json"

TRYING, PROVEN, ROLLED_BACK = "trying", "proven", "rolled_back"

MAX_ATTEMPTS = 2
"""Starts that an update has to come to serve. Not one: a guest may be switched off in its first second."""

TRIAL_SECONDS = 120
"""How long an update may take until it serves. Agents take one second; a guest that boots may keep one busy longer."""

_MAX_STATE = 4096

_VERSION = re.compile(r"(0|[1-9][0-9]{0,5})(\.(0|[1-9][0-9]{0,5})){2}", re.ASCII)
_CODE_VERSION = re.compile(r'^VERSION = "([^"\n]{1,32})"$', re.MULTILINE)


class Unusable(Exception):
    """Raised when something in the directory of updates cannot be used; the text says what and why."""


@dataclass(frozen=True)
class State:
    """What the state file says of the newest update.

    state: TRYING, PROVEN or ROLLED_BACK. attempts: starts in the state TRYING. previous: the update that ran when this
    one was installed, None for the packaged agent. reason: why it was rolled back, one sentence.
    """

    version: str
    state: str
    attempts: int = 0
    previous: str | None = None
    reason: str = ""


class Choice(NamedTuple):
    """directory: holds the packages agent_protocol and guest_agent. version: of an update, None for the packaged."""

    directory: str
    version: str | None = None
    trying: bool = False


def parse_version(untrusted: object) -> tuple[int, ...] | None:
    """The three numbers of a version, which compare as versions do; None unless it is text of the form 1.20.3."""
    if not isinstance(untrusted, str) or not _VERSION.fullmatch(untrusted):
        return None
    return tuple(int(number) for number in untrusted.split("."))


def code_version(directory: str) -> str | None:
    """The version of the agent whose packages are in `directory`, without running it; None when that cannot be told."""
    try:
        with open(os.path.join(directory, "guest_agent", "__init__.py"), encoding="utf-8") as source:  # noqa: PTH118, PTH123
            found = _CODE_VERSION.search(source.read(_MAX_STATE))
    except (OSError, ValueError):
        return None
    return found.group(1) if found and parse_version(found.group(1)) else None


def check_directory(path: str) -> None:
    """Unusable unless `path` is a directory that only the superuser and the agent's user can change, or swap.

    The same goes for all directories above it; there, a directory like /tmp may be, whose sticky bit keeps others from
    moving what is not theirs. Symbolic links are refused. FileNotFoundError when it is not there.
    """
    parts = os.path.abspath(path).split("/")  # noqa: PTH100
    for length in range(1, len(parts) + 1):
        above = "/".join(parts[:length]) or "/"
        found = os.lstat(above)
        if not stat.S_ISDIR(found.st_mode):
            raise Unusable(f"{above} is not a directory")
        if found.st_uid not in (0, os.geteuid()):
            raise Unusable(f"{above} belongs to another user")
        sticky = length < len(parts) and found.st_mode & stat.S_ISVTX
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
            raise Unusable(f"others can write into {above}")


def read_state(updates: str) -> State | None:
    """The state in the directory of updates, None when there is none. Unusable when it is none; OSErrors as they come.

    check_directory comes first.
    """
    try:
        # Anything may be in its place: follow nothing, and wait for nobody.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(f"{updates}/{STATE_FILE}", flags)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unusable(f"{STATE_FILE} is not a regular file")
        content = file.read(_MAX_STATE + 1)
    return _parse_state(content)


def _parse_state(content: bytes) -> State:
    try:
        members = json.loads(content.decode("utf-8")) if len(content) <= _MAX_STATE else None
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise Unusable(f"{STATE_FILE} is not a JSON object of at most {_MAX_STATE} bytes")
    version, state, attempts = members.get("version"), members.get("state"), members.get("attempts")
    previous, reason = members.get("previous"), members.get("reason", "")
    if (
        not isinstance(version, str)
        or parse_version(version) is None
        or state not in (TRYING, PROVEN, ROLLED_BACK)
        or type(attempts) is not int
        or attempts < 0
        or not (previous is None or parse_version(previous))
        or not isinstance(reason, str)
    ):
        raise Unusable(f"{STATE_FILE} has members that it cannot have")
    return State(version, state, attempts, previous, reason)


def write_state(updates: str, state: State) -> None:
    """Replace the state file. After a power failure it is the old one or the new one. OSErrors as they come."""
    temporary = f"{updates}/{STATE_FILE}.unfinished"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o600), "wb") as file:  # noqa: PTH123
        file.write(json.dumps(asdict(state)).encode("ascii"))
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, f"{updates}/{STATE_FILE}")  # noqa: PTH104
    sync_directory(updates)


def sync_directory(path: str) -> None:
    """Make the names in a directory last. OSErrors as they come."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear(updates: str, keep: Sequence[str | None] = ()) -> None:
    """Remove what is in the directory of updates, but for the names to keep. The state file goes first, if it goes.

    OSErrors as they come.
    """
    import shutil  # only here, because it takes as long to load as all else together

    for name in sorted(os.listdir(updates), key=lambda name: (name != STATE_FILE, name)):  # noqa: PTH208
        if name in keep:
            continue
        path = f"{updates}/{name}"
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)  # noqa: PTH108
        sync_directory(updates)


def choose(updates: str, packaged: str) -> Choice:
    """Which agent to start. For one that is on trial the attempt is counted, durably, before this returns.

    updates: the directory of updates. packaged: the directory with the packages that are started when in doubt.
    """
    try:
        check_directory(updates)
        state = read_state(updates)
    except FileNotFoundError:
        state = None
    except (Unusable, OSError) as error:
        _say(f"updates are not looked at: {error}")
        state = None
    if state is None:
        return Choice(packaged)
    installed = parse_version(code_version(packaged)) or ()
    if (parse_version(state.version) or ()) <= installed:
        _say(f"the update to {state.version} is removed, because the installed package is not older")
        try:
            clear(updates)
        except OSError as error:
            _say(f"it cannot be removed: {error}")
        return Choice(packaged)
    if state.state == TRYING:
        state = _begin_attempt(updates, state)
    for version in (None if state.state == ROLLED_BACK else state.version, state.previous):
        if version is not None and (parse_version(version) or ()) > installed:
            try:
                return Choice(_usable(updates, version), version, state.state == TRYING)
            except Unusable as error:
                _say(f"the update to {version} is passed over: {error}")
    return Choice(packaged)


def _begin_attempt(updates: str, state: State) -> State:
    """Count one more start of an update, or roll it back: what comes back is the new state, also if it isn't kept."""
    attempts = state.attempts + 1
    reason = ""
    if state.attempts >= MAX_ATTEMPTS:
        reason = f"it was started {state.attempts} times and did not come to serve"
    try:
        _usable(updates, state.version)
    except Unusable as error:
        reason = str(error)
    begun = replace(state, attempts=attempts)
    if reason:
        begun = replace(state, state=ROLLED_BACK, reason=reason[:500])
        _say(f"the update to {state.version} is rolled back: {reason}")
    try:
        write_state(updates, begun)
    except OSError as error:
        # An attempt that is not counted could be repeated for ever.
        _say(f"the update to {state.version} is not started, because that cannot be noted: {error}")
        return replace(state, state=ROLLED_BACK)
    return begun


def _usable(updates: str, version: str) -> str:
    """The directory of an update that is there, in whole."""
    directory = f"{updates}/{version}"
    try:
        check_directory(directory)
    except OSError as error:
        raise Unusable(f"{directory}: {error.strerror}") from None
    if code_version(directory) != version:
        raise Unusable(f"{directory} does not hold that version")
    return directory


def main(arguments: Sequence[str]) -> int:
    """Start an agent and return its exit status. arguments: as on the command line above, without the program."""
    packaged = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    if len(arguments) == 2 and arguments[0] == "--rehearse":
        return _rehearse(packaged, arguments[1])
    updates, options = UPDATES, arguments
    if len(arguments) >= 2 and arguments[0] == "--updates":
        updates, options = os.path.abspath(arguments[1]), arguments[2:]  # noqa: PTH100
    try:
        choice = choose(updates, packaged)
    except Exception as error:
        # Whatever is wrong with the updates, it must not cost the guest its agent.
        _say(f"updates are not looked at: {type(error).__name__}: {error}")
        choice = Choice(packaged)
    return _run(choice, updates, (sys.executable, "-I", os.path.abspath(__file__), *arguments), options)  # noqa: PTH100


def _run(choice: Choice, updates: str, command: tuple[str, ...], options: Sequence[str]) -> int:
    # The timer's signal ends the process inside the kernel: not even code that hangs outside of Python escapes it.
    # It survives an exec, so it is put back in any case.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(TRIAL_SECONDS if choice.trying else 0)
    sys.path.insert(0, choice.directory)
    from guest_agent import __main__ as program
    from guest_agent.update.running import PROCESS

    PROCESS.launched(command, updates, choice.version)
    return program.main(options)


def _rehearse(directory: str, root: str) -> int:
    """Try the agent that this file belongs to, without any store; see update/rehearsal.py. Tells why in one line."""
    sys.path.insert(0, directory)
    try:
        from guest_agent.update.rehearsal import rehearse

        rehearse(root)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}".replace("\n", " ")[:400])
        return 1
    return 0


def _say(text: str) -> None:
    print(f"xenward-agent: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
