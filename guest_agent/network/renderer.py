"""What every renderer is: a pure function from network data and the present files to the files that are to be.

A renderer runs nothing and writes nothing; apply.py does, and can therefore put everything back.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..system.paths import GuestPath
from .data import NetworkData


class Files(Protocol):
    """The guest's files, for reading."""

    def read(self, path: GuestPath) -> bytes | None:
        """A file's content, None when there is none."""

    def names(self, directory: GuestPath) -> Sequence[str]:
        """What a directory holds, in order; nothing when it is missing."""


@dataclass(frozen=True)
class Change:
    """A file that is to have this content, or to be gone (None)."""

    path: GuestPath
    content: bytes | None = field(repr=False)
    mode: int = 0o644


class Renderer(abc.ABC):
    """One way in which a Linux keeps its network configuration.

    name: as in configuration.NETWORK_STACKS. needs_names: whether its files name interfaces rather than MAC addresses.
    """

    name: str
    needs_names: bool

    @abc.abstractmethod
    def render(self, data: NetworkData, names: Mapping[str, str], files: Files) -> Sequence[Change]:
        """The changes after which the files say what `data` says about its interfaces, whatever stood there.

        names: the name of the interface of each MAC address, as far as the guest has it; with all of data's if
        needs_names. What the files say about other interfaces stays. The same data gives the same files, so that
        applying it twice changes nothing. Refused (`bad_network_data`) for what this stack cannot express.
        """

    @abc.abstractmethod
    def activation(self, data: NetworkData, names: Mapping[str, str]) -> Sequence[Sequence[str]]:
        """The programs, with arguments, that make the running system follow the files, in this order.

        names: with all of data's MAC addresses.
        """
