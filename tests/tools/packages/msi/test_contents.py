"""What the installer carries: all that the agent loads, and hardly anything else."""

from __future__ import annotations

import ast
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from guest_agent.configuration import parse_configuration
from tools.packages.agent_tree import PACKAGES, code
from tools.packages.msi import contents

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def files(fetched: dict[str, Path]) -> dict[str, bytes]:
    return contents.installed(fetched)


def imports(source: bytes, *, everywhere: bool) -> Iterator[str]:
    """The modules that a source names, by absolute names; everywhere, or only where it is loaded in any case."""
    tree = ast.parse(source)
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "import_module"
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def modules(paths: Iterator[str]) -> dict[str, str]:
    """The path of each module, by its name as the search path makes it."""
    found = {}
    # The longest first: win32/lib is searched of its own.
    places = sorted((place for place in contents.SEARCH_PATH if "/" in place), key=len, reverse=True)
    for path in paths:
        place = next((place for place in places if path.startswith(f"{place}/")), None)
        if place is None or not path.endswith((".py", ".pyd")):
            continue
        name = path[len(place) + 1 :].split(".")[0].replace("/", ".")
        found[name.removesuffix(".__init__")] = path
    return found


def test_every_module_of_the_agent_and_nothing_else_of_ours(files: dict[str, bytes]) -> None:
    ours = {
        path.removeprefix(f"{contents.AGENT}/"): content for path, content in files.items() if path.startswith("agent/")
    }
    assert ours == {path: content for path, content in code().items() if path.endswith(".py")}
    assert {path.split("/")[0] for path in ours} == set(PACKAGES)


def test_all_that_the_agent_loads_is_there(files: dict[str, bytes], fetched: dict[str, Path]) -> None:
    """Whatever it imports that is in one of the wheels, and whatever these import in turn when they are loaded."""
    there = modules(iter(files))
    universe = set(there)
    for name in ("cffi", "cryptography", "pywin32"):
        with zipfile.ZipFile(fetched[name]) as wheel:
            universe |= modules(f"{contents.LIBRARIES}/{path}" for path in wheel.namelist()).keys()
    wanted = {
        name
        for path, content in files.items()
        if path.startswith("agent/") and path.endswith(".py")
        for name in imports(content, everywhere=True)
        if name in universe
    }
    assert {"servicemanager", "win32service", "cryptography.hazmat.primitives.asymmetric.x25519"} <= wanted
    todo, seen = list(wanted | {"cryptography.hazmat.bindings._rust", "_cffi_backend"}), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        assert name in there, f"the agent loads {name}, and the installer does not carry it"
        if there[name].endswith(".py"):
            todo += [each for each in imports(files[there[name]], everywhere=False) if each in universe]


def test_modules_in_machine_code_are_all_needed(files: dict[str, bytes]) -> None:
    """So that the list does not grow by habit."""
    sources = [content for path, content in files.items() if path.endswith(".py")]
    named = {name.split(".")[0] for source in sources for name in imports(source, everywhere=True)}
    assert contents.PYWIN32_MODULES - named == set()


def test_what_is_for_developers_is_left_out(files: dict[str, bytes]) -> None:
    directories = re.compile(r"(?i)(^|/)(demos?|tests?|html|include|libs|scripts|pythonwin|isapi|adodbapi)/")
    kinds = re.compile(r"(?i)\.(chm|h|lib|pyi|exe)$")
    there = [path for path in files if ".dist-info/" not in path]
    assert [path for path in there if directories.search(path) or kinds.search(path)] == ["python.exe"]
    assert sum(map(len, files.values())) < 40_000_000


def test_python_looks_nowhere_else(files: dict[str, bytes]) -> None:
    lines = files["python313._pth"].decode("ascii").split("\r\n")
    assert lines == [
        "python313.zip",
        ".",
        "agent",
        "Lib\\site-packages",
        "Lib\\site-packages\\win32",
        "Lib\\site-packages\\win32\\lib",
        "",
    ]


def test_the_libraries_of_pywin32_are_beside_the_program(files: dict[str, bytes]) -> None:
    assert {"pywintypes313.dll", "pythoncom313.dll"} <= files.keys()


def test_win32com_finds_its_index_where_only_administrators_write(files: dict[str, bytes]) -> None:
    """It unpickles what it finds; elsewhere that would be in %TEMP%."""
    there = modules(iter(files))
    assert "win32com.gen_py" in there
    index = files[str(PurePosixPath(there["win32com.gen_py"]).with_name("dicts.dat"))]
    version = pickle.dumps(1, 2)
    assert index.startswith(version)
    assert pickle.loads(index) == 1
    assert pickle.loads(index[len(version) :]) == {}


def test_whose_everything_is(files: dict[str, bytes]) -> None:
    licences = {path for path in files if "licen" in path.lower()}
    assert {"LICENSE.txt", "LICENSE-python.txt"} <= licences
    for name in ("cffi", "cryptography", "pywin32"):
        assert any(f"/{name}-" in path for path in licences), name


class TestConfiguration:
    """The sample, on any system."""

    def test_as_it_is_it_changes_nothing(self, files: dict[str, bytes]) -> None:
        assert parse_configuration(files[contents.SAMPLE]) == parse_configuration(b"")

    def test_what_is_commented_out_is_valid(self, files: dict[str, bytes]) -> None:
        shown = re.sub(r"^#(?=[a-z_]+ =)", "", files[contents.SAMPLE].decode(), flags=re.MULTILINE)
        assert parse_configuration(shown.encode()).store == "windows"

    def test_the_example_is_valid(self, files: dict[str, bytes]) -> None:
        shown = files[contents.SAMPLE].decode().replace("#   block =", "block =")
        assert parse_configuration(shown.encode()).block == {"file_put", "injectfile", "file_inject"}
