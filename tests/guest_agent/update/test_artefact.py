from __future__ import annotations

import io
import re
import stat
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from guest_agent.update import artefact as module
from guest_agent.update.artefact import MANIFEST, read_artefact

from .agents import manifest, pack, small_agent

FILES = small_agent("1.3.0")
GOOD = pack(FILES, manifest("1.3.0"))


def refused(content: bytes) -> str:
    with pytest.raises(Refused) as caught:
        read_artefact(content)
    assert caught.value.code == "bad_artefact"
    return caught.value.message


def test_a_good_one() -> None:
    read = read_artefact(pack(FILES, manifest("1.3.0", python=">=3.10", minimum="1.0.0", later="ignored")))
    assert (read.version, read.python, read.minimum) == ("1.3.0", 10, (1, 0, 0))
    assert read.files == FILES


@pytest.mark.parametrize(
    "name",
    [
        "/etc/cron.d/job.py",
        "../guest_agent/x.py",
        "guest_agent/../../x.py",
        "guest_agent/./x.py",
        "guest_agent//x.py",
        "guest_agent\\x.py",
        "guest_agent/x.so",
        "guest_agent/x.pth",
        "guest_agent/x.py\n",
        "guest_agent/X.py",
        "guest_agent/ünicode.py",
        "guest_agent/x y.py",
        "guest_agent.py",
        "sitecustomize.py",
        "os/path.py",
        "guest_agent/",
        "guest_agent/x/",
        "guest_agent/" + "x/" * 5 + "x.py",
        "guest_agent/" + "x" * 65 + ".py",
        "",
    ],
)
def test_names(name: str) -> None:
    assert "no module of the agent's" in refused(pack({**FILES, name: b""}, manifest("1.3.0")))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_only_regular_files(kind: int) -> None:
    content = pack({**FILES, "guest_agent/x.py": b"/etc/shadow"}, manifest("1.3.0"), {"guest_agent/x.py": kind})
    assert "not a regular file" in refused(content)


@pytest.mark.parametrize("name", ["agent_protocol/__init__.py", "guest_agent/__init__.py", "guest_agent/launch.py"])
def test_what_must_be_there(name: str) -> None:
    files = {other: content for other, content in FILES.items() if other != name}
    assert f"{name} is missing" in refused(pack(files, manifest("1.3.0")))


@pytest.mark.parametrize(
    "manifest",
    [
        None,
        b"",
        b"[]",
        b"[" * 5000,
        manifest("1.3"),
        manifest("01.3.0"),
        manifest("1.3.0\n"),
        manifest("1.3.0", python="3.9"),
        manifest("1.3.0", python=">=4.0"),
        manifest("1.3.0", python=None),
        manifest("1.3.0", minimum="*"),
        manifest("1.3.0", minimum=0),
        b'{"version":"1.3.0","python":">=3.9"}',
    ],
)
def test_manifests(manifest: bytes | None) -> None:
    refused(pack(FILES, manifest))


def test_one_name_twice() -> None:
    file = io.BytesIO(GOOD)
    with pytest.warns(UserWarning), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("guest_agent/launch.py", "")
    assert "twice" in refused(file.getvalue())


def test_bombs() -> None:
    many = {f"guest_agent/x{number}.py": b"" for number in range(module.MAX_FILES)}
    assert "more than 500 files" in refused(pack({**FILES, **many}, manifest("1.3.0")))
    large = {"guest_agent/x.py": b"#" * (module.MAX_FILE_SIZE + 1)}
    assert "more than 1048576 bytes" in refused(pack({**FILES, **large}, manifest("1.3.0")))
    total = {f"guest_agent/x{number}.py": b"#" * module.MAX_FILE_SIZE for number in range(17)}
    assert "more than 16777216 bytes" in refused(pack({**FILES, **total}, manifest("1.3.0")))


def test_a_bomb_that_lies_about_its_size() -> None:
    size = (16 * module.MAX_FILE_SIZE).to_bytes(4, "little")
    content = pack({**FILES, "guest_agent/x.py": bytes(16 * module.MAX_FILE_SIZE)}, manifest("1.3.0"))
    assert content.count(size) == 2
    read = None
    try:
        read = read_artefact(content.replace(size, (10).to_bytes(4, "little")))
    except Refused as error:
        assert error.code == "bad_artefact"
    assert read is None


def test_less_than_an_entry_says() -> None:
    size, more = (54321).to_bytes(4, "little"), (54322).to_bytes(4, "little")
    content = pack({**FILES, "guest_agent/x.py": b"#" * 54321}, manifest("1.3.0"))
    assert content.count(size) == 2
    assert "has not the size that it says" in refused(content.replace(size, more))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing(method: int) -> None:
    file = io.BytesIO(GOOD)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("guest_agent/x.py", b"", method)
    assert "another way" in refused(file.getvalue())


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_garbage(content: bytes) -> None:
    refused(content)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=5),
    st.integers(0, 20),
)
def test_damage_is_refused_or_harmless(changes: list[tuple[int, bytes]], cut: int) -> None:
    damaged = bytearray(GOOD)
    for place, replacement in changes:
        damaged[place : place + len(replacement)] = replacement
    try:
        read = read_artefact(bytes(damaged[: len(damaged) - cut]))
    except Refused as error:
        assert error.code == "bad_artefact"
    else:
        # What the checksums of the zip file do not cover: times, comments, and names, as long as they are modules'.
        assert all(re.fullmatch(r"(agent_protocol|guest_agent)/[a-z_0-9/]+\.py", name) for name in read.files)
        assert set(read.files.values()) <= set(FILES.values())
        assert MANIFEST not in read.files


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=30), st.binary(max_size=30), max_size=4))
def test_names_that_nobody_thought_of(names: dict[str, bytes]) -> None:
    try:
        read = read_artefact(pack({**FILES, **names}, manifest("1.3.0")))
    except (Refused, UnicodeEncodeError):
        return
    assert set(read.files) - set(FILES) <= {name for name in names if re.fullmatch(r"\w+/[\w/]+\.py", name)}
