from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from guest_agent.system.windows.paths import MAX_PATH, DrivePath


@pytest.mark.parametrize(
    ("text", "plain", "directories"),
    [
        ("C:\\a.txt", "C:\\a.txt", ["C:\\"]),
        (
            "c:/Program Files/x/y.txt",
            "C:\\Program Files\\x\\y.txt",
            ["C:\\", "C:\\Program Files", "C:\\Program Files\\x"],
        ),
        ("D:\\\\a//b", "D:\\a\\b", ["D:\\", "D:\\a"]),
        ("C:\\.ssh\\..a", "C:\\.ssh\\..a", ["C:\\", "C:\\.ssh"]),
        (
            "C:\\gr\u00fc\u00df\\\u65e5\u672c \U0001f511",
            "C:\\gr\u00fc\u00df\\\u65e5\u672c \U0001f511",
            ["C:\\", "C:\\gr\u00fc\u00df"],
        ),
        ("C:\\" + "x" * 255, "C:\\" + "x" * 255, ["C:\\"]),
        ("C:\\console\\com\\com10\\nulls\\lpt\\conin", "C:\\console\\com\\com10\\nulls\\lpt\\conin", None),
        ("C:\\PROGRA~1\\a b.c d", "C:\\PROGRA~1\\a b.c d", None),
    ],
)
def test_paths(text: str, plain: str, directories: list[str] | None) -> None:
    path = DrivePath(text)
    assert path.text == plain
    assert path.extended == "\\\\?\\" + plain
    assert path.name == plain.rpartition("\\")[2]
    assert directories is None or path.directories == ["\\\\?\\" + directory for directory in directories]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.txt",
        "\\a.txt",
        "/etc/passwd",
        "C:",
        "C:\\",
        "C:/",
        "C:a.txt",
        "C:\\a\\",
        "C:\\a/",
        "\\\\server\\share\\a",
        "//server/share/a",
        "\\\\?\\C:\\a",
        "\\\\.\\C:\\a",
        "\\\\?\\UNC\\server\\share\\a",
        "\\??\\C:\\a",
        "1:\\a",
        "\u00c4:\\a",
        "CC:\\a",
        " C:\\a",
        "C:\\a:b",
        "C:\\a::$DATA",
        "C:\\a:b\\c",
        "C:\\..\\a",
        "C:\\a\\..\\b",
        "C:\\a\\..",
        "C:\\.\\a",
        "C:\\a\\.",
        "C:\\a.",
        "C:\\a ",
        "C:\\a.\\b",
        "C:\\a \\b",
        "C:\\...",
        "C:\\ ",
        "C:\\a\0b",
        "C:\\a\nb",
        "C:\\a\x7f",
        "C:\\a\x85",
        "C:\\a<b",
        "C:\\a>b",
        'C:\\a"b',
        "C:\\a|b",
        "C:\\a?b",
        "C:\\*.txt",
        "C:\\\ud800",
        "C:\\" + "x" * 256,
        "C:\\" + "\U0001f511" * 128,
        "C:\\" + "x" * 256 + "\\a",
        "C:\\con",
        "C:\\CON.txt",
        "C:\\a\\Nul",
        "C:\\a\\nul.tar.gz",
        "C:\\aux\\b",
        "C:\\prn .txt",
        "C:\\COM1",
        "C:\\com0.log",
        "C:\\LPT9",
        "C:\\COM\u00b9",
        "C:\\lpt\u00b3.txt",
        "C:\\COM\u00b2",
        "C:\\CONIN$",
        "C:\\conout$.txt",
        "C:\\clock$",
    ],
)
def test_paths_that_are_none(text: str) -> None:
    with pytest.raises(Refused) as caught:
        DrivePath(text)
    assert caught.value.code == "bad_path"


def test_the_longest_path() -> None:
    room = MAX_PATH - 1 - len("\\\\?\\C:\\")
    parts = ["x" * 255] * (room // 256)
    longest = "\\".join([*parts, "y" * (room - len("\\".join(parts)) - 1)])
    assert len(DrivePath("C:\\" + longest).extended) == MAX_PATH - 1
    with pytest.raises(Refused, match="at most 32762 characters"):
        DrivePath("C:\\" + longest + "y")


_PIECES = st.sampled_from(
    ["\\", "/", ":", ".", "..", " ", "C:", "c:", "nul", "COM1", "a", "\u00b9", "?", "\ud800", "\0"]
)


@given(st.one_of(st.text(max_size=40), st.lists(_PIECES, max_size=12).map("".join).map("C:\\".__add__)))
@example("C:\\a\\b")
def test_what_is_accepted_is_what_it_looks_like(text: str) -> None:
    try:
        path = DrivePath(text)
    except Refused as refused:
        assert refused.code == "bad_path"
        return
    assert re.fullmatch(r'[A-Z]:(\\[^<>:"/\\|?*\0-\x1f]+)+', path.text)
    assert not re.search(r"[. ](\\|$)", path.text)
    assert not re.search(r"\\(nul|com1)( *\.[^\\]*)?(\\|$)", path.text, re.IGNORECASE)
    assert DrivePath(path.text).text == path.text
    assert [directory.rstrip("\\") for directory in path.directories][-1] + "\\" + path.name == path.extended
