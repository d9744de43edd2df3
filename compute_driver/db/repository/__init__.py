"""The one way to the database: every question and every change that the rest of xenward needs, and no other.

Each method is one transaction, committed when it returns, so that what is said to be recorded is. One that the
database gave up for another's sake is run again by itself. What comes back are plain records. Threads may share a
Repository.

Every method raises DatabaseUnavailable when the database is away. Text that describes (messages, codes, who and
where) is cut to its column and cleaned; text that identifies (uuid, names, states) and does not fit is a ValueError.
"""

from __future__ import annotations

from compute_driver.db.engine import open_engine
from compute_driver.db.repository.actions import Actions
from compute_driver.db.repository.agents import Agents
from compute_driver.db.repository.devices import Devices
from compute_driver.db.repository.endings import Endings
from compute_driver.db.repository.hosts import Hosts
from compute_driver.db.repository.instances import Instances
from compute_driver.db.repository.migrations import Migrations
from compute_driver.db.repository.purge import Purge
from compute_driver.db.repository.services import Services
from compute_driver.db.transactions import Transactions

__all__ = ["Repository"]


class Repository(Instances, Actions, Endings, Agents, Hosts, Services, Migrations, Devices, Purge):
    """The database behind `url`, whose tables compute_driver.db.migrate has made.

    url: see compute_driver.db.engine.open_engine, with its errors.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        super().__init__(Transactions(self._engine))

    def close(self) -> None:
        """Gives the connections back. The repository opens new ones when it is used again."""
        self._engine.dispose()
