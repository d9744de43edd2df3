"""What the bus offers, and what it makes of arguments that are not as they should be."""

from __future__ import annotations

import inspect
import json
import logging
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.messages import Password
from agent_protocol.outcomes import Outcome, Refused
from compute_driver.db.records import Action
from compute_driver.errors import OrderKnown
from compute_driver.manager import ComputeManager

from ..bench import SEALED_VALUE, Bench
from .methods import METHODS, NEW, OF_THE_SERVICE, ORDERS, WEB

CALLER = {"request_id": "req-1", "user": "ada"}
SECRET = "hunter2-in-an-argument"
SEALED = {"request_id": "id", "value": SEALED_VALUE, "box": ""}


def endpoint_of(manager: Any) -> Any:
    from compute_driver.rpc import ComputeEndpoint

    return ComputeEndpoint(manager)


def public(it: type) -> set[str]:
    return {name for name, member in inspect.getmembers(it, inspect.isfunction) if not name.startswith("_")}


def test_everything_that_a_caller_needs_is_offered() -> None:
    from compute_driver.rpc import ComputeEndpoint

    assert public(ComputeEndpoint) == set(METHODS)
    assert public(ComputeManager) - OF_THE_SERVICE == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_arguments_are_those_of_the_manager(method: str) -> None:
    from compute_driver.rpc import ComputeEndpoint

    offered = set(inspect.signature(getattr(ComputeEndpoint, method)).parameters) - {"self", "context", "_context"}
    known = set(inspect.signature(getattr(ComputeManager, method)).parameters) - {"self", "context"}
    assert offered == known
    assert set(METHODS[method]) == offered


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=5,
)
CALLS = st.sampled_from(sorted(METHODS)).flatmap(
    lambda method: st.tuples(
        st.just(method), st.sampled_from([*METHODS[method], "more"]), JSON | st.sampled_from(list(NEW.values()))
    )
)
NUMBERS = {"memory_mb", "vcpus", "root_gb"}
"""These are checked by the manager itself, since it records the order first."""


@given(CALLS)
def test_any_argument_is_answered_and_what_gets_through_is_of_its_type(call: tuple[str, str, Any]) -> None:
    method, name, value = call
    manager = Mock(spec=ComputeManager)
    manager.get_instance.return_value = manager.get_devices.return_value = ()
    answer = getattr(endpoint_of(manager), method)(CALLER, **{**METHODS[method], name: value})
    if not manager.method_calls:
        assert answer["error"]["outcome"] == "refused", answer
        json.dumps(answer)
        return
    assert name in METHODS[method]
    ((_, positional, named),) = manager.method_calls
    expected = {it.name: it for it in inspect.signature(getattr(ComputeManager, method)).parameters.values()}
    given_names = [it for it in expected if it not in ("self",)]
    for each, passed in {**dict(zip(given_names, positional)), **named}.items():
        assert _is_of(expected[each].annotation, passed) or each in NUMBERS, (each, passed)


def _is_of(annotation: str, value: Any) -> bool:
    simple = {"str": str, "bool": bool, "float": float, "Password": Password}
    if annotation.endswith(" | None"):
        return value is None or _is_of(annotation.removesuffix(" | None"), value)
    return not (annotation in simple and type(value) is not simple[annotation])


@pytest.mark.parametrize("method", METHODS)
def test_missing_and_unknown_arguments_are_refused(method: str) -> None:
    manager = Mock(spec=ComputeManager)
    endpoint = endpoint_of(manager)
    signature = inspect.signature(getattr(type(endpoint), method))
    needed = [it.name for it in signature.parameters.values() if it.default is it.empty and it.kind is it.KEYWORD_ONLY]
    calls = [{**METHODS[method], "more": SECRET}]
    calls += [{key: value for key, value in METHODS[method].items() if key != name} for name in needed]
    for arguments in calls:
        answer = getattr(endpoint, method)(CALLER, **arguments)
        assert (answer["error"]["outcome"], answer["error"]["code"]) == ("refused", "bad_argument")
        assert SECRET not in str(answer)
    assert manager.method_calls == []


