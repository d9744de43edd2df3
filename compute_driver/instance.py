"""What the manager and a driver tell each other of one instance: which it is, how it is, and how far work on it got."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from .states import PowerState


class Instance(Protocol):
    """What a driver needs to know of an instance."""

    @property
    def uuid(self) -> str:
        """Identifies the instance for ever."""

    @property
    def display_name(self) -> str:
        """The operator's name for it; need not be unique."""

    @property
    def memory_mb(self) -> int:
        """Memory in MiB."""

    @property
    def vcpus(self) -> int:
        """Virtual processors."""

    @property
    def root_gb(self) -> int:
        """Size of the root disk in GiB."""


@dataclass(frozen=True)
class InstanceInfo:
    """What the hypervisor says about an instance.

    internal_id: its own id for it, such as a VM's uuid. node: hypervisor_hostname of where it is, empty while it has no
    place because it does not run.
    """

    state: PowerState
    internal_id: str
    node: str = ""


class Progress(Protocol):
    """Where a driver reports the steps of a long operation; the manager keeps them in the audit trail."""

    def step(self, name: str) -> AbstractContextManager[None]:
        """Surrounds one step. Its outcome is that of the block: success, or the error that leaves it."""
