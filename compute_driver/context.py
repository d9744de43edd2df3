"""Who asked for something, and under which number: travels with every call on the bus."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from agent_protocol.outcomes import Refused

_MAX_TEXT = 255


@dataclass(frozen=True)
class RequestContext:
    """request_id: `req-<uuid>`, the same in logs, audit trail and errors. user: who asked, as the caller says."""

    request_id: str
    user: str

    @classmethod
    def new(cls, user: str) -> RequestContext:
        """The context of a fresh request."""
        return cls(f"req-{uuid.uuid4()}", user)

    def to_dict(self) -> dict[str, str]:
        """For the bus."""
        return {"request_id": self.request_id, "user": self.user}

    @classmethod
    def from_dict(cls, untrusted: Mapping[str, object]) -> RequestContext:
        """From the bus; Refused when it is not of that form."""
        request_id, user = untrusted.get("request_id"), untrusted.get("user")
        if not isinstance(request_id, str) or not isinstance(user, str) or max(len(request_id), len(user)) > _MAX_TEXT:
            raise Refused("bad_context", "the caller's context needs a request_id and a user")
        return cls(request_id, user)
