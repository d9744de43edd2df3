"""Who may do what to a node: XenStore's permission lists.

Source of the rules: docs/misc/xenstore.txt of Xen, and what its two daemons do.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tools.simulator.xenstore.errors import StoreError

DOM0 = 0
"""The privileged domain. It may do everything."""

_WRITTEN = re.compile(rb"([nrwb])([0-9]{1,5})\Z")
"""A permission on the wire: none, read, write or both, and the domain it is for."""

_MAX_DOMID = 0xFFFF
"""domid_t has 16 bits."""


class Permission(NamedTuple):
    """One entry of a node's list. The first names the owner and what everybody else may do."""

    access: str
    domid: int


Permissions = tuple[Permission, ...]
"""A node's list. It is never empty."""


def parse(untrusted_permission: bytes) -> Permission:
    """The entry that `untrusted_permission`, such as `r7`, stands for. StoreError EINVAL when it is none."""
    match = _WRITTEN.match(untrusted_permission)
    if not match or int(match[2]) > _MAX_DOMID:
        raise StoreError("EINVAL")
    return Permission(match[1].decode("ascii"), int(match[2]))


def may_read(permissions: Permissions, domid: int) -> bool:
    """Whether the domain may read a node with this list."""
    return _access(permissions, domid) in "rb"


def may_write(permissions: Permissions, domid: int) -> bool:
    """Whether the domain may change or remove such a node, and create nodes below it."""
    return _access(permissions, domid) in "wb"


def may_own(permissions: Permissions, domid: int) -> bool:
    """Whether the domain may change the list itself."""
    return domid in (DOM0, permissions[0].domid)


def of_new_node(parent: Permissions, creator: int) -> Permissions:
    """What a new node starts with: its parent's list, but a guest owns what it creates.

    What dom0 creates keeps the parent's owner, and so counts towards the quota of the guest that owns the parent.
    """
    if creator == DOM0:
        return parent
    return (Permission(parent[0].access, creator), *parent[1:])


def _access(permissions: Permissions, domid: int) -> str:
    if may_own(permissions, domid):
        return "b"
    for permission in permissions[1:]:
        if permission.domid == domid:
            return permission.access
    return permissions[0].access
