"""The door into dom0, both of its ends here: commands, files, consoles and the store pass, and nobody else does."""

from __future__ import annotations

import base64
import os
import pty
import socket
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.labs.cache import LabError
from tools.labs.xen.control import Door
from tools.labs.xen.dom0 import control
from tools.labs.xen.proxy import StoreProxy

TOKEN = "a token"


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=control.serve, args=(connection, TOKEN), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def door(port: int) -> Iterator[Door]:
    it = Door(port, TOKEN)
    yield it
    it.close()


def test_a_program_runs_to_its_end(door: Door) -> None:
    done = door.run(["sh", "-c", "cat; echo $A >&2; exit 3"], stdin=b"\0in", timeout=10, environment={"A": "x"})
    assert (done.status, done.output, done.errors) == (3, b"\0in", b"x\n")


def test_a_program_that_takes_too_long_is_told(door: Door) -> None:
    with pytest.raises(LabError, match="TimeoutExpired"):
        door.run(["sleep", "1000"], timeout=0.1)
    assert door.run(["true"], timeout=10).status == 0


def test_a_program_that_is_missing_is_told(door: Door) -> None:
    with pytest.raises(LabError, match="FileNotFoundError"):
        door.run(["/no/such/program"], timeout=10)


def test_files_pass_in_both_directions(door: Door, tmp_path: Path) -> None:
    content = os.urandom(200_000)
    door.put(str(tmp_path / "file"), content, 0o640)
    assert (tmp_path / "file").read_bytes() == content
    assert door.get(str(tmp_path / "file")) == content
    with pytest.raises(LabError, match="FileNotFoundError"):
        door.get(str(tmp_path / "missing"))


@pytest.mark.parametrize("data", [[], [0], [1 << 20], [0, 5 << 20, 6 << 20]])
def test_a_copy_has_the_holes_of_the_original(door: Door, tmp_path: Path, data: list[int]) -> None:
    size = 8 << 20
    with (tmp_path / "from").open("wb") as file:
        file.truncate(size)
        for offset in data:
            file.seek(offset)
            file.write(b"data" * 2000)
    door.copy(str(tmp_path / "from"), str(tmp_path / "to"))
    assert (tmp_path / "to").read_bytes() == (tmp_path / "from").read_bytes()
    assert (tmp_path / "to").stat().st_blocks <= (tmp_path / "from").stat().st_blocks


def test_a_guest_answers_on_its_console(door: Door) -> None:
    guest, terminal = pty.openpty()
    tty.setraw(guest)

    def serve() -> None:
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(guest, 100)
        number, command = line.split()
        said = base64.b64encode(b"ran " + base64.b64decode(command) + b"\nstatus 4\n")
        os.write(guest, b"[  1.0] a kernel speaks\r\n#ran " + number + b" " + said + b"#\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    assert door.console(os.ttyname(terminal), "a command", 10) == (4, "ran a command\n")
    thread.join()
    with pytest.raises(LabError, match="console does not answer"):
        door.console(os.ttyname(terminal), "another", 0.1)
    for descriptor in (guest, terminal):
        os.close(descriptor)


def test_nobody_passes_without_the_token(port: int) -> None:
    with pytest.raises(LabError, match="does not answer"):
        Door(port, "another").run(["true"], timeout=10)
    with pytest.raises(OSError, match="ended early"):
        Door(port, "").open("xenstore")


def test_a_machine_that_is_gone_is_told() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(LabError, match="does not answer"):
            Door(probe.getsockname()[1], TOKEN).run(["true"], timeout=10)


def test_the_store_is_reached_through_a_socket(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "XENSTORE", str(tmp_path / "daemon"))
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(tmp_path / "daemon"))
        daemon.listen()
        proxy = StoreProxy(tmp_path / "near", door)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "near"))
            client.sendall(b"packet")
            served, _ = daemon.accept()
            with served:
                assert served.recv(100) == b"packet"
                served.sendall(b"answer")
                assert client.recv(100) == b"answer"
            # The daemon closed, so the client's connection ends too.
            assert client.recv(100) == b""
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(tmp_path / "near"))
            waiting.sendall(b"packet")
            daemon.accept()[0].close()
            proxy.stop()
        assert not (tmp_path / "near").exists()
