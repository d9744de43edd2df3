"""Build the dom0 plugin: one executable zip archive, `xenward`, that XAPI runs as it stands.

python -m tools.packages.dom0_plugin dist/xenward --bytecode python3.6

XAPI starts the plugin anew for every call, so its start counts in every operation, and compiling the sources is half
of it. The archive can therefore carry bytecode as well, for any number of Python versions: each in a folder named
after the number that marks bytecode of that version, so that another version does not see it and takes the sources.
Bytecode stands apart from the sources because Python 3.6 compares the times of the two, in the local time zone.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import agent_protocol
import dom0_plugins

INTERPRETER = "/usr/bin/python3"
"""The interpreter of every dom0 that is served: 3.6 in XenServer 8 and XCP-ng 8.3, later ones after that."""

_MODULES = {
    agent_protocol: ("__init__.py", "wire.py", "xenstore.py"),
    dom0_plugins: (
        "__init__.py",
        "__main__.py",
        "adverts.py",
        "console_log.py",
        "conversation.py",
        "delivery.py",
        "exchange.py",
        "frames.py",
        "status.py",
        "unread.py",
        "xapi.py",
    ),
}

_MAIN = b"""\
import sys
from _frozen_importlib_external import MAGIC_NUMBER

sys.path.insert(0, "%s/bytecode/%s" % (sys.path[0], MAGIC_NUMBER.hex()))
from dom0_plugins.__main__ import main

main()
"""
"""What the interpreter starts with. A folder that the archive does not have is passed over."""

_COMPILE = """\
import json, marshal, sys
from _frozen_importlib_external import MAGIC_NUMBER

header = MAGIC_NUMBER + bytes(8 if sys.version_info < (3, 7) else 12)
codes = {name: compile(source, name, "exec", dont_inherit=True) for name, source in json.load(sys.stdin)}
modules = [(name, (header + marshal.dumps(code)).hex()) for name, code in sorted(codes.items())]
json.dump({"magic": MAGIC_NUMBER.hex(), "modules": modules}, sys.stdout)
"""
"""Run by the interpreter whose bytecode is wanted; its own version may be older than ours. The header is that of
PEP 552 with time and size of the source unknown, which 3.6 had without flags."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


def build(destination: Path, interpreter: str = INTERPRETER, bytecode: Sequence[str] | None = None) -> None:
    """Write the plugin to `destination`, byte for byte the same for the same arguments and sources, with mode 0755.

    interpreter: what dom0 runs the plugin with. bytecode: interpreters on this machine, one of each version that the
    plugin shall carry bytecode for; unless given, that is `interpreter` if it is the running one, and none otherwise.
    subprocess.CalledProcessError or OSError when one of them cannot be run.
    """
    if bytecode is None:
        bytecode = [interpreter] if interpreter == sys.executable else []
    contents = {"__main__.py": _MAIN, **_sources()}
    for compiler in bytecode:
        contents.update(_compile(compiler))
    archive = io.BytesIO()
    # Not compressed: dom0 does not miss 200 KiB, and loading zlib would take a millisecond of every call.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as plugin:
        for name, content in sorted(contents.items()):
            plugin.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    # Isolated and without site-packages: nothing of dom0's configuration changes what runs.
    destination.write_bytes(f"#!{interpreter} -IS\n".encode() + archive.getvalue())
    destination.chmod(0o755)


def _sources() -> dict[str, bytes]:
    return {
        f"{package.__name__}/{name}": (Path(package.__path__[0]) / name).read_bytes()
        for package, names in _MODULES.items()
        for name in names
    }


def _compile(compiler: str) -> dict[str, bytes]:
    """The bytecode that an interpreter makes of the sources, under the names that it has in the archive."""
    sources = json.dumps([(name, source.decode("utf-8")) for name, source in sorted(_sources().items())])
    # The order of the elements of a constant set depends on the seed.
    environment = {"PYTHONHASHSEED": "0"}
    command = [compiler, "-sS", "-c", _COMPILE]
    done = subprocess.run(command, input=sources.encode("ascii"), stdout=subprocess.PIPE, env=environment, check=True)
    answer = json.loads(done.stdout)
    folder = f"bytecode/{answer['magic']}"
    return {f"{folder}/{name}c": bytes.fromhex(code) for name, code in answer["modules"]}


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description="Build the dom0 plugin as one executable zip archive.")
    parser.add_argument("destination", type=Path, help="file to write, named `xenward` where XAPI looks for it")
    parser.add_argument("--interpreter", default=INTERPRETER, help="Python that dom0 has (default: %(default)s)")
    parser.add_argument(
        "--bytecode",
        action="append",
        metavar="PYTHON",
        help="a Python on this machine of the version that dom0 has, for bytecode; it halves the plugin's start",
    )
    options = parser.parse_args()
    options.destination.parent.mkdir(parents=True, exist_ok=True)
    build(options.destination, options.interpreter, options.bytecode)


if __name__ == "__main__":
    main()
