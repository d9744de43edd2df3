"""Reading what systemd-networkd and NetworkManager write: sections of `key=value`."""

from __future__ import annotations


def entries(content: bytes, section: str) -> dict[str, list[str]]:
    """The words of each key of a section; keys that stand there several times add up.

    Whatever is no section, key or value is passed over: this looks for what others configured, it judges nothing.
    """
    found: dict[str, list[str]] = {}
    inside = False
    for line in content.decode("utf-8", "replace").split("\n"):
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            inside = line[1:-1] == section
        elif inside and "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            found.setdefault(key.strip(), []).extend(value.split())
    return found
