"""How anything that was asked of a guest can end: a closed set, used from the guest to the operator's terminal.

The set is the heart of xenward's promise that what it says happened, happened. A timeout after delivery, for
one, is neither success nor failure: it is `unknown`, and says so in every log, table and exit status.

Needs nothing but the standard library.
"""

from __future__ import annotations

import enum


class Outcome(str, enum.Enum):
    """The end of one request. The values are stable: they are stored, sent and printed."""

    SUCCEEDED = "succeeded"
    """The effect was seen to happen."""
    REFUSED = "refused"
    """A rule forbids it (a policy, a state, a missing object); nothing was changed."""
    UNSUPPORTED = "unsupported"
    """The other side does not know how to do this; nothing was changed."""
    BUSY = "busy"
    """Something else holds the guest's or the instance's turn; nothing was changed, try again later."""
    FAILED = "failed"
    """It was tried and went wrong."""
    UNREACHABLE = "unreachable"
    """Nothing was delivered, so nothing was changed."""
    UNKNOWN = "unknown"
    """It was delivered and no answer came: it may or may not have happened."""

    def __str__(self) -> str:
        return self.value


class Unsuccessful(Exception):
    """The root of every error that is an honest answer. Raise one of the subclasses below.

    code: a stable word for machines, lower case with underscores, such as `agent_silent`.
    message: one sentence for people. It never holds a secret: not a password, not a key, not file content.
    """

    outcome = Outcome.FAILED

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class Refused(Unsuccessful):
    """Raise when a rule forbids it and nothing was changed; give the rule's own words."""

    outcome = Outcome.REFUSED


class Unsupported(Unsuccessful):
    """Raise when the other side lacks the command or the option, and nothing was changed."""

    outcome = Outcome.UNSUPPORTED


class Busy(Unsuccessful):
    """Raise when another operation holds the turn, and nothing was changed."""

    outcome = Outcome.BUSY


class Failed(Unsuccessful):
    """Raise when it was tried and went wrong."""

    outcome = Outcome.FAILED


class Unreachable(Unsuccessful):
    """Raise only when it is certain that nothing was delivered."""

    outcome = Outcome.UNREACHABLE


class Unknown(Unsuccessful):
    """Raise when it was delivered and no trustworthy answer came."""

    outcome = Outcome.UNKNOWN


_BY_OUTCOME: dict[Outcome, type[Unsuccessful]] = {
    error.outcome: error for error in (Refused, Unsupported, Busy, Failed, Unreachable, Unknown)
}


def unsuccessful(outcome: Outcome, code: str, message: str) -> Unsuccessful:
    """The error that stands for `outcome`, which must not be SUCCEEDED (a KeyError otherwise)."""
    return _BY_OUTCOME[outcome](code, message)
