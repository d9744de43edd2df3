from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_protocol.outcomes import Failed, Refused
from guest_agent.system.files import read_file, write_file
from guest_agent.system.paths import MAX_PATH, MAX_SYMLINKS, GuestPath

from ..conftest import names


@pytest.mark.parametrize(
    "text", ["", "f", "./f", "../f", "/", "/a/", "/a/.", "/a/..", "/a\0b", "/" + "a/" * 2047 + "aa", "/\ud800", "//"]
)
def test_bad_paths(text: str) -> None:
    with pytest.raises(Refused) as caught:
        GuestPath(text)
    assert caught.value.code == "bad_path"


def test_the_limit_is_named() -> None:
    assert GuestPath("/" + "ü" * 2047 + "x").name.endswith("x")
    with pytest.raises(Refused, match=f"at most {MAX_PATH} bytes, this one {MAX_PATH + 1}"):
        GuestPath("/" + "ü" * 2048)


def put(root: Path, path: str) -> None:
    write_file(str(root), GuestPath(path), b"new")


@pytest.mark.parametrize(
    ("link", "target", "path", "lands"),
    [
        ("abs", "/etc", "/abs/f", "etc/f"),
        ("etc/abs", "/srv", "/etc/abs/f", "srv/f"),
        ("rel", "etc/deep", "/rel/f", "etc/deep/f"),
        ("up", "../../../etc", "/up/f", "etc/f"),
        ("etc/back", "..", "/etc/back/f", "f"),
        ("new", "/made/here", "/new/f", "made/here/f"),
        ("x", ".", "/x/x/x//./f", "f"),
    ],
)
def test_links_are_followed_within_the_root(tmp_path: Path, link: str, target: str, path: str, lands: str) -> None:
    root = tmp_path / "root"
    (root / "etc/deep").mkdir(parents=True)
    (root / link).symlink_to(target)
    put(root, path)
    assert (root / lands).read_bytes() == b"new"
    assert names(tmp_path) == ["root"]


def test_dots_cannot_climb_out(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    put(tmp_path / "root", "/../../../../f")
    assert names(tmp_path / "root") == ["f"]


def test_chains_of_links(tmp_path: Path) -> None:
    (tmp_path / "end").mkdir()
    for number in range(MAX_SYMLINKS + 1):
        target = "end" if number == 0 else f"l{number - 1}"
        (tmp_path / f"l{number}").symlink_to(target)
    put(tmp_path, f"/l{MAX_SYMLINKS - 1}/f")
    with pytest.raises(Refused, match=f"more than {MAX_SYMLINKS} symbolic links"):
        put(tmp_path, f"/l{MAX_SYMLINKS}/g")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(Refused) as caught:
        put(tmp_path, "/loop/f")
    assert caught.value.code == "too_many_symlinks"


def test_a_file_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="'file' on the way is not a directory"):
        put(tmp_path, "/file/f")


def test_names_too_long_for_the_system(tmp_path: Path) -> None:
    with pytest.raises(Failed) as caught:
        put(tmp_path, "/" + "n" * 256)
    assert caught.value.code == "enametoolong"


_NAMES = st.sampled_from(["a", "b", "c", "d"])
_TARGETS = st.builds(
    lambda start, parts: start + "/".join(parts),
    st.sampled_from(["", "/", "../", "../../../", "/../"]),
    st.lists(st.one_of(_NAMES, st.sampled_from(["..", ".", "outside"])), min_size=1, max_size=4),
)


@settings(max_examples=150, deadline=None)
@given(
    farm=st.lists(st.tuples(st.lists(_NAMES, min_size=1, max_size=3), st.one_of(st.none(), _TARGETS)), max_size=12),
    paths=st.lists(
        st.lists(st.one_of(_NAMES, st.sampled_from(["..", ".", "", "outside"])), min_size=1, max_size=6), max_size=5
    ),
)
def test_no_path_escapes_a_farm_of_links(farm: list[tuple[list[str], str | None]], paths: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory(prefix="farm") as directory:
        root = Path(directory) / "x" / "root"
        outside = [Path(directory) / "outside", Path(directory) / "x" / "outside"]
        root.mkdir(parents=True)
        for trap in outside:
            trap.mkdir()
        for parts, target in farm:
            place = root.joinpath(*parts)
            # Directories only where they are real: the farm itself must not reach outside either.
            real = place.parent.is_dir() and os.path.realpath(place.parent) == str(place.parent)
            if real and not os.path.lexists(place):
                place.mkdir() if target is None else place.symlink_to(target)
        for parts in paths:
            path = GuestPath("/" + "/".join(parts) + "/leaf")
            with contextlib.suppress(Refused, Failed):
                write_file(str(root), path, b"new")
                assert read_file(str(root), path) == b"new"
        assert all(names(trap) == [] for trap in outside)
        assert names(Path(directory)) == ["outside", "x"]
        assert names(Path(directory) / "x") == ["outside", "root"]
