"""A guest's files as a dictionary, and renderers' changes carried out on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from guest_agent.network.data import NetworkData
from guest_agent.network.renderer import Change, Renderer
from guest_agent.system.paths import GuestPath

SAVED = ".xenward-saved"


class MemoryFiles:
    """Files by path. names() gives the names of directories too, as the guest's own does."""

    def __init__(self, contents: Mapping[str, bytes] | None = None) -> None:
        self.contents = dict(contents or {})
        self.modes: dict[str, int] = {}

    def read(self, path: GuestPath) -> bytes | None:
        return self.contents.get(path.text)

    def names(self, directory: GuestPath) -> Sequence[str]:
        start = directory.text + "/"
        return sorted({path[len(start) :].split("/")[0] for path in self.contents if path.startswith(start)})

    def apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.content is None:
                del self.contents[change.path.text]
            else:
                self.contents[change.path.text] = change.content
                self.modes[change.path.text] = change.mode

    def text(self, path: str) -> str:
        return self.contents[path].decode()


def rendered(
    renderer: Renderer, data: NetworkData, names: Mapping[str, str], before: Mapping[str, bytes] | None = None
) -> MemoryFiles:
    """The files after the renderer's changes. Each path is changed once, and all is said again the next time."""
    files = MemoryFiles(before)
    changes = renderer.render(data, names, files)
    paths = [change.path.text for change in changes]
    assert len(paths) == len(set(paths)), paths
    files.apply(changes)
    for change in renderer.render(data, names, files):
        assert files.read(change.path) == change.content, f"{change.path.text} changes the second time"
    return files


def tree(directory: Path) -> dict[str, bytes]:
    """The files below a directory, by their path from it."""
    return {
        "/" + str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }
