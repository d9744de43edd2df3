"""Requests and replies as they stand in XenStore: JSON in, frozen values out.

A host writes a request to `data/host/<id>`; the guest answers at `data/guest/<id>`. The envelope is that of the
existing agents, so old hosts can talk to our agent and our host to old agents; members they do not know
(`outcome`, `code`) are ignored by them.
"""

from __future__ import annotations

import json
import re
import unicodedata
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .outcomes import Outcome, Refused, Unsuccessful, unsuccessful

REQUESTS = "data/host"
"""Directory of requests, relative to the guest's domain; the host writes one child for each request id."""

REPLIES = "data/guest"
"""Directory of replies; the guest writes the child with the request's id."""

CLAIMS = "data/xenward/claims"
"""The agent's marks: a child with the request's id stands here while the agent works on that request."""

ADVERT = "data/xenward/agent"
"""Where an agent of ours tells that it is there, what it can do, and that it claims what it takes."""

MAX_VALUE = 2000
"""Bytes in one node: oxenstored refuses more than 2048 even to dom0, C xenstored a guest more than about 2015."""

MAX_PASSWORD = 256
"""Bytes of UTF-8 in a password: the most that Windows takes, and below PAM's 512."""

SUCCESS_CODES = ("0", "D0")
"""`returncode` of a success; `D0` is what agents answer to keyinit."""

UNKNOWN_COMMAND_CODE = "404"
"""`returncode` of the unix agents for a command that they do not know."""


_CODE = re.compile(r"[a-z0-9_]{0,64}\Z")


class MessageError(Refused):
    """Raised when a request, a reply or an advert breaks the protocol; says what is wrong, not what it held."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_request", message)


def has_control_characters(text: str) -> bool:
    """Whether a character of Unicode's category Cc is in `text`: line breaks, NUL, escape and their like."""
    return any(unicodedata.category(character) == "Cc" for character in text)


@dataclass(frozen=True)
class Password:
    """A password that may be sent to a guest: 1 to MAX_PASSWORD bytes of UTF-8, without control characters.

    A newline in it would end it early in old agents and in chpasswd. Its value never shows in repr or str.
    """

    value: str = field(repr=False)

    def __post_init__(self) -> None:
        try:
            size = len(self.value.encode("utf-8"))
        except UnicodeEncodeError:
            raise Refused("bad_password", "the password is not text that UTF-8 can hold") from None
        if not 1 <= size <= MAX_PASSWORD:
            raise Refused("bad_password", f"a password has 1 to {MAX_PASSWORD} bytes of UTF-8, this one {size}")
        if has_control_characters(self.value):
            raise Refused("bad_password", "a password cannot contain control characters")


@dataclass(frozen=True)
class Request:
    """One command for an agent: its name, and an argument whose form the command defines."""

    name: str
    value: str = field(repr=False)


@dataclass(frozen=True)
class Reply:
    """An agent's answer. returncode and message are the old protocol's, outcome and code say it precisely."""

    returncode: str
    message: str
    outcome: Outcome
    code: str = ""

    def raise_unless_successful(self) -> None:
        """Raise the error of agent_protocol.outcomes that this reply stands for, if it is no success."""
        if self.outcome is not Outcome.SUCCEEDED:
            raise unsuccessful(self.outcome, self.code or "agent_error", self.message or "the agent gave no reason")


@dataclass(frozen=True)
class Advert:
    """What one of our agents tells about itself at ADVERT.

    version: the agent's version. boot_id: new at each start of the agent. features: the commands it knows.
    """

    version: str
    boot_id: str
    features: tuple[str, ...]


def new_request_id() -> str:
    """A fresh request id: a UUID, because Windows agents ignore anything else."""
    return str(uuid.uuid4())


def encode_request(request: Request) -> bytes:
    """The node's value. MessageError when it would exceed MAX_VALUE."""
    value = _dumps({"name": request.name, "value": request.value})
    if len(value) > MAX_VALUE:
        raise MessageError(f"a request of {len(value)} bytes does not fit into one of {MAX_VALUE}")
    return value


def parse_request(untrusted_value: bytes) -> Request:
    """The request in a node's value; a missing `value` is the empty string. MessageError for anything else."""
    members = _loads(untrusted_value, "request")
    name, value = members.get("name"), members.get("value", "")
    if not isinstance(name, str) or not isinstance(value, str):
        raise MessageError("name and value of a request must be strings")
    return Request(name, value)