@given(JSON)
def test_any_context_is_answered(context: Any) -> None:
    manager = Mock(spec=ComputeManager)
    answer = endpoint_of(manager).start_instance(context, target="web")
    if manager.method_calls:
        assert answer == {"result": None} or "error" in answer
        assert isinstance(context["request_id"], str)
    else:
        assert answer["error"]["code"] == "bad_context"


@pytest.mark.parametrize("method", ORDERS)
def test_without_a_context_nothing_is_done(endpoint: Any, served: Bench, method: str) -> None:
    for context in (None, "ada", 7, [], {}, {"user": "ada"}, {"request_id": "r" * 256, "user": "ada"}):
        answer = getattr(endpoint, method)(context, **ORDERS[method])
        assert (answer["error"]["outcome"], answer["error"]["code"]) == ("refused", "bad_context")
    assert (served.asked, served.repository.list_actions()) == ([], [])


WRONG: list[dict[str, Any]] = [
    {"display_name": 7},
    {"display_name": None},
    {"display_name": "half \ud800 a pair"},
    {"memory_mb": "64"},
    {"memory_mb": None},
    {"memory_mb": 64.5},
    {"memory_mb": True},
    {"memory_mb": 2**80},
    {"vcpus": 2**40},
    {"root_gb": []},
    {"admin_password": 7},
    {"injected_files": 7},
    {"injected_files": ""},
    {"injected_files": SECRET},
    {"injected_files": [None]},
    {"ssh_keys": 7},
    {"ssh_keys": SECRET},
    {"ssh_keys": [7]},
    {"interfaces": [7]},
    {"interfaces": [*NEW["interfaces"], *NEW["interfaces"]]},
    {"volumes": [{"id": "volume-1"}]},
    {"config_drive": {"openstack/latest/x": "not base64!"}},
    {"metadata": {"role": 7}},
    {"power_on": 1},
    {"instance_uuid": "web"},
    {"instance_uuid": ""},
]

MALFORMED: list[tuple[str, dict[str, Any]]] = [
    ("set_admin_password", {**WEB, "new_pass": None}),
    ("set_admin_password", {**WEB, "new_pass": [SECRET]}),
    ("set_admin_password", {**WEB, "new_pass": SECRET + "\n"}),
    ("set_admin_password", {**WEB, "new_pass": "\ud800" + SECRET}),
    ("set_admin_password", {"target": 7, "new_pass": SECRET}),
    ("set_admin_password", {"target": ["web"], "new_pass": SECRET}),
    ("inject_file", {**WEB, "file": SECRET}),
    ("inject_file", {**WEB, "file": None}),
    ("inject_file", {**WEB, "file": {"path": "/a", "content": SECRET}}),
    ("inject_file", {**WEB, "file": {"path": "/a", "content": "aGVsbG8"}}),
    ("inject_file", {**WEB, "file": {"path": "/a", "content": "aGVs\u00e4"}}),
    ("inject_file", {**WEB, "file": {"path": None, "content": "aGVsbG8="}}),
    ("inject_file", {**WEB, "file": {"path": "/a", "content": "aGVsbG8=", "mode": "0644"}}),
    ("inject_file", {**WEB, "file": {"path": "/a", "content": "aGVsbG8=", "mode": -1}}),
    ("inject_file", {**WEB, "file": {"path": "/a", "content": "aGVsbG8=", "mode": 0o10000}}),
    ("inject_file", {**WEB, "file": {"path": "/a", "content": "aGVsbG8=", "mode": True}}),
    ("inject_file", {**WEB, "file": {"path": "/a", "content": "aGVsbG8=", "owner": 0}}),
    ("add_ssh_keys", {**WEB, "keys": SECRET}),
    ("add_ssh_keys", {**WEB, "keys": [7]}),
    ("send_sealed", {**WEB, **SEALED, "action": ["inject_file"]}),
    ("send_sealed", {**WEB, **SEALED, "action": SECRET}),
    ("send_sealed", {**WEB, **SEALED, "action": "inject_file", "value": SECRET}),
    ("send_sealed", {**WEB, **SEALED, "action": "inject_file", "value": {"name": SECRET}}),
    ("send_sealed", {**WEB, **SEALED, "action": "inject_file", "box": [SECRET]}),
    ("get_agent", {**WEB, "action": []}),
    ("reboot_instance", {**WEB, "reboot_type": ["HARD"]}),
    ("reboot_instance", {**WEB, "reboot_type": "soft"}),
    ("stop_instance", {**WEB, "timeout": -1}),
    ("stop_instance", {**WEB, "timeout": float("nan")}),
    ("terminate_instance", {"target": {}}),
    ("terminate_instance", {"target": "\0"}),
    ("resize_instance", {**WEB, "memory_mb": 0, "vcpus": 1, "root_gb": 1}),
    ("attach_volume", {**WEB, "volume": {"id": SECRET}}),
    ("attach_interface", {**WEB, "interface": SECRET}),
    ("change_instance_metadata", {**WEB, "diff": {"role": ["+"]}}),
    *(("build_and_run_instance", {**NEW, "display_name": "new", **wrong}) for wrong in WRONG),
]


