"""What the driver's longer operations have in common: one pool, and those who know its parts."""

from __future__ import annotations

from dataclasses import dataclass

from .agents.agent import GuestAgents
from .connection.session import XenServer
from .network.interfaces import Interfaces
from .network.networks import Networks
from .storage.image_cache import ImageCache
from .storage.transfers import Transfers
from .storage.volumes import Volumes


@dataclass(frozen=True)
class Parts:
    """One XenServer pool. repository: the uuid or name of the one that disks are made in; None for the pool's own."""

    server: XenServer
    agents: GuestAgents
    transfers: Transfers
    images: ImageCache
    networks: Networks
    interfaces: Interfaces
    volumes: Volumes
    repository: str | None = None
