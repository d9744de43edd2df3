from __future__ import annotations

import os
import subprocess
import sys

import pytest

from agent_protocol.outcomes import Failed, Unknown, Unsupported
from guest_agent.system.windows.programs import MAX_OUTPUT, run


def python(code: str, timeout: float = 60, **environment: str) -> tuple[int, str]:
    ended = run([sys.executable, "-c", code], environment, timeout)
    return ended.exit_code, ended.output


def test_output() -> None:
    code = "import sys; print('one\\r\\n  two', flush=True); print('three', file=sys.stderr); sys.exit(3)"
    assert python(code) == (3, "one two three")
    assert len(python("print('x' * 100000)")[1]) == MAX_OUTPUT


def test_it_has_nothing_but_what_it_was_given() -> None:
    inner = "import os, sys; print(sorted(name for name in os.environ if name != 'LC_CTYPE'), repr(sys.stdin.read()))"
    outer = (
        "import sys; from guest_agent.system.windows.programs import run; print(run(sys.argv[1:], {'ONLY': ''}, 60))"
    )
    done = subprocess.run(
        [sys.executable, "-c", outer, sys.executable, "-c", inner],
        input="secret",
        env={**os.environ, "XENWARD_SECRET": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "['ONLY'] ''" in done.stdout.replace("\\", "")


def test_a_program_that_hangs() -> None:
    with pytest.raises(Unknown) as caught:
        python("import time; time.sleep(600)", timeout=0.2)
    assert caught.value.code == "program_timeout"


def test_programs_that_do_not_start(tmp_path: object) -> None:
    with pytest.raises(Unsupported) as missing:
        run([f"{tmp_path}/missing"], {}, 10)
    assert missing.value.code == "program_missing"
    with pytest.raises(Failed) as directory:
        run([f"{tmp_path}"], {}, 10)
    assert directory.value.code == "program_failed"
