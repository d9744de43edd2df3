"""model.py, extract_model.py and database.py: the datamodel and what is kept by its rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.simulator import errors, extract_model, model
from tools.simulator.calls import HANDLERS
from tools.simulator.database import Database
from tools.simulator.generic import generic_calls
from tools.simulator.model import NULL_REF, Type, generated_names, parse_type

MODEL = model.load()


@pytest.fixture
def database() -> Database:
    return Database(MODEL)


def test_types() -> None:
    assert parse_type("(string -> VDI ref) map") == Type("map", key=Type("string"), item=Type("ref", "VDI"))
    assert parse_type("enum vm_operations set") == Type("set", item=Type("enum", "vm_operations"))
    with pytest.raises(ValueError):
        parse_type("something")


def test_columns() -> None:
    columns = {cls: set(MODEL.classes[cls].columns) for cls in MODEL.classes}
    assert {"name__label", "memory__static_max", "VCPUs__max", "HVM__boot_policy", "PV__args"} <= columns["VM"]
    assert {"power_state", "is_control_domain", "uuid", "resident_on", "domid"} <= columns["VM"]
    assert "name_label" in columns["pool"]


def test_what_is_served_is_in_the_model() -> None:
    assert set(HANDLERS) <= set(generic_calls(MODEL))


def test_generated_calls_are_those_of_the_model() -> None:
    calls = set(generic_calls(MODEL))
    for cls in MODEL.classes.values():
        assert {f"{cls.name}.{name}" for name in generated_names(cls)} <= calls
    assert len(MODEL.classes) == 73
    assert sum(len(cls.fields) for cls in MODEL.classes.values()) == 922
    assert not {"event.get_id", "message.get_body", "data_source.get_value", "VM.set_uuid"} & calls


def test_both_ends_of_a_relation_of_many_to_many(database: Database) -> None:
    vm, group, other = database.create("VM"), database.create("VM_group"), database.create("VM_group")
    database.set("VM", vm, groups=[group])
    assert database.get("VM_group", group, "VMs") == [vm]
    database.add_to_set("VM_group", other, "VMs", vm)
    assert database.get("VM", vm, "groups") == [group, other]
    database.remove_from_set("VM", vm, "groups", group)
    assert database.get("VM_group", group, "VMs") == []
    database.destroy("VM", vm)
    assert database.get("VM_group", other, "VMs") == []


@pytest.mark.parametrize(
    ("text", "type_name", "value"),
    [
        ('""', "string", ""),
        ('"1.1"', "string", "1.1"),
        ("1.", "float", 1.0),
        ("true", "bool", True),
        ("Null", "VDI ref", NULL_REF),
        ("{0}", "int set", [0]),
        ("{}", "string set", []),
        ('{"a" -> "b", "port" -> "27000"}', "(string -> string) map", {"a": "b", "port": "27000"}),
        ("weekly", "enum telemetry_frequency", "weekly"),
    ],
)  # fmt: skip
def test_defaults(text: str, type_name: str, value: Any) -> None:
    assert extract_model.default_value(text, type_name) == value


def test_rendering_keeps_the_document() -> None:
    text = Path(model.__file__).with_name("model.json").read_text("utf-8")
    assert extract_model.render(json.loads(text)) == text


def test_both_ends_of_a_relation(database: Database) -> None:
    first, second = database.create("VM"), database.create("VM")
    vbd = database.create("VBD", VM=first)
    assert database.get("VM", first, "VBDs") == [vbd]
    database.set("VBD", vbd, VM=second)
    assert (database.get("VM", first, "VBDs"), database.get("VM", second, "VBDs")) == ([], [vbd])
    database.destroy("VBD", vbd)
    assert database.get("VM", second, "VBDs") == []
    database.set("VM", first, resident_on=NULL_REF)


def test_copies_out_and_in(database: Database) -> None:
    given = {"a": "1"}
    vm = database.create("VM", other_config=given)
    given["b"] = "2"
    database.get("VM", vm, "other_config")["c"] = "3"
    database.record("VM", vm)["other_config"]["d"] = "4"
    database.records("VM")[vm]["other_config"]["e"] = "5"
    assert database.get("VM", vm, "other_config") == {"a": "1"}
    assert database.get("VM", database.create("VM"), "other_config") == {}


def test_defaults_of_fields(database: Database) -> None:
    record = database.record("VM", database.create("VM"))
    assert record["power_state"] == "Halted"
    assert record["actions_after_crash"] == "destroy"
    assert record["affinity"] == NULL_REF
    assert record["generation_id"] == "0:0"


def test_unknown_objects(database: Database) -> None:
    vm = database.create("VM")
    for attempt in (
        lambda: database.get("VBD", vm, "VM"),
        lambda: database.destroy("VM", "x"),
        lambda: database.set("VM", "x", name_label="y"),
    ):
        with pytest.raises(errors.ApiError) as caught:
            attempt()
        assert caught.value.code == "HANDLE_INVALID"
    with pytest.raises(errors.ApiError):
        database.by_uuid("VM", vm)
