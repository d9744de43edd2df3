"""Files below /etc/sysconfig: assignments of the shell, one a line."""

from __future__ import annotations

import re
from collections.abc import Mapping

_ASSIGNMENT = re.compile(r"^[ \t]*(?:export[ \t]+)?(\w+)=(.*)$", re.MULTILINE | re.ASCII)

_MARK = "  # by the xenward guest agent"


def foreign_values(content: bytes) -> dict[str, str]:
    """What is assigned by others than the agent, as values()."""
    return values(b"\n".join(line for line in content.split(b"\n") if not line.endswith(_MARK.encode())))


def values(content: bytes) -> dict[str, str]:
    """What is assigned, without quotes. Whatever the shell would have to work out stays as it is written."""
    found = {}
    for key, value in _ASSIGNMENT.findall(content.decode("utf-8", "replace")):
        quoted = re.match(r"""[ \t]*(?:"([^"]*)"|'([^']*)'|([^\s#;]*))""", value)
        found[key] = next((text for text in quoted.groups() if text is not None), "") if quoted else ""
    return found


def assignments(assigned: Mapping[str, str]) -> str:
    """The lines that assign these values, which hold neither quotes nor backslashes."""
    return "".join(f"{key}='{value}'\n" for key, value in assigned.items())


def with_values(content: bytes, assigned: Mapping[str, str]) -> bytes:
    """The file with these assignments, marked as the agent's: in the place of those that are there, or at the end.

    The rest stays as it is.
    """
    text = content.decode("utf-8", "surrogateescape")
    for key, value in assigned.items():
        line = f"{key}='{value}'{_MARK}"
        present = re.compile(rf"^[ \t]*{key}=(\"[^\"]*\"|'[^']*'|[^\n]*).*$", re.MULTILINE)
        if present.search(text):
            text = present.sub(line, text)
        else:
            text += ("" if not text or text.endswith("\n") else "\n") + line + "\n"
    return text.encode("utf-8", "surrogateescape")
