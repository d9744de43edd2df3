from __future__ import annotations

import pytest

from agent_protocol.outcomes import Outcome, Unsuccessful
from compute_driver import errors

EXAMPLES: list[tuple[Unsuccessful, Outcome, str]] = [
    (errors.InstanceNotFound("web"), Outcome.REFUSED, "instance_not_found"),
    (errors.InstanceExists("u"), Outcome.REFUSED, "instance_exists"),
    (errors.InstanceNameAmbiguous("web"), Outcome.REFUSED, "instance_name_ambiguous"),
    (errors.InstanceBusy("u", "rebooting"), Outcome.BUSY, "instance_busy"),
    (errors.InstanceStateRefused("u", "active", ["stopped", "error"]), Outcome.REFUSED, "instance_state"),
    (errors.DatabaseUnavailable(), Outcome.UNREACHABLE, "database_unavailable"),
    (errors.XenServerUnreachable("xen-1", "Connection refused"), Outcome.UNREACHABLE, "xenserver_unreachable"),
    (errors.XenServerAuthenticationFailed("xen-1"), Outcome.REFUSED, "xenserver_authentication_failed"),
    (errors.XenServerFailure(["VM_BAD_POWER_STATE", "r", "Halted"]), Outcome.FAILED, "xenserver_vm_bad_power_state"),
    (errors.XenServerFailure([]), Outcome.FAILED, "xenserver_internal_error"),
    (errors.XenServerCertificateMismatch("xen-1", "AB:CD"), Outcome.REFUSED, "xenserver_certificate_mismatch"),
    (errors.XenServerAnswerLost("VM.start"), Outcome.UNKNOWN, "xenserver_answer_lost"),
]


@pytest.mark.parametrize(("error", "outcome", "code"), EXAMPLES)
def test_each_error_is_an_outcome_with_a_fixed_code(error: Unsuccessful, outcome: Outcome, code: str) -> None:
    assert (error.outcome, error.code) == (outcome, code)
    assert error.message.endswith(".")
    assert str(error) == error.message


def test_errors_keep_what_they_are_about() -> None:
    assert errors.XenServerFailure(["A", "b"]).details == ("A", "b")
    assert str(errors.XenServerFailure(["VDI_IN_USE", "b", "copy"])) == "XenServer answered VDI_IN_USE: b, copy."
    refused = errors.InstanceStateRefused("u", "active", ["stopped", "error"])
    assert refused.wanted == ("stopped", "error")
    assert str(refused) == "Instance u is active; this needs it stopped or error."
    assert "()" not in str(errors.DatabaseUnavailable())


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("RBAC_PERMISSION_DENIED", Outcome.REFUSED),
        ("OPERATION_BLOCKED", Outcome.REFUSED),
        ("LICENCE_RESTRICTION", Outcome.REFUSED),
        ("MESSAGE_METHOD_UNKNOWN", Outcome.UNSUPPORTED),
        ("VM_LACKS_FEATURE", Outcome.UNSUPPORTED),
        ("SR_OPERATION_NOT_SUPPORTED", Outcome.UNSUPPORTED),
        ("OTHER_OPERATION_IN_PROGRESS", Outcome.BUSY),
        ("VDI_IN_USE", Outcome.BUSY),
        ("HOST_IS_SLAVE", Outcome.UNREACHABLE),
        ("HOST_IN_EMERGENCY_MODE", Outcome.UNREACHABLE),
        ("HOST_STILL_BOOTING", Outcome.UNREACHABLE),
        ("HOST_OFFLINE", Outcome.UNREACHABLE),
        ("HOST_NOT_LIVE", Outcome.UNREACHABLE),
        # The coordinator lost its connection to the host: perhaps after that had the call.
        ("CANNOT_CONTACT_HOST", Outcome.UNKNOWN),
        ("INTERNAL_ERROR", Outcome.FAILED),
        ("SOMETHING_NEW", Outcome.FAILED),
    ],
)
def test_the_outcome_of_what_xenserver_answers_is_that_of_its_code(code: str, outcome: Outcome) -> None:
    error = errors.answered([code, "x"])
    assert (error.outcome, error.code) == (outcome, f"xenserver_{code.lower()}")
    assert isinstance(error, errors.XenServerFailure)


@pytest.mark.parametrize("code", ["HANDLE_INVALID", "UUID_INVALID"])
def test_an_object_that_is_gone_has_an_error_of_its_own(code: str) -> None:
    error = errors.answered([code, "VM", "x"])
    assert isinstance(error, errors.ObjectGone)
    assert (error.outcome, error.details) == (Outcome.FAILED, (code, "VM", "x"))


SECRET = "hunter2"
SESSION = "OpaqueRef:0a1b2c3d-0000-1111-2222-333344445555"


@pytest.mark.parametrize(
    "details",
    [
        ["INTERNAL_ERROR", SECRET],
        ["XENAPI_PLUGIN_FAILURE", "non-zero exit", SECRET, SECRET],
        ["INVALID_VALUE", "field", SECRET],
        ["XMLRPC_UNMARSHAL_FAILURE", "string", f"<value>{SECRET}</value>"],
        ["SR_BACKEND_FAILURE_40", "", SECRET],
        ["SOMETHING_NEW", SECRET],
        ["SESSION_INVALID", SESSION],
        ["SESSION_AUTHORIZATION_FAILED", "root", SECRET],
        ["HANDLE_INVALID", "session", SESSION],
    ],
)
def test_what_may_be_secret_is_not_in_the_message(details: list[str]) -> None:
    error = errors.answered(details)
    assert SECRET not in str(error) and SESSION not in str(error)
    assert str(error).startswith(f"XenServer answered {details[0]}")
    assert error.details == tuple(details)


def test_what_is_harmless_is_in_the_message() -> None:
    assert str(errors.answered(["SOMETHING_NEW", SESSION, "x"])) == f"XenServer answered SOMETHING_NEW: {SESSION}, …."
    assert "Halted" in str(errors.answered(["VM_BAD_POWER_STATE", SESSION, "Running", "Halted"]))
