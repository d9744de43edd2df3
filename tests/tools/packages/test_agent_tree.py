"""What the packages have in common, without building one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.guest_agent.conftest import REPOSITORY
from tools.commands import package
from tools.packages import agent_tree
from tools.packages.agent_tree import File, PackageError, code, installed_files, native_version, write_tree


@pytest.mark.parametrize(
    ("python", "native"),
    [
        ("0.1.0", "0.1.0"),
        ("1.0rc1", "1.0~rc1"),
        ("1.0a2", "1.0~a2"),
        ("1.0.dev3", "1.0~dev3"),
        ("1.0.post1", "1.0.post1"),
    ],
)
def test_versions_before_a_release_are_older(python: str, native: str) -> None:
    assert native_version(python) == native


def test_every_module_and_nothing_else() -> None:
    modules = {
        path.relative_to(REPOSITORY).as_posix()
        for name in ("agent_protocol", "guest_agent")
        for path in (REPOSITORY / name).rglob("*.py")
    }
    data = {f"guest_agent/service/{name}" for name in ("agent.conf", "xenward-agent.openrc", "xenward-agent.service")}
    assert set(code()) == modules | data


def test_what_is_installed_is_the_superusers_alone_to_write() -> None:
    assert {file.mode for file in installed_files().values()} == {0o644, 0o755}


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        write_tree(tmp_path, {"/a/b/c": File(b"x", 0o755), "/a/d": File(b"y")})
    finally:
        os.umask(mask)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b", "a/b/c", "a/d")}
    assert modes == {"a": 0o755, "a/b": 0o755, "a/b/c": 0o755, "a/d": 0o644}


class TestDate:
    def test_as_it_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
        assert agent_tree.source_date_epoch() == 1234567890

    def test_nonsense(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
        with pytest.raises(PackageError, match="not a number"):
            agent_tree.source_date_epoch()


class TestCommand:
    @pytest.mark.parametrize(("kind", "debian"), [("deb", "dpkg"), ("rpm", "rpm")])
    def test_a_missing_program_is_named_with_its_package(
        self,
        kind: str,
        debian: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert package.main(["--into", str(tmp_path), kind]) == 1
        assert f"it is in Debian's package {debian}" in capsys.readouterr().err

    def test_the_plugin(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert package.main(["--into", str(tmp_path / "dist"), "plugin"]) == 0
        assert capsys.readouterr().out == f"{tmp_path}/dist/xenward\n"
        assert os.access(tmp_path / "dist/xenward", os.X_OK)

    @pytest.mark.parametrize("version", ["3.8", "2.7", "3", "3.x"])
    def test_versions_of_python_that_are_not_served(self, version: str) -> None:
        with pytest.raises(SystemExit) as ended:
            package.main(["zipapp", "--python", version])
        assert ended.value.code == 2


def test_the_program_is_a_shell_script_that_sh_reads(tmp_path: Path) -> None:
    program = tmp_path / "xenward-agent"
    program.write_text(agent_tree.PROGRAM)
    subprocess.run(["sh", "-n", str(program)], check=True)
