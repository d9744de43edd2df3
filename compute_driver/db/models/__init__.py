"""The tables as SQLAlchemy sees them. The migrations make them; a test holds the two against each other."""

from compute_driver.db.models.actions import ActionRow
from compute_driver.db.models.base import Base, UtcDateTime
from compute_driver.db.models.devices import InterfaceRow, VolumeRow
from compute_driver.db.models.hosts import HostRow, ServiceRow, SessionRow
from compute_driver.db.models.instances import AgentRow, FaultRow, InstanceRow, MigrationRow

__all__ = [
    "ActionRow",
    "AgentRow",
    "Base",
    "FaultRow",
    "HostRow",
    "InstanceRow",
    "InterfaceRow",
    "MigrationRow",
    "ServiceRow",
    "SessionRow",
    "UtcDateTime",
    "VolumeRow",
]
