"""Event tokens that mean nothing any more, as when another host's database has taken over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..database import Database
from ..errors import ApiError
from ..subscriptions import Token


class EventTokens:
    """From when on tokens of event.from are good."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._latest_bad = -1

    def reset(self, pool: str) -> None:
        """Refuse all tokens that have been given out until now."""
        # Whatever is given out from now on is greater: touching an object consumes a generation.
        self._latest_bad = self._database.touch("pool", pool)

    def check_call(self, name: str, arguments: Mapping[str, Any]) -> None:
        """ApiError EVENT_FROM_TOKEN_PARSE_FAILURE for event.from with such a token."""
        token = arguments["token"] if name == "event.from" else ""
        if token and Token.parse(token).database <= self._latest_bad:
            raise ApiError("EVENT_FROM_TOKEN_PARSE_FAILURE", token)
