"""The self-contained agent: its file, where it unpacks to, and its life as a service that no package brought."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_protocol.outcomes import Outcome
from guest_agent import VERSION
from tests.guest_agent.conftest import names
from tools.labs.roots import debian_root
from tools.packages import zipapp
from tools.packages.agent_tree import PackageError

from .guests import IDENTITY, accepts, agent, difference, guest, placed, tree

PROGRAM = "/usr/local/sbin/xenward-agent"
PLATFORM = f"manylinux_2_17_{platform.machine()}"

_START = b"    sys.exit(main(sys.argv[1:]))"
_TELL = b"""\
    import cryptography

    print(json.dumps([sys.argv[1:], sys.executable, cryptography.__file__, sys.flags.isolated]))"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a wheel of a cryptography that this interpreter can import, and that does nothing."""
    directory = tmp_path_factory.mktemp("wheels")
    tag = f"cp39-abi3-{PLATFORM}"
    with zipfile.ZipFile(directory / f"cryptography-50.0.0-{tag}.whl", "w") as wheel:
        info = "cryptography-50.0.0.dist-info"
        wheel.writestr("cryptography/__init__.py", '__version__ = "50.0.0"\n')
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: cryptography\nVersion: 50.0.0\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return directory


@pytest.fixture(scope="module")
def hollow(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Path:
    """An archive for this interpreter, whose launcher tells how it was started instead of starting an agent."""
    built = zipapp.build(
        tmp_path_factory.mktemp("hollow"), [sys.version_info[1]], [PLATFORM], interpreter=sys.executable, wheels=wheels
    )
    changed = built.with_name("told.pyz")
    with changed.open("wb") as file:
        file.write(built.read_bytes().partition(b"\n")[0] + b"\n")
        with zipfile.ZipFile(built) as old, zipfile.ZipFile(file, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "guest_agent/launch.py":
                    assert content.count(_START) == 1
                    content = content.replace(_START, _TELL)
                new.writestr(name, content)
    changed.chmod(0o755)
    return changed


@pytest.fixture
def run(hollow: Path, tmp_path: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(hollow), *arguments], capture_output=True, text=True, check=False, timeout=60)

    return run


def test_the_same_bytes_for_the_same_wheels(wheels: Path, tmp_path: Path) -> None:
    first = zipapp.build(tmp_path / "1", [11], [PLATFORM], wheels=wheels).read_bytes()
    assert zipapp.build(tmp_path / "2", [11], [PLATFORM], wheels=wheels).read_bytes() == first


def test_wheels_that_cannot_be_had(wheels: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="pip ended"):
        zipapp.build(tmp_path, [11], ["musllinux_1_2_x86_64"], wheels=wheels)
    with pytest.raises(PackageError, match="no platform"):
        zipapp.build(tmp_path, [11], ["win32"], wheels=wheels)
    assert not list(tmp_path.iterdir())


class TestUnpacking:
    def test_it_becomes_the_launcher_with_its_own_cryptography(self, run: Run, tmp_path: Path) -> None:
        place = tmp_path / "native"
        done = run("--unpack", str(place), "--root", "/somewhere")
        arguments, executable, cryptography, isolated = json.loads(done.stdout.splitlines()[0])
        (environment,) = place.iterdir()
        assert arguments == ["--root", "/somewhere"]
        assert Path(executable) == environment / "bin/python"
        assert cryptography.startswith(str(environment))
        assert isolated == 1
        assert environment.stat().st_mode & 0o777 == 0o700
        assert place.stat().st_mode & 0o777 == 0o700

    def test_a_second_start_unpacks_nothing(self, run: Run, tmp_path: Path) -> None:
        place = tmp_path / "native"
        run("--unpack", str(place))
        (environment,) = place.iterdir()
        marked = environment / "marked"
        marked.touch()
        assert run("--unpack", str(place)).stdout
        assert marked.exists()
        assert list(place.iterdir()) == [environment]

    def test_what_others_can_write_is_not_run(self, run: Run, tmp_path: Path) -> None:
        place = tmp_path / "native"
        run("--unpack", str(place))
        (environment,) = place.iterdir()
        for directory in (environment, place):
            directory.chmod(0o777)
            done = run("--unpack", str(place))
            assert (done.returncode, done.stdout) == (1, "")
            assert "others can write" in done.stderr
            directory.chmod(0o700)
        assert run("--unpack", str(place)).stdout

    def test_nothing_is_unpacked_where_others_can_write(self, run: Run, tmp_path: Path) -> None:
        place = tmp_path / "native"
        place.mkdir()
        place.chmod(0o777)
        done = run("--unpack", str(place))
        assert done.returncode == 1
        assert "others can write" in done.stderr
        assert names(place) == []

    def test_a_link_in_its_place_is_not_followed(self, run: Run, tmp_path: Path) -> None:
        place = tmp_path / "native"
        run("--unpack", str(place))
        (environment,) = place.iterdir()
        environment.rename(tmp_path / "elsewhere")
        environment.symlink_to(tmp_path / "elsewhere")
        done = run("--unpack", str(place))
        assert (done.returncode, done.stdout) == (1, "")
        assert "is not a directory" in done.stderr

    def test_what_an_interrupted_start_left_goes(self, run: Run, tmp_path: Path) -> None:
        place = tmp_path / "native"
        for name in ("unfinished-1", "unfinished-2"):
            (place / name / "bin").mkdir(parents=True)
        place.chmod(0o700)
        run("--unpack", str(place))
        assert sum(name.startswith("unfinished-") for name in names(place)) <= 1

    def test_nowhere_to_unpack_to(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        done = run("--unpack", str(tmp_path / "file" / "native"))
        assert done.returncode == 1
        assert "nowhere to unpack to" in done.stderr


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zipapp.build(tmp_path_factory.mktemp("pyz"), [11])


@pytest.fixture(scope="module")
def base() -> Path:
    return debian_root()


@pytest.mark.services
class TestInGuests:
    def test_it_serves_where_there_is_no_cryptography(self, base: Path, archive: Path, tmp_path: Path) -> None:
        with guest(base, archive) as (root, host):
            (program,) = placed([archive])
            root.run(["rm", "-rf", "/usr/lib/python3/dist-packages/cryptography"])
            root.run(
                ["sh", "-c", "rm -rf /usr/lib/python3/dist-packages/_cffi_backend* /usr/lib/python3/dist-packages/cffi"]
            )
            assert root.run([program, "--version"]).stdout == f"{VERSION}\n"
            with agent(root, host, tmp_path / "log", program) as sealed:
                assert sealed.ask("password", {"value": "Correct-Horse-9"}).outcome == Outcome.SUCCEEDED
            assert accepts(root, "root", "Correct-Horse-9")
            assert root.path("/var/lib/xenward/native").stat().st_mode & 0o777 == 0o700

    def test_where_nothing_can_be_run_from_var_it_uses_run(self, base: Path, archive: Path) -> None:
        with guest(base, archive) as (root, _):
            root.run(
                ["sh", "-c", "mkdir -p /var/lib/xenward && mount -t tmpfs -o noexec,mode=700 tmpfs /var/lib/xenward"]
            )
            assert root.run([*placed([archive]), "--version"]).stdout == f"{VERSION}\n"
            assert list(root.path("/run/xenward/native").iterdir())

    @pytest.mark.parametrize("image", [False, True])
    def test_installed_and_uninstalled(self, base: Path, archive: Path, tmp_path: Path, image: bool) -> None:
        with guest(base, archive) as (root, host):
            (program,) = placed([archive])
            where = ["--root", "/"] if not image else ["--root", "/proc/1/root/"]
            before = tree(root)
            root.run([program, "--install", *where])
            root.run([program, "--install", *where])
            assert "enabled" in root.run(["systemctl", "is-enabled", "xenward-agent"]).stdout
            assert f"ExecStart={PROGRAM}\n" in root.path("/etc/systemd/system/xenward-agent.service").read_text()
            with agent(root, host, tmp_path / "log", PROGRAM) as sealed:
                assert sealed.ask("ping").outcome == Outcome.SUCCEEDED
            root.run([PROGRAM, "--uninstall", *where])
            left = {path for path in difference(before, tree(root)) if "xenward" in path}
        assert left == {"/var/lib/xenward", IDENTITY}
