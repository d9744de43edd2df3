"""What every part of the repository needs: transactions, and the check of a lease within them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from compute_driver.db.models import HostRow
from compute_driver.db.records import Lease
from compute_driver.db.rows import searchable
from compute_driver.db.transactions import Transactions
from compute_driver.fencing import LeaseLost

_Result = TypeVar("_Result")


class RepositoryPart:
    """One concept of the repository. Each method is one transaction, run by _read or _write."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def _read(self, work: Callable[[Session], _Result]) -> _Result:
        return self._transactions.read(work)

    def _write(self, work: Callable[[Session], _Result]) -> _Result:
        return self._transactions.write(work)


def check_lease(session: Session, lease: Lease | None) -> None:
    """LeaseLost when another one has the host now; none gets it until the end of the transaction. None: no check.

    An expired lease that nobody took is good: the holder's own clock tells it when to stop.
    """
    if lease is None:
        return
    query = select(HostRow.holder, HostRow.epoch).where(HostRow.name == searchable(lease.host))
    found = session.execute(query.with_for_update(read=True)).one_or_none()
    if found is None or (found.holder, found.epoch) != (lease.holder, lease.epoch):
        raise LeaseLost(lease.host)
