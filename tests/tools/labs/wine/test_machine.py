from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.house import CHECKOUT
from tools.labs.cache import LabError
from tools.labs.wine import disk
from tools.labs.wine.machine import Machine
from tools.labs.wine.running import Running, children, descendants

from .support import PYTHON, python

pytestmark = pytest.mark.services


def gone(pids: list[int]) -> bool:
    """Whether all of them have ended, or end within some seconds."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            subprocess.run(["tail", f"--pid={pid}", "--follow=name", "/dev/null"], timeout=20, check=False)
        except subprocess.TimeoutExpired:
            return False
        finally:
            os.close(descriptor)
    return True


def test_programs_run(new_disk: Path) -> None:
    with Machine(new_disk) as machine:
        assert machine.run(["cmd.exe", "/c", "cd"]).stdout.strip() == "C:\\"
        assert python(machine, "import sys; print(sys.getwindowsversion()[0], sys.version_info[:2])") == "10 (3, 13)\n"
        assert machine.run([PYTHON, "-c", "print(input())"], stdin="größer\n".encode().decode()).stdout
        done = machine.run([PYTHON, "-c", "import sys; print('told'); sys.exit(3)"], check=False)
        assert (done.returncode, done.stdout) == (3, "told\n")
        with pytest.raises(AssertionError, match=r"ended with 3: told"):
            machine.run([PYTHON, "-c", "import sys; print('told'); sys.exit(3)"])
        with pytest.raises(subprocess.TimeoutExpired):
            machine.run([PYTHON, "-c", "import time; time.sleep(60)"], timeout=0.5)


def test_a_program_that_crashes_ends(new_disk: Path) -> None:
    with Machine(new_disk) as machine:
        script = "import ctypes; ctypes.windll.ntdll.RtlRaiseStatus(0xC0000005)"
        assert machine.run([PYTHON, "-c", script], check=False, timeout=30).returncode != 0


def test_a_program_that_leaves_others_behind_is_over_with_itself(new_disk: Path) -> None:
    script = (
        "import subprocess, sys; "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'], close_fds=False); print('left')"
    )
    with Machine(new_disk) as machine:
        assert machine.run([PYTHON, "-c", script], timeout=30).stdout == "left\n"


def test_it_has_no_network_but_its_own(new_disk: Path) -> None:
    script = """
import socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error:
    print(error.winerror)
"""
    with Machine(new_disk) as machine:
        network_unreachable = 10051
        assert python(machine, script).strip() == str(network_unreachable)
        (line,) = Path(f"/proc/{machine.pids()[0]}/net/dev").read_text().splitlines()[2:]
        assert line.split(":")[0].strip() == "lo"


def test_files_are_found_by_the_name_that_windows_has_for_them(new_disk: Path) -> None:
    with Machine(new_disk) as machine:
        python(machine, "import os; os.makedirs(r'C:\\Some Where'); open(r'c:\\SOME where\\File.txt', 'w').write('x')")
        assert machine.path(r"c:\some where\FILE.TXT").read_text() == "x"
        assert not machine.path(r"C:\Some Where\missing").exists()


def test_what_is_written_outlives_a_shutdown(new_disk: Path) -> None:
    key = r"HKLM\SOFTWARE\xenward-test"
    with Machine(new_disk) as machine:
        machine.run(["reg.exe", "add", key, "/v", "name", "/d", "kept"])
        machine.shut_down()
        assert machine.ended
    with Machine(new_disk) as machine:
        assert "kept" in machine.run(["reg.exe", "query", key, "/v", "name"]).stdout


def test_nothing_is_left_of_it(new_disk: Path) -> None:
    machine = Machine(new_disk)
    pids = machine.pids()
    assert len(pids) > 5
    machine.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    machine.close()


def test_it_ends_when_its_owner_is_killed(new_disk: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tools.labs.wine.machine import Machine; "
        "machine = Machine(Path(sys.argv[1])); print('ready', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(new_disk)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        pids = descendants(owner.pid)[1:]
        assert len(pids) > 5
        owner.send_signal(signal.SIGKILL)
        assert gone(pids)


def test_a_machine_without_windows_does_not_boot(tmp_path: Path) -> None:
    (tmp_path / "drive_c").mkdir()
    (tmp_path / "system.reg").write_text("not a registry")
    with pytest.raises(LabError, match="does not boot"):
        Machine(tmp_path)


def test_one_that_runs_is_looked_at_from_elsewhere(new_disk: Path) -> None:
    with Machine(new_disk) as machine:
        other = Running(machine.disk, machine.pids()[0])
        assert other.run(["cmd.exe", "/c", "echo here"]).stdout == "here\n"
        assert other.service_state("XenwardAgent") == ""
        assert other.service_state("RpcSs") in {"RUNNING", "STOPPED"}
    assert children(2**22) == []


def test_disks_do_not_change_each_other(windows_disk: Path, new_disk: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in (disk.installed() / "drive_c/windows/system32").iterdir()}
    with Machine(new_disk) as machine:
        python(machine, "import os; os.remove(r'C:\\windows\\system32\\notepad.exe')")
        assert not machine.path(r"C:\windows\system32\notepad.exe").exists()
    assert (windows_disk / "drive_c/windows/system32/notepad.exe").exists()
    assert {path: path.lstat().st_mtime_ns for path in before} == before
