"""What VDIs of ours carry in other_config, so that they are known for what they are after any crash.

Clones, snapshots and copies inherit a VDI's other_config, whoever makes them, and other tools do make them. So a VDI of
ours also names itself, which a copy of it does wrongly; and whoever makes a copy in our name marks the original
beforehand (branch_key), so that a copy is known as ours from its first moment, until it gets marks of its own.
"""

from __future__ import annotations

import calendar
import enum
import time
from collections.abc import Mapping
from typing import Any

from ..connection.cache import INSTANCE_KEY

PURPOSE_KEY = "xenward:purpose"
MADE_KEY = "xenward:made"
"""When it was made: seconds since 1970, by the clock of whoever made it."""

OWN_KEY = "xenward:vdi"
"""Its own uuid."""

TOKEN_KEY = "xenward:token"  # noqa: S105 - no secret
"""What finds it when the answer to the call that made it was lost."""

IMAGE_KEY = "xenward:image"
DIGEST_KEY = "xenward:image_sha256"
SIZE_KEY = "xenward:image_size"
"""Bytes of the image's disk: repositories round VDIs up."""

STATE_KEY = "xenward:image_state"
MAKER_KEY = "xenward:image_maker"
TIME_KEY = "xenward:image_time"
"""When the maker of a cached image last showed that it lives, or when a ready one was last used; as MADE_KEY."""

IMPORTING, READY = "importing", "ready"

_BRANCH = "xenward:branch:"
_BRANCH_TIME = 900.0
"""Seconds from a branch key to its snapshot: what the call may take, and what clocks differ by."""


class Purpose(str, enum.Enum):
    """What a VDI of ours is for."""

    ROOT = "root"
    EPHEMERAL = "ephemeral"
    SWAP = "swap"
    CONFIG_DRIVE = "config-drive"
    IMAGE = "image"
    SNAPSHOT = "snapshot"

    def __str__(self) -> str:
        return self.value


def branch_key(token: str) -> str:
    """The key that a VDI has while a clone or snapshot of it is made in our name; its value is as MADE_KEY's."""
    return f"{_BRANCH}{token}"


def now() -> str:
    """This moment, as marks have it."""
    return str(int(time.time()))


def moment(untrusted_text: str | None) -> float:
    """Seconds since 1970; 0 for what is no number."""
    text = untrusted_text or ""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0.0


def branches(untrusted_marks: Mapping[str, str]) -> dict[str, float]:
    """The branch keys that a VDI carries, and when they were set."""
    return {key: moment(value) for key, value in untrusted_marks.items() if key.startswith(_BRANCH)}


def is_own(untrusted_record: Mapping[str, Any]) -> bool:
    """Whether a VDI (its record) was made by us and got its own marks, rather than being somebody's copy of such."""
    return bool(untrusted_record["other_config"].get(OWN_KEY) == untrusted_record["uuid"])


def is_unfinished(untrusted_record: Mapping[str, Any]) -> bool:
    """Whether a VDI was made by us, and did not get its own marks yet.

    Of what carries a branch key, which may have stayed on the original after a crash, only that counts which others
    hardly made: clones of cached images, and snapshots of the moments after the key was set.
    """
    marks = untrusted_record["other_config"]
    if is_own(untrusted_record):
        return False
    keys = branches(marks)
    if not keys:
        return OWN_KEY not in marks and TOKEN_KEY in marks
    if untrusted_record["is_a_snapshot"]:
        taken = _seconds(untrusted_record["snapshot_time"])
        return any(-_BRANCH_TIME <= taken - begun <= _BRANCH_TIME for begun in keys.values())
    return bool(marks.get(PURPOSE_KEY) == Purpose.IMAGE)


def _seconds(untrusted_date: object) -> float:
    """Seconds since 1970 of a date as XenAPI has it; 0 for what is none."""
    try:
        return float(calendar.timegm(time.strptime(str(untrusted_date), "%Y%m%dT%H:%M:%SZ")))
    except ValueError:
        return 0.0


def made(untrusted_record: Mapping[str, Any]) -> float:
    """When a VDI of ours was made, as far as one can tell."""
    marks = untrusted_record["other_config"]
    if is_own(untrusted_record):
        return moment(marks.get(MADE_KEY))
    return max([moment(marks.get(MADE_KEY)), *branches(marks).values()])


def instance_of(untrusted_record: Mapping[str, Any]) -> str:
    """The uuid of the instance that a VDI belongs to, empty if none."""
    return str(untrusted_record["other_config"].get(INSTANCE_KEY, ""))
