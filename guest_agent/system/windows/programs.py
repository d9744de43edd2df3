"""The one function through which programs of Windows are run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

from agent_protocol.outcomes import Failed, Unknown, Unsupported

from .api import Ended

MAX_OUTPUT = 500
"""Characters of a program's output that are kept: it ends in a reply, which holds 2000 bytes."""

_MAX_READ = 65536
"""Bytes of it that are looked at."""

_ENCODING = "oem" if sys.platform == "win32" else "utf-8"
"""What programs of the console write in: the system's OEM code page."""


def run(arguments: Sequence[str], environment: Mapping[str, str], timeout: float) -> Ended:
    """Run a program to its end, without a shell, a window or anything to read.

    arguments: the program's absolute path and its arguments; nothing secret, every user of the guest can read them.
    environment: all of it, nothing of the agent's own is handed on. timeout: seconds after which it is killed.

    Unsupported (`program_missing`); Failed (`program_failed`) when it cannot be started; Unknown (`program_timeout`)
    when it was killed, because it may have done its work.
    """
    with tempfile.TemporaryFile() as output:
        try:
            # A file rather than a pipe: what the program leaves running may hold the other end of a pipe for ever.
            ended = subprocess.run(
                list(arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                env=dict(environment),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unknown("program_timeout", f"{arguments[0]} was ended after {timeout:g} s") from None
        except FileNotFoundError:
            raise Unsupported("program_missing", f"this guest has no {arguments[0]}") from None
        except OSError as error:
            raise Failed("program_failed", f"{arguments[0]} cannot be run: {error.strerror}") from None
        output.seek(0)
        printed = output.read(_MAX_READ).decode(_ENCODING, "replace")
    return Ended(ended.returncode, " ".join(printed.split())[:MAX_OUTPUT])
