"""The nodes of the simulated XenStore, and what each operation does to them. No wire, no clients, no clock.

Nodes are immutable, and a change builds a new spine up to the root: a snapshot costs nothing, and neither does
throwing one away. Every operation either succeeds as a whole or raises StoreError and changes nothing.

Where the two real daemons differ, the stricter one is followed, so that what works here works with both.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Callable, NamedTuple

from tools.simulator.xenstore.errors import StoreError
from tools.simulator.xenstore.permissions import (
    DOM0,
    Permission,
    Permissions,
    may_own,
    may_read,
    may_write,
    of_new_node,
)

MAX_VALUE = 2048
"""In bytes, for every domain: oxenstored's rule (E2BIG), which it applies to dom0 as well."""

MAX_ENTRY = 2048
"""In bytes, exclusive, for what a guest writes: the size of a node's record in C xenstored (ENOSPC)."""

_RECORD_HEADER = 24
_RECORD_PERMISSION = 8
"""What C xenstored's record holds besides value and child names, in bytes. With one permission 2015 bytes remain
for the value, which is what was measured with the real daemon."""

MAX_NODES = 1000
"""Nodes that a guest may own before it can create no more (ENOSPC): the default of both daemons."""

MAX_PERMISSIONS = 5
"""Entries in a list that a guest sets (ENOSPC): the default of C xenstored."""


class Node(NamedTuple):
    """One node. `generation` changes whenever value, permissions or the set of children change."""

    value: bytes
    permissions: Permissions
    children: dict[str, Node]
    generation: int


class Change(NamedTuple):
    """Something that watches may fire for.

    path: the absolute path of the node that changed.
    exact: fire for watches on this very path only (a node that went with its parent), not for those above it.
    visible_to: lists of permissions; a domain that may read under any of them learns of the change. They are the
    node's own, before and after, and its parent's: who can list the parent sees the node come and go anyway.
    """

    path: str
    exact: bool
    visible_to: tuple[Permissions, ...]