def encode_reply(reply: Reply) -> bytes:
    """The node's value, never longer than MAX_VALUE: the message is cut to fit. MessageError when that can't help."""
    message = reply.message
    while True:
        members = {"returncode": reply.returncode, "message": message, "outcome": str(reply.outcome)}
        if reply.code:
            members["code"] = reply.code
        value = _dumps(members)
        if len(value) <= MAX_VALUE:
            return value
        if not message:
            raise MessageError(f"a reply of {len(value)} bytes does not fit into one of {MAX_VALUE}")
        # ASCII JSON spends up to twelve bytes on a character, so this may take a few rounds, but it shrinks.
        message = message[: max(0, len(message) - max(1, (len(value) - MAX_VALUE) // 12))]


def parse_reply(untrusted_value: bytes) -> Reply:
    """The reply in a node's value, from any agent. MessageError when it is none.

    An agent of ours states the outcome. For the others it follows from returncode: SUCCESS_CODES succeeded,
    UNKNOWN_COMMAND_CODE unsupported, anything else failed. A stated success with an error's returncode (or the
    reverse) is no reply that can be believed.
    """
    members = _loads(untrusted_value, "reply")
    returncode, message = members.get("returncode"), members.get("message", "")
    if isinstance(returncode, bool) or not isinstance(returncode, (str, int)):
        raise MessageError("returncode of a reply must be a string or a number")
    if not isinstance(message, str):
        raise MessageError("message of a reply must be a string")
    returncode = str(returncode)
    # Old Windows agents end their messages with an escaped line break.
    message = message.removesuffix("\\r\\n").rstrip("\r\n")
    outcome = _outcome_of(returncode, members.get("outcome"))
    # What people and log files get to see must not steer a terminal or begin a new line.
    message = "".join(" " if has_control_characters(character) else character for character in message)
    code = members.get("code", "")
    if not isinstance(code, str) or not _CODE.match(code):
        raise MessageError("code of a reply must be a word of lower-case letters, digits and underscores")
    if outcome is not Outcome.SUCCEEDED and not code:
        code = "agent_unsupported" if outcome is Outcome.UNSUPPORTED else "agent_error"
    return Reply(returncode, message, outcome, code)


def _outcome_of(returncode: str, untrusted_outcome: object) -> Outcome:
    if untrusted_outcome is None:
        if returncode in SUCCESS_CODES:
            return Outcome.SUCCEEDED
        return Outcome.UNSUPPORTED if returncode == UNKNOWN_COMMAND_CODE else Outcome.FAILED
    try:
        outcome = Outcome(untrusted_outcome)
    except ValueError:
        raise MessageError("outcome of a reply is not one of the protocol's") from None
    if (outcome is Outcome.SUCCEEDED) is not (returncode in SUCCESS_CODES):
        raise MessageError("outcome and returncode of a reply contradict each other")
    return outcome


def reply_to_error(error: Unsuccessful) -> Reply:
    """The reply that carries an honest error back to the host."""
    returncode = UNKNOWN_COMMAND_CODE if error.outcome is Outcome.UNSUPPORTED else "500"
    return Reply(returncode, error.message, error.outcome, error.code)


def encode_advert(advert: Advert) -> bytes:
    """The node's value. MessageError when it would exceed MAX_VALUE."""
    value = _dumps({"version": advert.version, "boot_id": advert.boot_id, "features": list(advert.features)})
    if len(value) > MAX_VALUE:
        raise MessageError(f"an advert of {len(value)} bytes does not fit into one of {MAX_VALUE}")
    return value


def parse_advert(untrusted_value: bytes) -> Advert:
    """The advert in a node's value. MessageError when it is none."""
    members = _loads(untrusted_value, "advert")
    version, boot_id, features = members.get("version"), members.get("boot_id"), members.get("features")
    if not isinstance(version, str) or not isinstance(boot_id, str) or not isinstance(features, list):
        raise MessageError("an advert needs version, boot_id and features")
    if not all(isinstance(name, str) for name in features):
        raise MessageError("features of an advert must be strings")
    return Advert(version, boot_id, tuple(features))


def _dumps(members: Mapping[str, object]) -> bytes:
    # ASCII only: the Windows drivers refuse anything else in a XenStore value.
    return json.dumps(members, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _loads(untrusted_value: bytes, what: str) -> dict[str, Any]:
    try:
        members = json.loads(untrusted_value.decode("utf-8"))
    except (ValueError, RecursionError):
        raise MessageError(f"the {what} is not JSON") from None
    if not isinstance(members, dict):
        raise MessageError(f"the {what} is not a JSON object")
    return members
