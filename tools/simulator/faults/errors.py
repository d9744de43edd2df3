"""What is raised when a test asks for a fault that cannot be, and what a fault does to an answer."""

from __future__ import annotations

from ..rpc import DecodeError


class FaultError(ValueError):
    """Raised when a fault cannot be made as it was asked for. The message says why, and holds no secret."""


class Dropped(EOFError):
    """Raised in a request whose connection is closed without an answer, as if the client had closed it."""


class Garbled(DecodeError):
    """Raised in the middle of a request that is answered with HTTP 500 and its page, as if it could not be read."""