class Tree:
    """All nodes, and how many of them each guest owns. `caller` is always the domid of who asks."""

    def __init__(self) -> None:
        self._generations = itertools.count(1)
        self._owned: Counter[int] = Counter()
        self.root = Node(b"", (Permission("n", DOM0),), {}, next(self._generations))
        self.touched: set[str] | None = None
        """The paths that operations depended on, gathered in a fork only."""
        self.make_directory(DOM0, "/tool/xenstored")

    def fork(self) -> Tree:
        """A copy that lives its own life and gathers in `touched` which paths its operations depended on."""
        fork = Tree.__new__(Tree)
        # Generations come from one source, so that no two states of a node ever share a number.
        fork._generations = self._generations
        fork._owned = self._owned.copy()
        fork.root = self.root
        fork.touched = set()
        return fork

    def adopt(self, fork: Tree) -> None:
        """Take over everything that was done in `fork`. What was done here in the meantime is lost."""
        self.root = fork.root
        self._owned = fork._owned

    def readable(self, caller: int, path: str) -> Node:
        """The node at `path`. StoreError EACCES when the caller may not read it, ENOENT when it is missing."""
        node, missing = self._permitted(caller, path, may_read)
        if missing:
            raise StoreError("ENOENT")
        return node

    def write(self, caller: int, path: str, value: bytes) -> list[Change]:
        """Set a node's value, creating it and its missing parents.

        StoreError EACCES, E2BIG when the value is larger than MAX_VALUE, ENOSPC when a guest exceeds a quota.
        """
        node, missing = self._permitted(caller, path, may_write)
        if len(value) > MAX_VALUE:
            raise StoreError("E2BIG")
        if missing:
            return self._create(caller, path, node, missing, value)
        return self._update(caller, path, node, node._replace(value=value))

    def make_directory(self, caller: int, path: str) -> list[Change]:
        """Create an empty node and its missing parents. A node that exists is left as it is. StoreError as `write`."""
        node, missing = self._permitted(caller, path, may_write)
        return self._create(caller, path, node, missing, b"") if missing else []

    def remove(self, caller: int, path: str) -> list[Change]:
        """Remove a node and everything below it. A node that is missing below an existing parent counts as removed.

        StoreError EACCES, ENOENT when the parent is missing too, EINVAL for the root.
        """
        node, missing = self._permitted(caller, path, may_write)
        if len(missing) == 1:
            return []
        if missing:
            raise StoreError("ENOENT")
        if path == "/":
            raise StoreError("EINVAL")
        parent_path, name = split(path)
        parent = self._node(parent_path)
        changes = []
        for below, gone, visible_to in _subtree(path, node, parent.permissions):
            self._touch(below)
            self._count(gone.permissions, -1)
            changes.append(Change(below, below != path, visible_to))
        children = {key: child for key, child in parent.children.items() if key != name}
        self._put(parent_path, parent._replace(children=children, generation=next(self._generations)))
        return changes

    def set_permissions(self, caller: int, path: str, permissions: Permissions) -> list[Change]:
        """Replace a node's list. Only its owner and dom0 may, and only dom0 may give the node away.

        StoreError EACCES, ENOENT, EPERM when a guest changes the owner, EINVAL when the list is empty, ENOSPC when a
        guest's list is too long.
        """
        if not permissions:
            raise StoreError("EINVAL")
        if caller != DOM0 and len(permissions) > MAX_PERMISSIONS:
            raise StoreError("ENOSPC")
        node, missing = self._permitted(caller, path, may_own)
        if missing:
            raise StoreError("ENOENT")
        if caller != DOM0 and permissions[0].domid != node.permissions[0].domid:
            raise StoreError("EPERM")
        changes = self._update(caller, path, node, node._replace(permissions=permissions))
        self._count(node.permissions, -1)
        self._count(permissions, 1)
        return changes

    def remove_owned(self, domid: int) -> list[Change]:
        """Remove every node that a domain owned, with all below it: what both daemons do when a domain is gone."""
        owned = []
        waiting = [("", self.root)] if self._owned[domid] else []
        while waiting:
            path, node = waiting.pop()
            for name, child in node.children.items():
                where = f"{path}/{name}"
                if child.permissions[0].domid == domid:
                    owned.append(where)
                else:
                    waiting.append((where, child))
        return [change for path in owned for change in self.remove(DOM0, path)]

    def owned_by(self, domid: int) -> int:
        """How many nodes the guest owns."""
        return self._owned[domid]

    def _permitted(self, caller: int, path: str, allowed: Callable[[Permissions, int], bool]) -> tuple[Node, list[str]]:
        """The deepest node that exists on the way to `path`, and the names that are missing below it.

        For a missing node the permissions of its nearest parent decide, for reading as well: otherwise a guest
        could find out what exists where it may not look. StoreError EACCES.
        """
        node = self.root
        names = _names(path)
        for depth, name in enumerate(names):
            child = node.children.get(name)
            if child is None:
                # Were the missing child created, its parent would change.
                self._touch("/" + "/".join(names[:depth]))
                missing = names[depth:]
                break
            node = child
        else:
            self._touch(path)
            missing = []
        if not allowed(node.permissions, caller):
            raise StoreError("EACCES")
        return node, missing

    def _create(self, caller: int, path: str, parent: Node, missing: list[str], value: bytes) -> list[Change]:
        if caller != DOM0 and self._owned[caller] + len(missing) > MAX_NODES:
            raise StoreError("ENOSPC")
        permissions = of_new_node(parent.permissions, caller)
        new = Node(value, permissions, {}, next(self._generations))
        _check_entry(caller, new)
        for name in reversed(missing[1:]):
            new = Node(b"", permissions, {name: new}, next(self._generations))
            _check_entry(caller, new)
        parent = parent._replace(children={**parent.children, missing[0]: new}, generation=next(self._generations))
        _check_entry(caller, parent)
        names = _names(path)
        self._put("/" + "/".join(names[: len(names) - len(missing)]), parent)
        self._count(permissions, len(missing))
        return [Change(path, False, (permissions, parent.permissions if len(missing) == 1 else permissions))]

    def _update(self, caller: int, path: str, old: Node, new: Node) -> list[Change]:
        _check_entry(caller, new)
        self._put(path, new._replace(generation=next(self._generations)))
        parent = self._node(split(path)[0])
        return [Change(path, False, (old.permissions, new.permissions, parent.permissions))]

    def _node(self, path: str) -> Node:
        self._touch(path)
        node = find(self.root, path)
        assert node is not None
        return node

    def _put(self, path: str, new: Node) -> None:
        names = _names(path)
        spine = [self.root]
        for name in names[:-1]:
            spine.append(spine[-1].children[name])
        for parent, name in zip(reversed(spine), reversed(names)):
            new = parent._replace(children={**parent.children, name: new})
        self.root = new

    def _count(self, permissions: Permissions, nodes: int) -> None:
        self._owned[permissions[0].domid] += nodes

    def _touch(self, path: str) -> None:
        if self.touched is not None:
            self.touched.add(path)


def find(root: Node, path: str) -> Node | None:
    """The node at an absolute path below `root`, or None."""
    node: Node | None = root
    for name in _names(path):
        if node is None:
            break
        node = node.children.get(name)
    return node


def split(path: str) -> tuple[str, str]:
    """The parent's path and the node's own name. The root is its own parent and has an empty name."""
    parent, _, name = path.rpartition("/")
    return parent or "/", name


def _names(path: str) -> list[str]:
    return path[1:].split("/") if path != "/" else []


def _subtree(path: str, node: Node, parent: Permissions) -> Iterator[tuple[str, Node, tuple[Permissions, ...]]]:
    """The node and all below it, parents first. Not recursive: a guest chooses how deep its tree is."""
    waiting = [(path, node, parent)]
    while waiting:
        path, node, parent = waiting.pop()
        yield path, node, (node.permissions, parent)
        waiting.extend((path + "/" + name, child, node.permissions) for name, child in node.children.items())


def _check_entry(caller: int, node: Node) -> None:
    if caller == DOM0:
        return
    size = _RECORD_HEADER + _RECORD_PERMISSION * len(node.permissions) + len(node.value)
    if size + sum(len(name) + 1 for name in node.children) >= MAX_ENTRY:
        raise StoreError("ENOSPC")
