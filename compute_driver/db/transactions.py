"""How a transaction is run: once, and again where it is certain that nothing of it happened.

The database may give a transaction up for the sake of another one (a deadlock), and a connection may turn out to be
dead. In both cases nothing was written if nothing was committed; a connection that breaks once something was written
is not repeated all the same, as whoever asked must learn of it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from compute_driver.db.engine import for_writing, is_rolled_back, unavailability

ATTEMPTS = 5
"""How often a transaction is run that the database gives up for others."""

REPEAT_SECONDS = 60.0
"""None is begun anew this long after the first: a wait for a lock may take its time in each (MariaDB's 50 s)."""

PAUSE_SECONDS = 0.05
"""The longest pause before the second attempt, in seconds; before each further one it may be twice as long. Random, so
that two that met do not meet again."""

_Result = TypeVar("_Result")


@dataclass
class _Progress:
    """How far one attempt came. is_writing: a statement that changes something was sent, or the commit."""

    is_writing: bool = False
    is_committing: bool = False


class Transactions:
    """Runs functions in transactions on the database that the engine opens. Threads may share it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writing_engine = for_writing(engine)
        event.listen(engine, "before_cursor_execute", _note)

    def read(self, work: Callable[[Session], _Result]) -> _Result:
        """What `work` finds. It changes nothing, and may be run several times."""
        return self._run(self._engine, work)

    def write(self, work: Callable[[Session], _Result]) -> _Result:
        """What `work` gives, committed when this returns. It may be run several times: rows are made within it."""
        return self._run(self._writing_engine, work)

    def _run(self, engine: Engine, work: Callable[[Session], _Result]) -> _Result:
        began = time.monotonic()
        attempt, is_reconnected = 1, False
        with unavailability(engine):
            while True:
                progress = _Progress()
                try:
                    return _attempt(engine, work, progress)
                except DBAPIError as error:
                    if is_rolled_back(error, in_commit=progress.is_committing):
                        if attempt >= ATTEMPTS or time.monotonic() - began > REPEAT_SECONDS:
                            raise
                        time.sleep(random.uniform(0, PAUSE_SECONDS * 2 ** (attempt - 1)))  # noqa: S311 - no secret
                        attempt += 1
                    elif error.connection_invalidated and not progress.is_writing and not is_reconnected:
                        is_reconnected = True
                    else:
                        raise


def _attempt(engine: Engine, work: Callable[[Session], _Result], progress: _Progress) -> _Result:
    with Session(engine, expire_on_commit=False) as session:
        session.connection(execution_options={"xenward_progress": progress})
        result = work(session)
        session.flush()
        # What was only read is only let go of: an end that does not arrive undoes nothing.
        progress.is_committing = progress.is_writing
        session.commit()
        return result


def _note(
    connection: Connection, _cursor: Any, _statement: str, _parameters: Any, context: Any, _executemany: bool
) -> None:
    progress = connection.get_execution_options().get("xenward_progress")
    if progress is not None and (context.isinsert or context.isupdate or context.isdelete):
        progress.is_writing = True
