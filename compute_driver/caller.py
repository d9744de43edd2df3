"""The caller's side of giving secrets to a guest: sealed to its agent's key before they leave this process.

With an agent that speaks only the old protocol, or that was never met, the compute service does it, and the bus carries
the secret.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent_protocol.hpke import open_box
from agent_protocol.messages import MessageError, Password
from agent_protocol.outcomes import Outcome, Refused, Unknown, Unsuccessful, Unsupported
from agent_protocol.sealed import SealedResult

from .agents import AgentInfo
from .context import RequestContext
from .files import InjectedFile
from .rpc import ComputeClient
from .sealing import (
    ATTEMPTS,
    GUEST_RESTARTED,
    SealedAnswer,
    SealedFailure,
    SealedRequest,
    after,
    asks_for_another,
    read_receipt,
)

_VALIDITY = 60.0
"""Seconds that the service may take before it hands a sealed request to the guest."""

PASSWORD_INFO = b"xenward 2 password\0"
"""HPKE info of a password that the guest made, before the user's name."""


class Caller:
    """Gives secrets to guests on behalf of one request."""

    def __init__(self, client: ComputeClient, context: RequestContext) -> None:
        self._client = client
        self._context = context

    def set_password(self, target: str, password: Password) -> None:
        """Set the administrator's password."""
        value = json.dumps({"value": password.value})
        if self._sealed(target, "set_admin_password", "password", value) is None:
            self._client.order(self._context, "set_admin_password", target=target, new_pass=password.value)

    def put_file(self, target: str, file: InjectedFile) -> None:
        """Put a file."""
        if self._sealed(target, "inject_file", "file_put", file.to_command()) is None:
            self._client.order(self._context, "inject_file", target=target, file=file.to_dict())

    def add_ssh_keys(self, target: str, keys: Sequence[str]) -> None:
        """Add keys to the administrator's."""
        if self._sealed(target, "add_ssh_keys", "ssh_keys", json.dumps({"add": list(keys)})) is None:
            self._client.order(self._context, "add_ssh_keys", target=target, keys=list(keys))

    def generate_password(self, target: str) -> str:
        """Have the guest make a password for its administrator; only this process can read it."""
        private = X25519PrivateKey.generate()
        recipient = {"hpke": base64.b64encode(private.public_key().public_bytes_raw()).decode("ascii")}
        made = self._generated(target, recipient)
        try:
            box = base64.b64decode(made["ciphertext"])
            # What no password can be is not for a terminal either.
            return Password(open_box(private, PASSWORD_INFO + made["user"].encode("utf-8"), box).decode("utf-8")).value
        except (Refused, AttributeError, KeyError, TypeError, ValueError):
            raise Unknown("bad_reply", "the password that the guest made cannot be read") from None

    def generate_password_for_rsa(self, target: str, keys: Sequence[str]) -> dict[str, str]:
        """Have the guest make a password and encrypt it to an `ssh-rsa` key: its user, and the ciphertext in base64."""
        if len(keys) != 1:
            raise Refused("bad_key", "one ssh-rsa public key is needed")
        made = self._generated(target, {"ssh_rsa": keys[0]})
        told = {name: made.get(name) for name in ("user", "ciphertext")}
        if not all(isinstance(text, str) and text for text in told.values()):
            raise Unknown("bad_reply", "the password that the guest made cannot be read")
        return {name: str(text) for name, text in told.items()}

    def _generated(self, target: str, recipient: dict[str, str]) -> dict[str, Any]:
        result = self._sealed(target, "generate_admin_password", "password_generate", json.dumps(recipient))
        if result is None:
            raise Unsupported("agent_not_sealed", "the guest's agent does not speak the sealed protocol")
        return dict(result.data)

    def _sealed(self, target: str, action: str, name: str, value: str) -> SealedResult | None:
        """How a sealed command ended that succeeded; None when the agent speaks only the old protocol."""
        agent = self._agent(target, action)
        if agent is None or agent.identity is None:
            return None
        identity = agent.identity
        try:
            return self._command(target, action, agent, identity, name, value)
        except Unknown as error:
            if error.code != GUEST_RESTARTED:
                raise
        try:
            # All of these commands do no harm when they are carried out twice.
            return self._command(target, action, self._agent(target, action) or agent, identity, name, value)
        except Unsuccessful as error:
            if error.outcome is Outcome.UNKNOWN:
                raise
            said = f"the guest restarted while it carried out the request; then: {error.message}"
            raise Unknown(GUEST_RESTARTED, said) from None

    def _command(
        self, target: str, action: str, agent: AgentInfo, identity: bytes, name: str, value: str
    ) -> SealedResult:
        attempts = 0
        while True:
            attempts += 1
            request = SealedRequest.seal(agent, agent.guest, name, value, timeout=_VALIDITY)
            answer = self._send(target, action, request)
            try:
                receipt = read_receipt(identity, agent.guest, request.request_id, answer.value)
            except MessageError:
                raise Unknown("unsigned_reply", "the answer is not signed by the guest's agent") from None
            if attempts < ATTEMPTS and asks_for_another(receipt):
                agent = after(agent, receipt)
                continue
            result = request.open(receipt, answer.value, answer.box)
            result.raise_unless_successful()
            return result

    def _agent(self, target: str, action: str) -> AgentInfo | None:
        told = self._client.ask(self._context, "get_agent", target=target, action=action)
        return AgentInfo.from_dict(told) if told else None

    def _send(self, target: str, action: str, request: SealedRequest) -> SealedAnswer:
        sealed = {"request_id": request.request_id, "value": request.value, "box": request.box}
        try:
            answer = self._client.order(self._context, "send_sealed", target=target, action=action, **sealed)
        except SealedFailure as failure:
            return failure.answer
        return SealedAnswer.from_dict(answer)
