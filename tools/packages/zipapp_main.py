"""What a self-contained agent starts with; tools/packages/zipapp.py puts it into the archive as its __main__.

Native modules cannot be loaded out of a zip archive, and an update of the agent needs them too. So the archive is
unpacked, once, into a virtual environment of its own that only the superuser can write, and what runs is the launcher
in there. It lies below /var/lib/xenward, or below /run/xenward where nothing can be written or run from there. Its
name tells the archive's content and the interpreter, so that another of either gets another one.

    xenward-agent.pyz [--unpack DIR] [OPTION …]          run the agent, from DIR instead of the places above
    xenward-agent.pyz --install | --uninstall [--root DIR]    see guest_agent/service/install.py

Where the archive has nothing for this Python and C library, the guest's own cryptography is used.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import secrets
import shutil
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

PLACES = ("/var/lib/xenward/native", "/run/xenward/native")
INDEX = "native/index.json"

_GLIBC = re.compile(r"glibc ([0-9]{1,3})\.([0-9]{1,3})")


def main(arguments: list[str]) -> int:
    """Become the agent, or install it. Comes back only when that cannot be, with the exit status."""
    archive = Path(sys.path[0])
    if "--install" in arguments or "--uninstall" in arguments:
        from guest_agent.service.install import main as install

        return install(arguments, archive)
    places: tuple[str, ...] = PLACES
    if len(arguments) >= 2 and arguments[0] == "--unpack":
        places, arguments = (os.path.abspath(arguments[1]),), arguments[2:]  # noqa: PTH100
    with zipfile.ZipFile(archive) as opened:
        index = json.loads(opened.read(INDEX))
        wheels = fitting(index["wheels"])
        if wheels is None and find_spec("cryptography") is None:
            print(
                f"xenward-agent: this file brings cryptography for {', '.join(sorted(index['wheels']))}; this is "
                f"{tag()}, and has no cryptography of its own",
                file=sys.stderr,
            )
            return 1
        name = f"{index['digest'][:16]}-{sys.implementation.cache_tag}{'' if wheels else '-system'}"
        reasons = []
        for place in places:
            try:
                environment = prepare(Path(place), name, opened, wheels)
            except (OSError, ValueError) as error:
                reasons.append(f"{place}: {error}")
            else:
                become(environment, arguments)
    print(f"xenward-agent: nowhere to unpack to: {'; '.join(reasons)}", file=sys.stderr)
    return 1


def tag() -> str:
    """What wheels must be made for: Python, C library and processor, as in cp311-manylinux-x86_64."""
    library = "manylinux" if _glibc() else "musllinux"
    return f"cp{sys.version_info[0]}{sys.version_info[1]}-{library}-{platform.machine()}"


def fitting(wheels: dict[str, dict[str, object]]) -> list[str] | None:
    """The wheels for this interpreter, None when the archive has none."""
    found = wheels.get(tag())
    if found is None or (_glibc() and _glibc() < tuple(found["glibc"])):  # type: ignore[arg-type]
        return None
    return found["files"]  # type: ignore[return-value]


def _glibc() -> tuple[int, ...]:
    """Empty where the C library is another one."""
    try:
        found = _GLIBC.match(os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (ValueError, OSError):
        return ()
    return tuple(map(int, found.groups())) if found else ()


def prepare(place: Path, name: str, archive: zipfile.ZipFile, wheels: list[str] | None) -> Path:
    """The environment of that name in `place`, made if it is not there: whole, or not at all.

    OSError when it cannot be written or run from there, ValueError when others than the superuser could write there.
    """
    from guest_agent.launch import Unusable, check_directory

    if not place.parent.is_dir():
        place.parent.mkdir(mode=0o700)
    if not place.is_dir():
        place.mkdir(mode=0o700)
    environment = place / name
    try:
        check_directory(str(place))
        if os.statvfs(place).f_flag & os.ST_NOEXEC:
            raise ValueError("nothing can be run from there")
        if environment.exists():
            check_directory(str(environment))
            return environment
    except Unusable as error:
        raise ValueError(str(error)) from None
    _remove_older(place)
    unfinished = place / f"unfinished-{secrets.token_hex(8)}"
    previous_mask = os.umask(0o077)
    try:
        _unpack(unfinished, archive, wheels)
        try:
            unfinished.rename(environment)
        except OSError:
            # Another start of the agent was faster.
            if not environment.exists():
                raise
        _sync(place)
    finally:
        os.umask(previous_mask)
        shutil.rmtree(unfinished, ignore_errors=True)
    return environment


def _remove_older(place: Path) -> None:
    """All but the newest one, which an agent may be running from, and what an interrupted start left."""
    found = sorted(place.iterdir(), key=lambda path: (path.name.startswith("unfinished-"), -path.stat().st_mtime))
    for path in found[1:]:
        shutil.rmtree(path, ignore_errors=True)


def _unpack(directory: Path, archive: zipfile.ZipFile, wheels: list[str] | None) -> None:
    packages = _packages(directory)
    packages.mkdir(parents=True)
    (directory / "bin").mkdir()
    (directory / "bin/python").symlink_to(os.path.realpath(sys.executable))
    (directory / "pyvenv.cfg").write_text(
        f"home = {os.path.dirname(os.path.realpath(sys.executable))}\n"  # noqa: PTH120
        f"include-system-site-packages = {'false' if wheels else 'true'}\n"
    )
    for name in archive.namelist():
        if name.startswith(("agent_protocol/", "guest_agent/")):
            archive.extract(name, packages)
    for wheel in wheels or ():
        with zipfile.ZipFile(io.BytesIO(archive.read(f"native/{wheel}"))) as opened:
            opened.extractall(packages)
    # After a power failure, what has the final name must have its content.
    for path in (*directory.rglob("*"), directory):
        if not path.is_symlink():
            _sync(path)


def _packages(environment: Path) -> Path:
    return environment / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def become(environment: Path, arguments: list[str]) -> NoReturn:
    """Run the launcher in place of this process."""
    python = str(environment / "bin/python")
    launcher = str(_packages(environment) / "guest_agent/launch.py")
    os.execv(python, [python, "-I", launcher, *arguments])  # noqa: S606 - a list, and no shell


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
