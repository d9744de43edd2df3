"""Makes model.json from a complete extract of xapi's datamodel: names and types of every class, field and call.

python -m tools.simulator.extract_model complete-model.json
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from .model import EPOCH, NULL_REF, Model, generated_names, parse_type

_SHAPE = ("get_record", "get_by_uuid", "get_all", "get_by_name_label", "create", "destroy")
"""The generated calls that say what a class is; all others follow from these and from its fields."""

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
    """The facts of `complete` in the layout that model.Model reads.

    ValueError when two classes have different enums of one name, or when xapi generates other calls for a class than
    follow from its fields.
    """
    classes: dict[str, Any] = {}
    enums: dict[str, list[str]] = {}
    calls: dict[str, Any] = {}
    for name, source in complete["classes"].items():
        messages = source["messages"]
        for enum, values in source["enums"].items():
            if enums.setdefault(enum, values) != values:
                raise ValueError(f"there are two enums {enum}")
        generated = {call: facts for call, facts in messages.items() if facts["implicit"]}
        classes[name] = {
            "implicit": [call for call in _SHAPE if call in generated],
            "removed": [call for call, facts in generated.items() if facts["state"] == "Removed_s"],
            "fields": {
                field: [facts["type"], facts["qualifier"], *_default(facts)]
                for field, facts in source["fields"].items()
            },
        }
        for call, facts in messages.items():
            if not facts["implicit"] or call in ("create", "destroy"):
                parameters = [[given["name"], given["type"], *_default(given)] for given in facts["params"]]
                calls[f"{name}.{call}"] = [parameters, facts["result"], _flags(facts)]
    document = {
        "source": complete["source"],
        "classes": classes,
        "enums": dict(sorted(enums.items())),
        "calls": calls,
        "errors": complete["errors"],
        "relations": [item for item in complete["relations"] if _both_ends(complete["classes"], item)],
    }
    for cls in Model(document).classes.values():
        names = {call for call, facts in complete["classes"][cls.name]["messages"].items() if facts["implicit"]}
        if generated_names(cls) != names - {"create", "destroy"}:
            raise ValueError(f"{cls.name} has other generated calls than its fields say")
    return document


def _default(facts: dict[str, Any]) -> list[Any]:
    return [default_value(facts["default"], facts["type"])] if "default" in facts else []


def _flags(facts: dict[str, Any]) -> list[str]:
    marks = {
        "async": facts["async"],
        "no session": not facts["session"],
        "internal": facts["pool_internal"],
        "hidden": facts["hidden"],
        "removed": facts["state"] == "Removed_s",
    }
    return [name for name, holds in marks.items() if holds]


def _both_ends(classes: dict[str, Any], relation: list[str]) -> bool:
    # Some have an end that xapi keeps to itself; nobody outside sees such a relation.
    first, field, second, other_field = relation
    return field in classes[first]["fields"] and other_field in classes[second]["fields"]


def render(document: dict[str, Any]) -> str:
    """The text of model.json: one line for each field, enum, call, error and relation, so that changes can be read."""
    return _render(document, "") + "\n"


def _render(value: Any, indent: str) -> str:
    inner = indent + " "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{json.dumps(key)}: {_render(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and value and indent == " ":
        return "[\n" + ",\n".join(inner + json.dumps(item, ensure_ascii=False) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    extracted = extract(json.loads(Path(sys.argv[1]).read_text("utf-8")))
    Path(__file__).with_name("model.json").write_text(render(extracted), "utf-8")
