"""errors.py: whatever the simulator raises has a code that xapi has, with as many parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tools.simulator import errors, model

MODEL = model.load()

UNDOCUMENTED = {
    "CLIENT_ERROR",
    "EXTENSION_PROTOCOL_FAILURE",
    "Fault",
    "ONLY_PROVISION_TEMPLATE",
    "ONLY_REVERT_SNAPSHOT",
    "SR_BACKEND_FAILURE_44",
    "SR_BACKEND_FAILURE_46",
    "SR_BACKEND_FAILURE_47",
    "SR_BACKEND_FAILURE_68",
    "SR_BACKEND_FAILURE_79",
    "VDI_IO_ERROR",
    "VDI_IS_SHARABLE",
    "VM_IS_SNAPSHOT",
}
"""Codes that xapi raises although its list of errors does not have them."""

OTHERWISE = {
    # These have more parameters, or others, than the list says (ocaml/xapi raises them so).
    "DEVICE_ALREADY_ATTACHED",
    "DEVICE_ALREADY_DETACHED",
    "EVENTS_LOST",
    "HOST_NOT_LIVE",
    "INTERNAL_ERROR",
    "INVALID_VALUE",
    "NETWORK_ALREADY_CONNECTED",
    "NO_HOSTS_AVAILABLE",
    "OTHER_OPERATION_IN_PROGRESS",
    "SESSION_AUTHENTICATION_FAILED",
    "UUID_INVALID",
    "VDI_IN_USE",
    "VDI_MISSING",
    "VM_BAD_POWER_STATE",
    "VM_IS_TEMPLATE",
    "XENAPI_MISSING_PLUGIN",
    "XENAPI_PLUGIN_FAILURE",
}


def raised() -> Iterator[tuple[str, str, list[ast.expr]]]:
    for path in Path(errors.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "ApiError":
                yield f"{path.name}:{node.lineno}", str(node.args[0].value), node.args[1:]


def test_codes_and_parameters() -> None:
    found = list(raised())
    assert len(found) > 50
    for place, code, parameters in found:
        assert code in MODEL.errors or code in UNDOCUMENTED, (place, code)
        if any(isinstance(parameter, ast.Starred) for parameter in parameters) or code in OTHERWISE:
            continue
        if code in MODEL.errors:
            assert len(parameters) == len(MODEL.errors[code]), (place, code, MODEL.errors[code])
