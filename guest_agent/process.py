"""The one function through which the agent runs other programs.

Whatever is secret travels on standard input: a program's arguments can be read by every user of the guest.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agent_protocol.outcomes import Failed, Unknown, Unsupported

_MAX_OUTPUT = 500
"""Characters of a program's output that are kept: it ends in a reply, which holds 2000 bytes."""

_MAX_READ = 65536
"""Bytes of it that are searched for secrets."""


@dataclass(frozen=True)
class Completed:
    """How a program ended: its exit code, and standard output and error together, redacted and trimmed."""

    exit_code: int
    output: str


def run(
    arguments: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout: float,
    secrets: Collection[str] = (),
    allowed_exit_codes: Collection[int] = (0,),
) -> Completed:
    """Run a program found on PATH to its end, with messages in English, and without a shell.

    arguments: the program and its arguments. ValueError when one holds a secret.
    stdin: what it reads; the place for secrets.
    timeout: seconds after which it is killed.
    secrets: texts that are replaced wherever the program repeats them.
    allowed_exit_codes: the exit codes that are no error to the caller.

    Unsupported (`program_missing`) when the guest does not have the program; Failed (`program_failed`) for another
    exit code; Unknown (`program_timeout`) when it was killed, because it may have done its work.
    """
    if any(secret in argument for secret in secrets for argument in arguments if secret):
        raise ValueError("a secret stands in the arguments of " + arguments[0])
    # A file rather than a pipe: what the program leaves running may hold the other end of a pipe for ever.
    output = os.memfd_create("output")
    try:
        ended = subprocess.run(
            list(arguments),
            input=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
        printed = os.pread(output, _MAX_READ, 0).decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        raise Unknown("program_timeout", f"{arguments[0]} was ended after {timeout:g} s") from None
    except FileNotFoundError:
        raise Unsupported("program_missing", f"this guest has no {arguments[0]}") from None
    except OSError as error:
        raise Failed("program_failed", f"{arguments[0]} cannot be run: {error.strerror}") from None
    finally:
        os.close(output)
    completed = Completed(ended.returncode, _redact(printed, secrets)[:_MAX_OUTPUT])
    if completed.exit_code not in allowed_exit_codes:
        raise Failed("program_failed", f"{arguments[0]} ended with {completed.exit_code}: {completed.output}")
    return completed


def _redact(text: str, secrets: Collection[str]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return text.strip()
