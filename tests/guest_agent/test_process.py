from __future__ import annotations

import os
import signal
import sys

import pytest

from agent_protocol.outcomes import Failed, Unknown, Unsupported
from guest_agent import process


def python(code: str, **options: object) -> process.Completed:
    return process.run([sys.executable, "-c", code], **{"timeout": 20.0, **options})  # type: ignore[arg-type]


def test_stdin_and_output() -> None:
    ended = python("import sys; print(sys.stdin.read().upper()); print('error', file=sys.stderr)", stdin=b"text")
    assert (ended.exit_code, sorted(ended.output.split())) == (0, ["TEXT", "error"])


def test_secrets_are_redacted() -> None:
    assert python("print(input())", stdin=b"say s3cret twice: s3cret", secrets=["s3cret"]).output == (
        "say *** twice: ***"
    )


def test_secrets_in_arguments_are_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="a secret stands in the arguments") as caught:
        process.run(["true", "--password=s3cret"], timeout=1.0, secrets=["s3cret"])
    assert "s3cret" not in str(caught.value)


def test_exit_codes() -> None:
    with pytest.raises(Failed, match="ended with 3: why") as caught:
        python("import sys; print('why'); sys.exit(3)")
    assert caught.value.code == "program_failed"
    assert python("import sys; sys.exit(3)", allowed_exit_codes=(0, 3)).exit_code == 3


def test_missing_program() -> None:
    with pytest.raises(Unsupported, match="no-such-program"):
        process.run(["no-such-program"], timeout=1.0)


def test_timeout_is_unknown() -> None:
    with pytest.raises(Unknown) as caught:
        python("import time; time.sleep(60)", timeout=0.2)
    assert caught.value.code == "program_timeout"


def test_output_is_cut() -> None:
    assert len(python("print('x' * 10000)").output) == 500


def test_messages_are_in_english() -> None:
    assert python("import os; print(os.environ['LC_ALL'])").output == "C"


def test_what_a_program_leaves_running_is_not_waited_for() -> None:
    ended = process.run(["sh", "-c", "sleep 1000 & echo $!"], timeout=20.0)
    os.kill(int(ended.output), signal.SIGKILL)
