"""What stands for dom0's file system in a plugin's Python: connections to xapi's socket reach the simulated one.

lay_out() of local_api.py puts this file as `sitecustomize` on the PYTHONPATH of the plugins that a simulated dom0 runs.
Plugin and SDK are unchanged; only a program that connects in another way than by Python's `socket` finds nothing at
that path. Every process that inherits the variable is of the same dom0, so for it the same is right. It imports nothing
that the interpreter has not imported already, and runs in every Python from 3.6 on.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    # At run time it would take longer than all of this.
    from typing import Any

WELL_KNOWN_PATH = "/var/lib/xcp/xapi"
"""Where xapi listens in every dom0."""

_DIRECTORY = __file__.rpartition("/")[0]
_SOCKET = _DIRECTORY.rpartition("/")[0] + "/xapi"


def _translated(address: "Any") -> "Any":
    return _SOCKET if address in (WELL_KNOWN_PATH, os.fsencode(WELL_KNOWN_PATH)) else address


def redirect(module: "Any") -> None:
    """Let the sockets of the module `socket` lead to where the simulated API listens."""
    connect, connect_ex = module.socket.connect, module.socket.connect_ex
    module.socket.connect = lambda self, address: connect(self, _translated(address))
    module.socket.connect_ex = lambda self, address: connect_ex(self, _translated(address))


class _Loader:
    """Loads `socket` as its own loader does, and redirects it."""

    def __init__(self, loader: "Any") -> None:
        self._loader = loader

    def create_module(self, spec: "Any") -> "Any":
        return self._loader.create_module(spec)

    def exec_module(self, module: "Any") -> None:
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        redirect(module)


class _Finder:
    """Waits for `socket` to be imported: most plugins never do, and it would take milliseconds of their start."""

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name != "socket":
            return None
        sys.meta_path.remove(self)
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path)
        spec: Any = next(filter(None, specs), None)
        if spec is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def _run_hidden() -> None:
    """Run the machine's own `sitecustomize`, which this one hides."""
    elsewhere = [entry for entry in sys.path if entry != _DIRECTORY]
    spec = sys.modules["_frozen_importlib_external"].PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(sys.modules["_frozen_importlib"].module_from_spec(spec))


if __name__ == "sitecustomize":
    if "socket" in sys.modules:
        redirect(sys.modules["socket"])
    else:
        sys.meta_path.insert(0, _Finder())
    _run_hidden()
