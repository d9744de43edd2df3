"""The one way in which a request to the simulated XenStore is turned down."""

from __future__ import annotations


class StoreError(Exception):
    """Raise when a request must be answered with an ERROR packet.

    errno: the name that travels, such as `ENOENT`. Nothing else of the request is kept: it may hold a secret.
    """

    def __init__(self, errno: str) -> None:
        super().__init__(errno)
        self.errno = errno
