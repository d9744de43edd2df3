"""The archive that dom0 gets: complete, reproducible, and with bytecode that never stands in the way."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.dom0_plugins.test_plugin_process import document
from tests.interpreters import interpreter, minors
from tools.packages.dom0_plugin import INTERPRETER, build

ROOT = Path(__file__).parents[3]
OWN = importlib.util.MAGIC_NUMBER.hex()


def names(plugin: Path) -> list[str]:
    with zipfile.ZipFile(plugin) as archive:
        return archive.namelist()


def status(plugin: Path) -> tuple[dict[str, object], str]:
    """What the plugin answers without a store, and what the interpreter says on standard error."""
    environment = {"PATH": "/usr/bin:/bin", "XENSTORED_PATH": "/nonexistent"}
    command = [str(plugin), document("status", {})]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=60)
    return json.loads(done.stdout[done.stdout.index("{") : done.stdout.rindex("}") + 1]), done.stderr


_TELL = """\
import runpy, sys
path, document = sys.argv[1:]
sys.argv = [path, document]
runpy.run_path(path, run_name="__main__")
print()
print({module.__file__[len(path):].rpartition("dom0_plugins")[0] for name, module in sys.modules.items()
       if name.startswith("dom0_plugins")})
"""


def loaded_from_bytecode(plugin: Path, python: str, zone: str = "UTC") -> bool:
    """Whether the interpreter takes our modules from the folder of bytecode. They all come from the same one."""
    command = [python, "-IS", "-c", _TELL, str(plugin), document("status", {})]
    done = subprocess.run(command, capture_output=True, text=True, env={"TZ": zone}, check=True, timeout=60)
    (folder,) = ast.literal_eval(done.stdout.splitlines()[-1])
    assert folder == "/" or folder.startswith("/bytecode/")
    return bool(folder != "/")


class TestContents:
    def test_every_module_that_is_imported_is_there(self, tmp_path: Path) -> None:
        build(tmp_path / "xenward")
        assert {name for name in names(tmp_path / "xenward") if name.startswith("dom0_plugins/")} == {
            f"dom0_plugins/{path.name}" for path in (ROOT / "dom0_plugins").glob("*.py")
        }

    def test_nothing_but_the_standard_library_is_needed(self, tmp_path: Path) -> None:
        build(tmp_path / "xenward")
        with zipfile.ZipFile(tmp_path / "xenward") as archive:
            for name in archive.namelist():
                for node in ast.walk(ast.parse(archive.read(name))):
                    modules = []
                    if isinstance(node, ast.Import):
                        modules = [alias.name for alias in node.names]
                    elif isinstance(node, ast.ImportFrom) and not node.level:
                        modules = [str(node.module)]
                    for module in modules:
                        first = module.partition(".")[0]
                        assert first in {*sys.stdlib_module_names, "dom0_plugins", "agent_protocol"}, name

    def test_bytecode_only_where_it_was_asked_for(self, tmp_path: Path) -> None:
        for name, arguments in {"plain": {}, "own": {"interpreter": sys.executable}}.items():
            build(tmp_path / name, **arguments)
        build(tmp_path / "refused", sys.executable, [])
        build(tmp_path / "asked", INTERPRETER, [sys.executable])
        with_bytecode = {
            name: f"bytecode/{OWN}/dom0_plugins/exchange.pyc" in names(tmp_path / name)
            for name in ("plain", "own", "refused", "asked")
        }
        assert with_bytecode == {"plain": False, "own": True, "refused": False, "asked": True}

    def test_the_same_bytes_each_time(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "tools.packages.dom0_plugin", "--bytecode", sys.executable]
        for number in range(4):
            environment = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": str(number), "TZ": f"UTC{number}"}
            subprocess.run([*command, str(tmp_path / f"{number}")], check=True, cwd=ROOT, env=environment)
        assert len({(tmp_path / f"{number}").read_bytes() for number in range(4)}) == 1

    def test_an_interpreter_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(OSError):
            build(tmp_path / "xenward", INTERPRETER, [str(tmp_path / "python")])
        assert not (tmp_path / "xenward").exists()


class TestBytecode:
    def test_it_is_used(self, tmp_path: Path) -> None:
        build(tmp_path / "with", sys.executable)
        build(tmp_path / "without", sys.executable, [])
        assert loaded_from_bytecode(tmp_path / "with", sys.executable)
        assert not loaded_from_bytecode(tmp_path / "without", sys.executable)

    @pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles"])
    def test_it_is_used_in_every_time_zone(self, tmp_path: Path, zone: str) -> None:
        build(tmp_path / "with", sys.executable)
        assert loaded_from_bytecode(tmp_path / "with", sys.executable, zone)

    def test_another_version_s_is_passed_over(self, tmp_path: Path) -> None:
        """As if it were another version's: the folder has another name, and its modules would end the process."""
        plugin = tmp_path / "xenward"
        build(plugin, sys.executable)
        content = plugin.read_bytes()
        shebang, archive = content.split(b"\n", 1)
        changed = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(changed, "w") as new:
            for name in old.namelist():
                poisoned = name.startswith("bytecode/")
                new.writestr(name.replace(OWN, "00000d0a"), b"\0" * 64 if poisoned else old.read(name))
        plugin.write_bytes(shebang + b"\n" + changed.getvalue())
        answer, _ = status(plugin)
        assert answer["xenstore"] == "closed"

    @pytest.mark.services
    @pytest.mark.parametrize("minor", minors())
    def test_every_python_runs_its_own_and_passes_over_the_others(self, tmp_path: Path, minor: int) -> None:
        python = interpreter(minor)
        everybody = [interpreter(other) for other in minors()]
        others = [found for found in everybody if found != python]
        build(tmp_path / "own", python, [python])
        build(tmp_path / "all", python, everybody)
        build(tmp_path / "others", python, others)
        build(tmp_path / "none", python, [])
        for name, compiled in {"own": True, "all": True, "others": False, "none": False}.items():
            for zone in ("UTC", "Pacific/Kiritimati"):
                assert loaded_from_bytecode(tmp_path / name, python, zone) is compiled, name
            answer, told = status(tmp_path / name)
            assert (answer["xenstore"], told) == ("closed", "")
            assert str(answer["python"]).startswith(f"3.{minor}.")
