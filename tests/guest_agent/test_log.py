"""The log never keeps the agent waiting, and never ends it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .conftest import DEADLINE, REPOSITORY, Host

REQUESTS_LOGGED = 60
"""More than the smallest pipe holds lines of."""


@contextmanager
def logging_to(host: Host, root: Path, stderr: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """An agent that logs to that descriptor, or to one that is closed."""
    options = ["-m", "guest_agent", "--root", str(root), "--store", f"unix:{host.guest_socket}"]
    command = [sys.executable, *options]
    if stderr is None:
        command = ["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *command]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=stderr)
    try:
        host.wait_for_agent()
        yield process
        process.terminate()
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.wait(DEADLINE)


def test_nobody_reads(host: Host, root: Path) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)  # type: ignore[attr-defined, unused-ignore]
    with logging_to(host, root, writer):
        for _ in range(REQUESTS_LOGGED):
            assert host.ask("version")["returncode"] == "0"
        assert 0 < len(os.read(reader, 65536)) <= 4096
        request_id = host.send("version")
        host.reply(request_id)
        assert request_id in os.read(reader, 65536).decode()
    os.close(writer)
    os.close(reader)


def test_the_reader_is_gone(host: Host, root: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with logging_to(host, root, writer):
        for _ in range(3):
            assert host.ask("version")["returncode"] == "0"
    os.close(writer)


def test_nothing_is_open(host: Host, root: Path) -> None:
    with logging_to(host, root, None) as process:
        assert host.ask("version")["returncode"] == "0"
        open_files = {number: str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in range(3)}
        assert set(open_files.values()) == {os.devnull}


def test_a_line_that_is_too_long_is_cut(tmp_path: Path, root: Path) -> None:
    code = (
        "from guest_agent import log; import logging; log.set_up(); logging.info('x' * 9000); logging.info('%d', 'y')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=True)
    assert len(done.stderr) == 4096
    assert done.stderr.endswith(b"x\n")
