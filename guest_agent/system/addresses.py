"""The addresses of Linux's network interfaces, as the agent tells them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from . import netlink


def interface_addresses() -> Sequence[Mapping[str, str]]:
    """`interface` and `address` of each; without the loopback ones, and without IPv6's link-local ones.

    Empty when the kernel does not tell: they are a piece of information, not worth an error.
    """
    with contextlib.suppress(OSError):
        names = {link.index: link.name for link in netlink.links()}
        return [
            {"interface": names[found.index], "address": str(found.address.ip)}
            for found in netlink.addresses()
            if found.index in names and not _is_local(found)
        ]
    return []


def _is_local(found: netlink.LinkAddress) -> bool:
    return found.address.ip.is_loopback or (found.address.version == 6 and found.address.ip.is_link_local)
