"""Who asked for something, and under which number: travels with every call on the bus."""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent_protocol.outcomes import Refused

_MAX_TEXT = 255
_ORDER_ID = re.compile(r"[A-Za-z0-9-]{1,64}\Z", re.ASCII)


@dataclass(frozen=True)
class RequestContext:
    """request_id: `req-<uuid>`, the same in logs, audit trail and errors. user: who asked, as the caller says.

    order_id: of one order within the request: whoever sends an order again under the same id has it carried out once.
    None for questions. expires: seconds since 1970 after which nobody wants the order any more; None for never.
    """

    request_id: str
    user: str
    order_id: str | None = None
    expires: float | None = None

    @classmethod
    def new(cls, user: str) -> RequestContext:
        """The context of a fresh request."""
        return cls(f"req-{uuid.uuid4()}", user)

    def for_order(self, order_id: str | None = None, *, seconds: float | None = None) -> RequestContext:
        """The context of an order within this request: a fresh one, or one that was sent before.

        seconds: how long from now somebody wants it.
        """
        expires = None if seconds is None else time.time() + seconds
        return replace(self, order_id=order_id or str(uuid.uuid4()), expires=expires)

    def check_expiry(self) -> None:
        """Refused when nobody wants the order any more: it lay on the bus for too long."""
        if self.expires is not None and time.time() > self.expires:
            raise Refused("order_expired", "the order came too late: its sender does not wait for it any more")

    def to_dict(self) -> dict[str, Any]:
        """For the bus."""
        return vars(self).copy()

    @classmethod
    def from_dict(cls, untrusted: Mapping[str, object]) -> RequestContext:
        """From the bus; Refused when it is not of that form."""
        if not isinstance(untrusted, Mapping):
            raise Refused("bad_context", "the caller's context needs a request_id and a user")
        request_id, user = untrusted.get("request_id"), untrusted.get("user")
        order_id, expires = untrusted.get("order_id"), untrusted.get("expires")
        if not isinstance(request_id, str) or not isinstance(user, str) or max(len(request_id), len(user)) > _MAX_TEXT:
            raise Refused("bad_context", "the caller's context needs a request_id and a user")
        if order_id is not None and (not isinstance(order_id, str) or not _ORDER_ID.match(order_id)):
            raise Refused("bad_context", "an order_id has 1 to 64 letters, digits and hyphens")
        if expires is not None and (
            isinstance(expires, bool) or not isinstance(expires, (int, float)) or math.isnan(expires)
        ):
            raise Refused("bad_context", "expires is a number of seconds")
        return cls(request_id, user, order_id, expires)
