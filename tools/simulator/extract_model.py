"""Makes model.json from a complete extract of xapi's datamodel: names and types of what the simulator serves.

    python -m tools.simulator.extract_model complete-model.json

The signatures that are kept are those of the calls that calls/ serves, so run it after adding one.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from .calls import HANDLERS
from .model import EPOCH, NULL_REF, parse_type

CLASSES = (
    "session",
    "pool",
    "host",
    "host_metrics",
    "VM",
    "VM_metrics",
    "VM_guest_metrics",
    "VBD",
    "VDI",
    "SR",
    "PBD",
    "VIF",
    "network",
    "PIF",
    "console",
    "task",
)

_IMPLICIT = ("get_all", "get_by_name_label", "create", "destroy")
_FLAT = r"[^\[\]{}]*"
_INNER = rf"(?:\[{_FLAT}\]|{{{_FLAT}}})"
_LIST = re.compile(rf"\[{_FLAT}(?:{_INNER}{_FLAT})*\]")
"""A list that holds nothing deeper than one list or object."""

_PAIR = re.compile(r'"([^"]*)" -> "([^"]*)"')


def default_value(text: str, type_name: str) -> Any:
    """The JSON form of a default that the complete model spells in OCaml's manner. ValueError when it is none."""
    kind = parse_type(type_name).kind
    if kind == "ref":
        return NULL_REF
    if kind == "map":
        return dict(_PAIR.findall(text))
    if kind == "set":
        return [int(item) if item.isdigit() else item for item in text.strip("{}").split(", ") if item]
    if kind in ("string", "enum", "datetime"):
        return text.strip('"') if kind != "datetime" or text != "Null" else EPOCH
    if kind == "bool":
        return {"true": True, "false": False}[text]
    return int(text) if kind == "int" else float(text)


def extract(complete: dict[str, Any]) -> dict[str, Any]:
    """The part of `complete` that is served, in the layout that model.Model reads."""
    classes: dict[str, Any] = {}
    enums: dict[str, list[str]] = {}
    calls: dict[str, Any] = {}
    for name in CLASSES:
        source = complete["classes"][name]
        messages = source["messages"]
        enums.update(source["enums"])
        classes[name] = {
            "implicit": [call for call in _IMPLICIT if call in messages and messages[call]["implicit"]],
            "fields": {
                field: [facts["type"], facts["qualifier"], *_default(facts)]
                for field, facts in source["fields"].items()
            },
        }
        for call, facts in messages.items():
            if f"{name}.{call}" in HANDLERS:
                parameters = [[given["name"], given["type"], *_default(given)] for given in facts["params"]]
                calls[f"{name}.{call}"] = [parameters, facts["result"], facts["session"]]
    relations = [item for item in complete["relations"] if item[0] in CLASSES and item[2] in CLASSES]
    return {
        "source": complete["source"],
        "classes": classes,
        "enums": dict(sorted(enums.items())),
        "calls": calls,
        "relations": relations,
    }


def _default(facts: dict[str, Any]) -> list[Any]:
    return [default_value(facts["default"], facts["type"])] if "default" in facts else []


def render(document: dict[str, Any]) -> str:
    """The text of model.json: one line for each field, enum and call, so that changes can be read."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return _LIST.sub(_one_line, text) + "\n"


def _one_line(match: re.Match[str]) -> str:
    return json.dumps(json.loads(match[0]), ensure_ascii=False)


if __name__ == "__main__":
    extracted = extract(json.loads(Path(sys.argv[1]).read_text("utf-8")))
    Path(__file__).with_name("model.json").write_text(render(extracted), "utf-8")
