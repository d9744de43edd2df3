"""What changed in the simulated database, and when: the last change of each object, and the latest deletions.

Each write consumes one number, its generation. So whoever knows a generation can be told everything that happened
after it, without the database keeping a list for each client. Source: ocaml/database/db_cache_types.ml.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

KEPT_DELETIONS = 256
"""How many deletions of a class are remembered at least."""

MAX_DELETIONS = 512
"""When so many have gathered, all but the latest KEPT_DELETIONS are forgotten."""


class Change(NamedTuple):
    """An object, and the generation of what happened to it."""

    cls: str
    ref: str
    generation: int


class Changes(NamedTuple):
    """What happened after a generation, newest first. Each object is in one of the lists only."""

    added: list[Change]
    modified: list[Change]
    deleted: list[Change]


class Life(NamedTuple):
    """The generations in which an object was made, and in which it changed last."""

    created: int
    last: int


class ChangeLog:
    """The history of all objects of the given classes. Its methods are not safe for several threads at once."""

    def __init__(self, classes: Iterable[str]) -> None:
        self.generation = 0
        # The object that changed last stands last, so nobody has to look through those that did not change.
        self._living: dict[str, OrderedDict[str, Life]] = {cls: OrderedDict() for cls in classes}
        self._deleted: dict[str, list[tuple[str, Life]]] = {cls: [] for cls in self._living}

    def advance(self) -> int:
        """Consume a generation, and give it."""
        self.generation += 1
        return self.generation

    def write(self, cls: str, ref: str) -> int:
        """An object was made or changed; gives the generation."""
        generation = self.advance()
        living = self._living[cls]
        known = living.get(ref)
        living[ref] = Life(known.created if known else generation, generation)
        living.move_to_end(ref)
        return generation

    def delete(self, cls: str, ref: str) -> int:
        """An object is gone; gives the generation."""
        generation = self.advance()
        deleted = self._deleted[cls]
        deleted.append((ref, Life(self._living[cls].pop(ref).created, generation)))
        if len(deleted) > MAX_DELETIONS:
            del deleted[:-KEPT_DELETIONS]
        return generation

    def life(self, cls: str, ref: str) -> Life:
        """When an object was made and changed last. KeyError when there is none."""
        return self._living[cls][ref]

    def restore(self, lives: Mapping[str, Mapping[str, Life]], generation: int) -> None:
        """Begin with the objects of former times, by class and reference, and go on beyond a generation."""
        for cls, known in lives.items():
            self._living[cls] = OrderedDict(sorted(known.items(), key=lambda item: item[1].last))
        self.generation = generation

    def since(self, cls: str, generation: int) -> Changes:
        """What happened to a class' objects after a generation.

        An object that was made and deleted after it is in no list, nor is a deletion that has been forgotten.
        """
        changes = Changes([], [], [])
        living = self._living[cls]
        for ref in reversed(living):
            life = living[ref]
            if life.last <= generation:
                break
            kind = changes.added if life.created > generation else changes.modified
            kind.append(Change(cls, ref, life.last if kind is changes.modified else life.created))
        for ref, life in reversed(self._deleted[cls]):
            if life.last <= generation:
                break
            if life.created <= generation:
                changes.deleted.append(Change(cls, ref, life.last))
        return changes
