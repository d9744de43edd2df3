"""Build the dom0 plugin: one executable zip archive, `xenward`, that XAPI runs as it stands.

python -m tools.packages.dom0_plugin dist/xenward
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import agent_protocol
import dom0_plugins

INTERPRETER = "/usr/bin/python3"
"""The interpreter of every dom0 that is served: 3.6 in XenServer 8 and XCP-ng 8.3, later ones after that."""

_MODULES = {
    agent_protocol: ("__init__.py", "wire.py", "xenstore.py"),
    dom0_plugins: ("__init__.py", "__main__.py", "exchange.py", "xapi.py"),
}
_MAIN = b"from dom0_plugins.__main__ import main\n\nmain()\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def build(destination: Path, interpreter: str = INTERPRETER) -> None:
    """Write the plugin to `destination`, byte for byte the same for the same sources, with mode 0755."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as plugin:
        for package, names in _MODULES.items():
            folder = Path(package.__path__[0])
            for name in names:
                entry = zipfile.ZipInfo(f"{package.__name__}/{name}", _EPOCH)
                plugin.writestr(entry, (folder / name).read_bytes(), zipfile.ZIP_DEFLATED)
        plugin.writestr(zipfile.ZipInfo("__main__.py", _EPOCH), _MAIN)
    # Isolated and without site-packages: nothing of dom0's configuration changes what runs, and it starts in 20 ms.
    destination.write_bytes(f"#!{interpreter} -IS\n".encode() + archive.getvalue())
    destination.chmod(0o755)


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description="Build the dom0 plugin as one executable zip archive.")
    parser.add_argument("destination", type=Path, help="file to write, named `xenward` where XAPI looks for it")
    parser.add_argument("--interpreter", default=INTERPRETER, help="Python that dom0 has (default: %(default)s)")
    options = parser.parse_args()
    options.destination.parent.mkdir(parents=True, exist_ok=True)
    build(options.destination, options.interpreter)


if __name__ == "__main__":
    main()
