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
    (errors.XenServerAnswerLost("VM.start"), Outcome.UNKNOWN, "xenserver_answer_lost"),
]


@pytest.mark.parametrize(("error", "outcome", "code"), EXAMPLES)
def test_each_error_is_an_outcome_with_a_fixed_code(error: Unsuccessful, outcome: Outcome, code: str) -> None:
    assert (error.outcome, error.code) == (outcome, code)
    assert error.message.endswith(".")
    assert str(error) == error.message


def test_errors_keep_what_they_are_about() -> None:
    assert errors.XenServerFailure(["A", "b"]).details == ("A", "b")
    assert str(errors.XenServerFailure(["A", "b"])) == "XenServer answered A: b."
    refused = errors.InstanceStateRefused("u", "active", ["stopped", "error"])
    assert refused.wanted == ("stopped", "error")
    assert str(refused) == "Instance u is active; this needs it stopped or error."
    assert "()" not in str(errors.DatabaseUnavailable())
