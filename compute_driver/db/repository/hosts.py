"""Leases of hosts, and the sessions with their hypervisors that were opened under them.

A lease ends by the database's clock, which all services share. Whoever holds one keeps it up by renew_lease, and stops
by its own clock, counted from before the call, when it did not get to that in time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Update, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from compute_driver.db.clock import DatabaseNow
from compute_driver.db.models import HostRow, SessionRow
from compute_driver.db.records import Host, Lease
from compute_driver.db.repository.base import RepositoryPart, check_lease
from compute_driver.db.rows import checked, columns, searchable
from compute_driver.errors import HostHeld
from compute_driver.fencing import LeaseLost


class Hosts(RepositoryPart):
    """Who alone may act on which hypervisor."""

    def acquire_lease(self, host: str, holder: str, *, seconds: float) -> Lease:
        """The host's lease for `holder`, for so many seconds from now, under a new epoch.

        Of all who try at the same time one gets it: when nobody has it, when it expired, or when this very holder has
        it, whose earlier lease is lost by that. HostHeld otherwise. ValueError for an empty holder.
        """
        if not holder:
            raise ValueError("a lease needs a holder with a name")
        checked(HostRow, {"name": host, "holder": holder})
        take = (
            update(HostRow)
            .where(
                HostRow.name == host,
                or_(HostRow.holder.in_(["", holder]), HostRow.expires_at <= DatabaseNow()),
            )
            .values(holder=holder, epoch=HostRow.epoch + 1, **_lasting(seconds))
        )
        self._make_host(host)
        return self._write(lambda session: _acquire(session, host, take, holder))

    def join_lease(self, host: str, holder: str) -> Lease:
        """The lease that this very holder has now, be it expired: renew it before you rely on it. HostHeld otherwise,
        with an empty holder when nobody has it.
        """

        def find(session: Session) -> Lease:
            found = session.execute(_with_now(host)).one_or_none()
            if found is None:
                raise HostHeld(host, "", 0.0)
            row, moment = found
            if not holder or row.holder != holder:
                raise HostHeld(host, row.holder, _left(row, moment))
            return Lease(host, holder, row.epoch)

        return self._read(find)

    def renew_lease(self, lease: Lease, *, seconds: float) -> None:
        """The lease lasts so many seconds from now on. One that expired, and that nobody took, is good again.

        LeaseLost when another one has the host, or it was released.
        """
        renew = _change(lease, **_lasting(seconds))

        def swap(session: Session) -> None:
            if session.connection().execute(renew).rowcount != 1:
                raise LeaseLost(lease.host)

        self._write(swap)

    def release_lease(self, lease: Lease) -> None:
        """The host is free from now on. Nothing happens when the lease is not the one that counts any more."""
        free = _change(lease, holder="", **_lasting(0.0))

        def swap(session: Session) -> None:
            session.connection().execute(free)

        self._write(swap)

    def list_hosts(self) -> list[Host]:
        """All hosts that a lease was ever asked for, by name."""

        def find(session: Session) -> list[Host]:
            found = session.execute(_with_now().order_by(HostRow.name))
            return [Host(**columns(row), seconds_left=_left(row, moment)) for row, moment in found]

        return self._read(find)

    # Sessions

    def open_session(self, lease: Lease, session: str) -> None:
        """Records a session with the hypervisor before it is used. LeaseLost when the host is another's by now.

        session: its public id, no secret.
        """
        values = checked(SessionRow, {"host": lease.host, "session": session})

        def add(transaction: Session) -> None:
            check_lease(transaction, lease)
            transaction.execute(insert(SessionRow).values(epoch=lease.epoch, opened_at=DatabaseNow(), **values))

        self._write(add)

    def close_session(self, host: str, session: str) -> None:
        """Forgets a session that was ended for certain; nothing happens when it is not known."""
        forget = delete(SessionRow).where(
            SessionRow.host == searchable(host), SessionRow.session == searchable(session)
        )

        def remove(transaction: Session) -> None:
            transaction.execute(forget)

        self._write(remove)

    def sessions_before(self, lease: Lease) -> list[str]:
        """The sessions that were opened under earlier leases of the host and never closed, oldest first."""
        query = select(SessionRow.session).where(
            SessionRow.host == searchable(lease.host), SessionRow.epoch < lease.epoch
        )
        return self._read(lambda session: list(session.scalars(query.order_by(SessionRow.id))))

    def _make_host(self, host: str) -> None:
        exists = select(HostRow.name).where(HostRow.name == host)
        if self._read(lambda session: session.scalar(exists)) is not None:
            return
        new = insert(HostRow).values(name=host, holder="", epoch=0, **_lasting(0.0))

        def add(session: Session) -> None:
            session.execute(new)

        try:
            self._write(add)
        except IntegrityError:
            # Another service was first.
            return


def _acquire(session: Session, host: str, take: Update, holder: str) -> Lease:
    if session.connection().execute(take).rowcount == 1:
        return _taken(session, host, holder)
    row, moment = session.execute(_with_now(host).with_for_update()).one()
    if row.holder and _left(row, moment):
        raise HostHeld(host, row.holder, _left(row, moment))
    # It was let go of or expired between the two statements; the row is locked now, so it is ours.
    if session.connection().execute(take).rowcount != 1:
        raise HostHeld(host, row.holder, 0.0)
    return _taken(session, host, holder)


def _taken(session: Session, host: str, holder: str) -> Lease:
    return Lease(host, holder, session.scalars(select(HostRow.epoch).where(HostRow.name == host)).one())


def _change(lease: Lease, **values: Any) -> Update:
    """Changes the host's row while it is of this lease."""
    return (
        update(HostRow)
        .where(HostRow.name == searchable(lease.host), HostRow.holder == lease.holder, HostRow.epoch == lease.epoch)
        .values(**values)
    )


def _lasting(seconds: float) -> dict[str, Any]:
    return {"expires_at": DatabaseNow(seconds), "updated_at": DatabaseNow()}


def _with_now(host: str | None = None) -> Any:
    """Hosts, and the database's time. Only its own: another machine's clock says nothing about a lease."""
    query = select(HostRow, DatabaseNow())
    return query if host is None else query.where(HostRow.name == searchable(host))


def _left(row: HostRow, moment: datetime) -> float:
    return max(0.0, (row.expires_at - moment).total_seconds())
