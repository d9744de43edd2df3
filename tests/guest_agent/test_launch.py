"""The choice between the packaged agent and an update, and the way back; as a function, and as the process it is."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_protocol.identity import Identity
from agent_protocol.messages import ADVERT
from guest_agent.launch import (
    MAX_ATTEMPTS,
    PROVEN,
    ROLLED_BACK,
    STATE_FILE,
    TRYING,
    Choice,
    State,
    Unusable,
    check_directory,
    choose,
    clear,
    code_version,
    parse_version,
    read_state,
    write_state,
)
from tools.packages.update import build

from .conftest import DEADLINE, REPOSITORY, VM, Host, names
from .sealing import SealedHost
from .update.agents import CRASHES, GIVES_UP, HANGS, SERVES, put, signed, small_agent
from .update.test_installation import SPOILED

KEY = Identity.from_private_bytes(b"\1" * 32)


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    """A packaged agent, 1.0.0, which serves."""
    put(tmp_path / "packaged", small_agent("1.0.0"))
    return tmp_path / "packaged"


def chosen(updates: Path, packaged: Path) -> str | None:
    choice = choose(str(updates), str(packaged))
    directory = packaged if choice.version is None else updates / choice.version
    assert choice.directory == str(directory)
    return choice.version


def state(updates: Path) -> State:
    found = read_state(str(updates))
    assert found is not None
    return found


class TestChoice:
    def test_nothing_there(self, updates: Path, packaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert choose(str(updates), str(packaged)) == Choice(str(packaged))
        updates.rmdir()
        assert choose(str(updates), str(packaged)) == Choice(str(packaged))
        assert capsys.readouterr().err == ""

    def test_a_proven_update(self, updates: Path, packaged: Path) -> None:
        put(updates / "1.2.0", small_agent("1.2.0"))
        write_state(str(updates), State("1.2.0", PROVEN))
        before = (updates / STATE_FILE).stat().st_mtime_ns
        assert choose(str(updates), str(packaged)) == Choice(str(updates / "1.2.0"), "1.2.0", False)
        assert (updates / STATE_FILE).stat().st_mtime_ns == before

    def test_attempts_are_counted_and_end(self, updates: Path, packaged: Path) -> None:
        put(updates / "1.2.0", small_agent("1.2.0"))
        write_state(str(updates), State("1.2.0", TRYING))
        for attempt in range(1, MAX_ATTEMPTS + 1):
            assert choose(str(updates), str(packaged)) == Choice(str(updates / "1.2.0"), "1.2.0", True)
            assert state(updates) == State("1.2.0", TRYING, attempt)
        for _ in range(2):
            assert chosen(updates, packaged) is None
            reason = "it was started 2 times and did not come to serve"
            assert state(updates) == State("1.2.0", ROLLED_BACK, MAX_ATTEMPTS, None, reason)

    def test_the_way_back_is_to_what_ran_before(self, updates: Path, packaged: Path) -> None:
        for version in ("1.2.0", "1.3.0"):
            put(updates / version, small_agent(version))
        write_state(str(updates), State("1.3.0", TRYING, MAX_ATTEMPTS, "1.2.0"))
        assert choose(str(updates), str(packaged)) == Choice(str(updates / "1.2.0"), "1.2.0", False)
        assert state(updates).state == ROLLED_BACK
        # And from there to the packaged one, if need be.
        shutil.rmtree(updates / "1.2.0")
        assert chosen(updates, packaged) is None

    def test_an_attempt_that_cannot_be_counted_is_none(
        self, updates: Path, packaged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        put(updates / "1.2.0", small_agent("1.2.0"))
        write_state(str(updates), State("1.2.0", TRYING))

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            assert chosen(updates, packaged) is None
        assert "cannot be noted" in capsys.readouterr().err
        assert chosen(updates, packaged) == "1.2.0"

    @pytest.mark.parametrize("version", ["1.2.0", "1.2.1", "1.10.0", "2.0.0"])
    def test_the_package_wins_when_it_is_not_older(self, updates: Path, tmp_path: Path, version: str) -> None:
        put(tmp_path / "new", small_agent(version))
        put(updates / "1.2.0", small_agent("1.2.0"))
        write_state(str(updates), State("1.2.0", PROVEN))
        assert chosen(updates, tmp_path / "new") is None
        assert names(updates) == []

    def test_versions_are_numbers(self, updates: Path, tmp_path: Path) -> None:
        put(tmp_path / "old", small_agent("1.9.0"))
        put(updates / "1.10.0", small_agent("1.10.0"))
        write_state(str(updates), State("1.10.0", PROVEN))
        assert chosen(updates, tmp_path / "old") == "1.10.0"

    def test_a_previous_update_that_the_package_has_overtaken(self, updates: Path, tmp_path: Path) -> None:
        put(tmp_path / "new", small_agent("1.2.5"))
        put(updates / "1.2.0", small_agent("1.2.0"))
        write_state(str(updates), State("1.3.0", ROLLED_BACK, 2, "1.2.0", "it crashed"))
        assert chosen(updates, tmp_path / "new") is None

    @pytest.mark.parametrize("what", ["missing", "of another version", "a file", "a link", "open to others"])
    def test_an_update_that_cannot_be_used(self, updates: Path, packaged: Path, what: str) -> None:
        put(updates / "1.2.0", small_agent("1.2.9" if what == "of another version" else "1.2.0"))
        if what in ("missing", "a file", "a link"):
            (updates / "1.2.0").rename(updates / "elsewhere")
        if what == "a file":
            (updates / "1.2.0").write_text("")
        if what == "a link":
            (updates / "1.2.0").symlink_to("elsewhere")
        if what == "open to others":
            (updates / "1.2.0").chmod(0o757)
        write_state(str(updates), State("1.2.0", TRYING))
        assert chosen(updates, packaged) is None
        assert state(updates).state == ROLLED_BACK
        assert "1.2.0" in state(updates).reason
        write_state(str(updates), State("1.2.0", PROVEN))
        assert chosen(updates, packaged) is None

    @pytest.mark.parametrize("spoil", SPOILED)
    def test_a_directory_that_others_can_change(
        self, updates: Path, packaged: Path, spoil: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        put(updates / "1.2.0", small_agent("1.2.0"))
        updates.chmod(0o700)
        write_state(str(updates), State("1.2.0", PROVEN))
        assert chosen(updates, packaged) == "1.2.0"
        spoil(updates)
        assert chosen(updates, packaged) is None
        assert "updates are not looked at" in capsys.readouterr().err


VALID = {"version": "1.2.0", "state": "proven", "attempts": 0, "previous": None, "reason": ""}
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=9), st.lists(st.integers()))


class TestStateFile:
    def test_what_is_written_is_read(self, updates: Path) -> None:
        for written in (State("1.2.0", TRYING), State("10.0.1", ROLLED_BACK, 2, "1.2.0", "ü"), State("1.2.0", PROVEN)):
            write_state(str(updates), written)
            assert read_state(str(updates)) == written
        assert names(updates) == [STATE_FILE]
        assert (updates / STATE_FILE).stat().st_mode & 0o777 == 0o600

    @settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(
        st.one_of(
            st.binary(max_size=100),
            st.fixed_dictionaries({}, optional=dict.fromkeys(VALID, VALUES)).map(
                lambda members: json.dumps({**VALID, **members}).encode()
            ),
            st.sampled_from(sorted(VALID)).map(
                lambda name: json.dumps({other: value for other, value in VALID.items() if other != name}).encode()
            ),
            st.sampled_from([b"[" * 4000, b'{"version":"../../tmp","state":"proven","attempts":0}', b" " * 5000]),
        )
    )
    def test_whatever_stands_there_an_agent_is_chosen(self, updates: Path, packaged: Path, content: bytes) -> None:
        put(updates / "1.2.0", small_agent("1.2.0"))
        updates.chmod(0o700)
        (updates / STATE_FILE).write_bytes(content)
        choice = choose(str(updates), str(packaged))
        assert choice.directory in (str(packaged), str(updates / "1.2.0"))

    @pytest.mark.parametrize("kind", ["fifo", "directory", "link", "loop"])
    def test_no_file_at_all(self, updates: Path, packaged: Path, kind: str, tmp_path: Path) -> None:
        path = updates / STATE_FILE
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        else:
            target = tmp_path / "state"
            target.write_text(json.dumps(VALID))
            path.symlink_to(path if kind == "loop" else target)
        put(updates / "1.2.0", small_agent("1.2.0"))
        updates.chmod(0o700)
        assert chosen(updates, packaged) is None

    def test_clearing_follows_nothing(self, updates: Path, tmp_path: Path) -> None:
        (tmp_path / "kept").mkdir()
        (updates / "link").symlink_to(tmp_path / "kept")
        (updates / "directory").mkdir()
        (updates / "directory" / "link").symlink_to(tmp_path / "kept")
        (updates / "stays").mkdir()
        clear(str(updates), ["stays"])
        assert names(updates) == ["stays"]
        assert (tmp_path / "kept").is_dir()


class TestVersions:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.3 ",
            "1.2.3\n",
            "1.2.-3",
            "v1.2.3",
            "1.2.3rc1",
            "\u0661.2.3",
            5,
            None,
        ],
    )
    def test_no_versions(self, text: object) -> None:
        assert parse_version(text) is None

    def test_order(self) -> None:
        texts = ["0.0.0", "0.0.10", "0.9.0", "0.10.0", "1.0.0", "999999.0.0"]
        versions = [parse_version(text) for text in texts]
        assert versions == sorted(versions, key=lambda version: version or ())

    def test_this_agent_s(self) -> None:
        from guest_agent import VERSION

        assert code_version(str(REPOSITORY)) == VERSION

    def test_code_that_does_not_say(self, tmp_path: Path) -> None:
        assert code_version(str(tmp_path)) is None
        for content in (b"", b'VERSION = "1.2"\n', b"\xff", b'# VERSION = "1.2.3"\n'):
            put(tmp_path, {"guest_agent/__init__.py": content})
            assert code_version(str(tmp_path)) is None


def test_a_directory_s_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_directory(str(tmp_path))
    real = os.lstat

    def somebody_s(path: str) -> os.stat_result:
        fields = list(real(path))
        fields[4] = 54321 if path == str(tmp_path.parent) else fields[4]
        return os.stat_result(fields)

    monkeypatch.setattr(os, "lstat", somebody_s)
    with pytest.raises(Unusable, match="belongs to another user"):
        check_directory(str(tmp_path))


def start(packaged: Path, updates: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(packaged / "guest_agent/launch.py"), "--updates", str(updates), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False, cwd="/")


class TestProcess:
    def test_the_packaged_agent(self, packaged: Path, updates: Path) -> None:
        ended = start(packaged, updates, "--root", "/srv")
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1.0.0 --root /srv\n", "")

    def test_an_update_that_works_is_proven_at_its_first_start(self, packaged: Path, updates: Path) -> None:
        put(updates / "1.2.0", small_agent("1.2.0"))
        updates.chmod(0o700)
        write_state(str(updates), State("1.2.0", TRYING))
        for _ in range(MAX_ATTEMPTS + 2):
            assert start(packaged, updates, "x").stdout == "1.2.0 x\n"
            assert state(updates) == State("1.2.0", PROVEN)

    @pytest.mark.parametrize("program", [CRASHES, GIVES_UP, "import os\nos.abort()\n", "import nothing_like_that\n"])
    def test_an_update_that_does_not_work(self, packaged: Path, updates: Path, program: str) -> None:
        put(updates / "1.2.0", small_agent("1.2.0", program))
        updates.chmod(0o700)
        write_state(str(updates), State("1.2.0", TRYING))
        for attempt in range(1, MAX_ATTEMPTS + 1):
            assert start(packaged, updates).returncode != 0
            assert state(updates) == State("1.2.0", TRYING, attempt)
        ended = start(packaged, updates)
        assert (ended.returncode, ended.stdout) == (0, "1.0.0\n")
        assert "rolled back" in ended.stderr
        assert state(updates).state == ROLLED_BACK

    def test_an_update_that_hangs_is_ended(self, packaged: Path, updates: Path) -> None:
        put(updates / "1.2.0", small_agent("1.2.0", HANGS))
        updates.chmod(0o700)
        launcher = packaged / "guest_agent/launch.py"
        source = launcher.read_text()
        assert "TRIAL_SECONDS = 120\n" in source
        launcher.write_text(source.replace("TRIAL_SECONDS = 120\n", "TRIAL_SECONDS = 1\n"))
        write_state(str(updates), State("1.2.0", TRYING, MAX_ATTEMPTS - 1))
        assert start(packaged, updates).returncode == -signal.SIGALRM
        assert start(packaged, updates).stdout == "1.0.0\n"

    def test_the_timer_is_for_the_trial_alone(self, packaged: Path, updates: Path) -> None:
        tells = "import signal\n\ndef main(options):\n    print(signal.alarm(0))\n    return 0\n"
        put(packaged, small_agent("1.0.0", tells))
        put(updates / "1.2.0", small_agent("1.2.0", tells))
        updates.chmod(0o700)
        assert start(packaged, updates).stdout == "0\n"
        write_state(str(updates), State("1.2.0", TRYING))
        assert start(packaged, updates).stdout in ("120\n", "119\n")
        write_state(str(updates), State("1.2.0", PROVEN))
        assert start(packaged, updates).stdout == "0\n"
        # One that is left from before an exec is put back.
        before = "import os, signal, sys; signal.alarm(100); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        command = ["-I", str(packaged / "guest_agent/launch.py"), "--updates", str(updates)]
        ended = subprocess.run([sys.executable, "-c", before, *command], capture_output=True, text=True, check=True)
        assert ended.stdout == "0\n"

    def test_a_restart_keeps_process_and_options(self, packaged: Path, updates: Path) -> None:
        again = SERVES.replace(
            "    return 0", "    print(os.getpid(), flush=True)\n    again() if VERSION == '1.0.0' else 0"
        )
        again += "\ndef again():\n    os.chdir('/')\n    PROCESS.restart()\n"
        put(packaged, small_agent("1.0.0", "import os\n" + again.replace("PROCESS.restart()", _SWITCH)))
        put(updates / "1.2.0", small_agent("1.2.0", "import os\n" + again))
        updates.chmod(0o700)
        first, pid, second, second_pid = start(packaged, updates, "--root", "/srv").stdout.splitlines()
        assert (first, second) == ("1.0.0 --root /srv", "1.2.0 --root /srv")
        assert pid == second_pid
        assert state(updates) == State("1.2.0", PROVEN)

    def test_nothing_is_loaded_before_the_choice(self, packaged: Path, updates: Path, tmp_path: Path) -> None:
        """Also where the same packages lie among the interpreter's own: those of the choice come first."""
        tells = "import sys, agent_protocol\n\ndef main(options):\n    print(agent_protocol.__file__)\n    return 0\n"
        put(updates / "1.2.0", small_agent("1.2.0", tells))
        updates.chmod(0o700)
        write_state(str(updates), State("1.2.0", PROVEN))
        decoy = tmp_path / "site-packages"
        put(decoy, small_agent("1.9.0", tells))
        launcher = str(packaged / "guest_agent/launch.py")
        code = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
        code += "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
        command = [sys.executable, "-I", "-c", code, str(decoy), launcher, "--updates", str(updates)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert (ended.stdout, ended.stderr) == (f"{updates}/1.2.0/agent_protocol/__init__.py\n", "")

    def test_through_a_script_that_runs_it(self, packaged: Path, updates: Path, tmp_path: Path) -> None:
        script = tmp_path / "xenward-agent"
        launcher = str(packaged / "guest_agent/launch.py")
        script.write_text(f"import runpy\nrunpy.run_path({launcher!r}, run_name='__main__')\n")
        command = [sys.executable, "-I", str(script), "--updates", str(updates), "x"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert (ended.returncode, ended.stdout) == (0, "1.0.0 x\n")


_SWITCH = """\
from guest_agent.launch import State, write_state
    write_state(PROCESS.launch.updates, State("1.2.0", "trying"))
    PROCESS.restart()"""


@contextlib.contextmanager
def real_agent(packaged: Path, updates: Path, root: Path, host: Host, log: Path) -> Iterator[None]:
    options = ["--updates", str(updates), "--root", str(root), "--store", f"unix:{host.guest_socket}"]
    command = [sys.executable, "-I", str(packaged / "guest_agent/launch.py"), *options]
    with log.open("ab") as stderr:
        process = subprocess.Popen(command, stderr=stderr, cwd="/")
    try:
        yield
        process.terminate()
        assert process.wait(DEADLINE) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def test_a_real_agent_is_updated_through_the_store(root: Path, host: Host, updates: Path, tmp_path: Path) -> None:
    """From the host's request to the new agent's answer, all as in a guest: real code, real artefact, real launcher."""
    packaged, source = tmp_path / "installed", tmp_path / "source"
    for tree in (packaged, source):
        for package in ("agent_protocol", "guest_agent"):
            shutil.copytree(REPOSITORY / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    init = source / "guest_agent/__init__.py"
    init.write_text(re.sub('VERSION = "[^"]*"', 'VERSION = "99.0.0"', init.read_text()))
    version, content = build(source)
    arguments = {**signed(KEY, version, content), "content": base64.b64encode(content).decode()}
    (root / "etc/xenward").mkdir()
    key = base64.b64encode(KEY.public).decode()
    (root / "etc/xenward/agent.conf").write_text(f"[update]\nkey = {key}\n")
    with real_agent(packaged, updates, root, host, tmp_path / "log"):
        answer = SealedHost(host).ask("agent_update", arguments)
        answer.raise_unless_successful()
        previous = code_version(str(packaged))
        assert answer.data == {"version": "99.0.0", "previous": previous, "state": "installed"}
        # The same process goes on as the new version, without anybody's help.
        host.wait(lambda: b'"99.0.0"' in (host.read(ADVERT) or b""), "the new agent's advert")
        new = SealedHost(host)
        assert new.advert().version == "99.0.0"
        assert new.ask("version").data == {"version": "99.0.0"}
        told = new.ask("info").data
        assert (told["vm"], told["update"]) == (VM, {"version": "99.0.0", "state": PROVEN})
        # A second time it is not newer.
        again = new.ask("agent_update", arguments)
        assert again.code == "update_not_newer"
        assert names(updates) == ["99.0.0", STATE_FILE]
    assert state(updates).state == PROVEN