@pytest.mark.parametrize(("method", "arguments"), MALFORMED)
def test_malformed_arguments_are_answered_and_change_nothing(
    endpoint: Any, served: Bench, caplog: pytest.LogCaptureFixture, method: str, arguments: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG)
    before = served.record(uuid="uuid-web")
    answer = getattr(endpoint, method)(CALLER, **arguments)
    assert answer["error"]["outcome"] == "refused", answer
    assert SECRET not in str(answer)
    assert SECRET not in caplog.text
    assert served.driver.steering.calls == []
    assert served.repository.list_instances() == [before]


# Orders that were given before


def known(outcome: Outcome | None) -> OrderKnown:
    members: dict[str, Any] = dict.fromkeys(Action.__dataclass_fields__)
    members.update(order_id="order-1", outcome=outcome, code="some_code", message="some words")
    return OrderKnown(Action(**members))


@pytest.mark.parametrize("outcome", [None, *Outcome])
def test_a_repeated_order_is_told_its_end(outcome: Outcome | None) -> None:
    manager = Mock(spec=ComputeManager)
    manager.start_instance.side_effect = known(outcome)
    answer = endpoint_of(manager).start_instance(CALLER, target="web")["error"]
    expected = {None: ("busy", "order_in_flight"), Outcome.SUCCEEDED: ("refused", "order_succeeded")}
    assert (answer["outcome"], answer["code"]) == expected.get(outcome, (str(outcome), "some_code"))
    if outcome not in expected:
        assert answer["message"] == "some words"


def test_an_error_that_nobody_foresaw_tells_nothing_of_what_it_held(caplog: pytest.LogCaptureFixture) -> None:
    manager = Mock(spec=ComputeManager)
    manager.start_instance.side_effect = RuntimeError(SECRET)
    answer = endpoint_of(manager).start_instance(CALLER, target="web")
    assert (answer["error"]["outcome"], answer["error"]["code"]) == ("unknown", "internal_error")
    assert SECRET not in str(answer) + caplog.text
    assert "RuntimeError" in caplog.text


def test_a_refusal_is_told_as_it_is() -> None:
    manager = Mock(spec=ComputeManager)
    manager.start_instance.side_effect = Refused("some_code", "some words")
    answer = endpoint_of(manager).start_instance(CALLER, target="web")
    assert answer == {"error": {"outcome": "refused", "code": "some_code", "message": "some words"}}
