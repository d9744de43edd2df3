"""The old protocol's conversations, for agents that know no other: all in the clear but weakly encrypted passwords."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from agent_protocol.legacy import HostExchange
from agent_protocol.messages import MessageError, Password, Reply, Request, encode_request, new_request_id, parse_reply
from agent_protocol.outcomes import Failed, Refused, Unknown, Unsuccessful, Unsupported, unsuccessful

from ...agents import LEGACY, AgentInfo
from ...files import InjectedFile
from .conversation import Conversation, unreachable
from .plugin import Answer

_CODES_OF_OLD_AGENTS = ("agent_error", "agent_unsupported")
"""What parse_reply makes of an error whose agent gave no code."""

_WINDOWS_COMMANDS = ("xentoolsupdate", "updaterupdate")
"""Features that only the existing clouds' Windows agent announces. It reads passwords as ASCII, sets question marks for
whatever else is in them, and answers success."""


def version(talk: Conversation) -> str:
    """The agent's version; waits for an agent that is not up yet."""
    return _ask(talk, Request("version", "agent")).message


def introduction(talk: Conversation) -> AgentInfo:
    """What the agent says of itself."""
    told = version(talk)
    try:
        features = _ask(talk, Request("features", "")).message
    except (Failed, Unsupported) as error:
        if error.code not in _CODES_OF_OLD_AGENTS:
            raise
        # The oldest agents do not know the question.
        features = ""
    return AgentInfo(told, tuple(name.strip() for name in features.split(",") if name.strip()), LEGACY)


def set_password(talk: Conversation, password: Password) -> None:
    """Set the administrator's password."""
    if not password.value.isascii() and set(_WINDOWS_COMMANDS) & set(introduction(talk).features):
        raise Unsupported("password_not_ascii", "the old Windows agent can set passwords of ASCII characters only")
    try:
        exchange = HostExchange()
        answer = _ask(talk, Request("keyinit", exchange.public))
        _order(talk, Request("password", exchange.seal(password.value, answer.message)))
    except Unsuccessful as error:
        raise _without(password.value, error) from None


def put_file(talk: Conversation, file: InjectedFile) -> None:
    """Put a file; Unsupported when the agent cannot give it the mode or owner that was asked for."""
    _order(talk, _file_request(file, introduction(talk).features))


def add_ssh_keys(talk: Conversation, keys: Sequence[str]) -> None:
    """Add keys to the administrator's; keys that are there stay."""
    if "ssh_keys" not in introduction(talk).features:
        raise Unsupported("ssh_keys_unsupported", "the agent cannot add SSH keys")
    _order(talk, Request("ssh_keys", json.dumps({"add": list(keys)})))


def reset_network(talk: Conversation) -> None:
    """Have the agent configure the network that stands in vm-data/networking.

    Unknown (`network_reset_unclear`) for an error: old agents of some systems answer 500 to a success as well.
    """
    try:
        _order(talk, Request("resetnetwork", ""))
    except Failed as error:
        if error.code != "agent_error":
            raise
        raise Unknown("network_reset_unclear", f"the old agent may have set the network: {error.message}") from None


def _ask(talk: Conversation, question: Request) -> Reply:
    try:
        return _read(question, talk.ask(new_request_id(), _encode(question)))
    except Unknown as error:
        raise unreachable(error) from None


def _order(talk: Conversation, order: Request) -> None:
    _read(order, talk.order(new_request_id(), _encode(order)))


def _encode(request: Request) -> str:
    try:
        return encode_request(request).decode("ascii")
    except MessageError as error:
        raise Refused("request_too_large", f"{request.name}: {error.message}") from None


def _read(request: Request, answer: Answer) -> Reply:
    try:
        # Half a surrogate pair, which JSON can spell, is left for the parser to find.
        reply = parse_reply(answer.value.encode("utf-8", "surrogatepass"))
    except MessageError as error:
        raise Unknown("bad_reply", f"the agent's answer to {request.name} cannot be read: {error.message}") from None
    reply.raise_unless_successful()
    return reply


def _without(secret: str, error: Unsuccessful) -> Unsuccessful:
    """The same error without the secret, which an agent's own words may repeat."""
    if secret not in error.message + error.code:
        return error
    return unsuccessful(error.outcome, error.code.replace(secret, "***"), error.message.replace(secret, "***"))


def _file_request(file: InjectedFile, features: tuple[str, ...]) -> Request:
    if "file_put" in features:
        return Request("file_put", file.to_command())
    if file.mode is not None or file.owner is not None:
        raise Unsupported("file_mode_unsupported", "the agent cannot set the mode or owner of a file")
    path, content = file.path.encode("utf-8"), base64.b64encode(file.content).decode("ascii")
    if "file_inject" in features:
        encoded = {"b64_path": base64.b64encode(path).decode("ascii"), "b64_file": content}
        return Request("file_inject", json.dumps(encoded, separators=(",", ":")))
    if "injectfile" not in features:
        raise Unsupported("file_unsupported", "the agent cannot take files")
    if b"," in path:
        raise Unsupported("file_path_unsupported", "the agent cannot take a file whose path holds a comma")
    return Request("injectfile", base64.b64encode(path + b"," + file.content).decode("ascii"))
