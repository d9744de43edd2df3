"""What the installer puts into its directory: the runtime, the agent, and those parts of the wheels that it loads."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tools.commands.environment import CHECKOUT
from tools.packages.agent_tree import code

from . import runtime
from .lock import RUNTIME

LIBRARIES = "Lib/site-packages"
AGENT = "agent"
"""Where the agent's packages are; apart from what others wrote."""

SAMPLE = "agent.conf.sample"

SEARCH_PATH = ("python313.zip", ".", AGENT, LIBRARIES, f"{LIBRARIES}/win32", f"{LIBRARIES}/win32/lib")
"""Without `import site`: it would run whatever a *.pth file says."""

PYWIN32_MODULES = frozenset(
    {
        "_win32sysloader",
        "servicemanager",
        "win32api",
        "win32event",
        "win32file",
        "win32net",
        "win32security",
        "win32service",
    }
)
"""Those in machine code that the agent and win32com load. Printers, modems, windows and the like are left out."""

PYWIN32_SOURCES = frozenset({"ntsecuritycon", "pywintypes", "win32con", "win32timezone", "winerror"})

GENERATED = f"{LIBRARIES}/win32com/gen_py"
"""Where win32com looks for code that it generated, and for their index, which it unpickles when it is imported. Without
this directory it would take one in %TEMP%, where other users can put what SYSTEM would then run."""

_NOTHING_GENERATED = {
    f"{GENERATED}/__init__.py": b"",
    # Two pickles: the version of the index, and the index. As it is there, win32com does not write one.
    f"{GENERATED}/dicts.dat": pickle.dumps(1, 2) + pickle.dumps({}, 2),
}

_COM_TOOLS = frozenset({"browser", "combrowse", "tlbrowse", "localserver", "register"})
"""Of win32com, for people who develop with it."""


def installed(fetched: Mapping[str, Path], python_directory: Path | None = None) -> dict[str, bytes]:
    """The content of each file below the installer's directory, by its path with slashes.

    fetched: the files that the lock names. python_directory: an unpacked embeddable zip to take instead of the runtime
    among them. PackageError when something is missing.
    """
    if python_directory is None:
        files = runtime.from_archive(fetched[RUNTIME])
    else:
        files = runtime.from_directory(python_directory)
    files["LICENSE-python.txt"] = files.pop("LICENSE.txt")
    files[runtime.SEARCH_PATH] = "".join(line.replace("/", "\\") + "\r\n" for line in SEARCH_PATH).encode("ascii")
    for name, keep in _WHEELS.items():
        with zipfile.ZipFile(fetched[name]) as wheel:
            for path in wheel.namelist():
                place = keep(path)
                if place is not None and not path.endswith("/"):
                    files[place] = wheel.read(path)
    files.update(_NOTHING_GENERATED)
    files.update({f"{AGENT}/{path}": content for path, content in code().items() if path.endswith(".py")})
    files["LICENSE.txt"] = (CHECKOUT / "LICENSE").read_bytes()
    files[SAMPLE] = Path(__file__).with_name("agent.conf").read_bytes().replace(b"\n", b"\r\n")
    return dict(sorted(files.items()))


def _library(path: str) -> str:
    return f"{LIBRARIES}/{path}"


def _licence(path: str) -> str | None:
    """Where a file goes that says whose the wheel is, None for another one."""
    return _library(path) if re.fullmatch(r"[^/]+\.dist-info/(METADATA|licenses/.+)", path) else None


def _cryptography(path: str) -> str | None:
    return _library(path) if path.startswith("cryptography/") and path.endswith((".py", ".pyd")) else _licence(path)


def _cffi(path: str) -> str | None:
    """The part that cryptography loads; the rest is for building."""
    return _library(path) if re.fullmatch(r"_cffi_backend\.[^/]+\.pyd", path) else _licence(path)


def _pywin32(path: str) -> str | None:
    directory, _, name = path.rpartition("/")
    stem, _, kind = name.partition(".")
    if directory == "pywin32_system32":
        return name  # beside python.exe: where Windows looks for what modules in machine code need
    wanted = (
        (path == "pythoncom.py")
        or (directory == "win32" and kind == "pyd" and stem in PYWIN32_MODULES)
        or (directory == "win32/lib" and kind == "py" and stem in PYWIN32_SOURCES)
        or (directory in ("win32com", "win32com/client", "win32com/server") and kind == "py" and stem not in _COM_TOOLS)
    )
    return _library(path) if wanted else _licence(path)


_WHEELS: dict[str, Callable[[str], str | None]] = {
    "cffi": _cffi,
    "cryptography": _cryptography,
    "pywin32": _pywin32,
}
