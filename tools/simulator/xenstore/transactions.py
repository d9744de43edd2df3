"""Transactions of the simulated XenStore: a snapshot to work on, and a commit that notices conflicts."""

from __future__ import annotations

from typing import Callable

from tools.simulator.xenstore.errors import StoreError
from tools.simulator.xenstore.permissions import DOM0
from tools.simulator.xenstore.tree import Change, Node, Tree, find

MAX_TRANSACTIONS = 10
"""Open transactions of one guest, over all its connections (ENOSPC): the default of both daemons."""

MAX_REQUESTS = 1024
"""Requests of a guest within one transaction (ENOSPC): oxenstored's default."""

Mutation = Callable[[Tree], "list[Change]"]
"""An operation that changes a tree, with its arguments bound."""


class Transaction:
    """One open transaction of domain `domid`.

    Nobody sees its changes before the commit, and it sees nobody's: `view` is the tree as it was at the start, plus
    its own changes.
    """

    def __init__(self, tree: Tree, domid: int) -> None:
        self._tree = tree
        self._start: Node = tree.root
        self._domid = domid
        self._requests = 0
        self._mutations: list[Mutation] = []
        self.view = tree.fork()

    def count_request(self) -> None:
        """Account for one more request in this transaction. StoreError ENOSPC when a guest has made too many."""
        if self._domid != DOM0 and self._requests >= MAX_REQUESTS:
            raise StoreError("ENOSPC")
        self._requests += 1

    def mutate(self, mutation: Mutation) -> None:
        """Change the view, and remember the change for the commit. StoreError as the mutation raises it."""
        mutation(self.view)
        self._mutations.append(mutation)

    def commit(self) -> list[Change]:
        """Make the changes in the tree, all or none, and return what watches fire for.

        StoreError EAGAIN when a node that an operation depended on was changed, created or removed by somebody
        else in the meantime; ENOSPC when the guest's quota has been used up in the meantime.
        """
        for path in self.view.touched or ():
            if _generation(self._start, path) != _generation(self._tree.root, path):
                raise StoreError("EAGAIN")
        # Nothing that the operations looked at is different now, so they do the same again.
        merged = self._tree.fork()
        changes = [change for mutation in self._mutations for change in mutation(merged)]
        self._tree.adopt(merged)
        return changes


def _generation(root: Node, path: str) -> int | None:
    node = find(root, path)
    return None if node is None else node.generation
