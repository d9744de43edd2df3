"""Copies of instances, and guests that hold still for them.

freeze and thaw: OpenStack's command has no words for it, and these are the agent's own, as in the codes `frozen` and
`thawed_by_deadline`.
"""

from __future__ import annotations

import argparse
from typing import Any

from ..base import Fields
from ..reading import seconds
from ..recorded import RecordedOrder


class ImageCreate(RecordedOrder):
    """Store a copy of an instance's root disk as an image."""

    method = "snapshot_instance"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--name", required=True, help="name of the image")
        parser.add_argument(
            "--disk-format", choices=["vhd", "raw"], default="vhd", help="form of the copy (default: %(default)s)"
        )

    def arguments(self, parsed: argparse.Namespace) -> Fields:
        return {"name": parsed.name, "disk_format": parsed.disk_format}

    def told(self, answer: Any) -> Fields:
        return {name: answer[name] for name in ("id", "name", "disk_format", "size", "sha256")}


class Freeze(RecordedOrder):
    """Have a running guest write out its file systems, and keep them still until `server thaw`."""

    method = "quiesce_instance"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--timeout",
            type=seconds,
            default=60.0,
            metavar="SECONDS",
            help="after which the guest thaws them by itself (default: %(default)g)",
        )

    def arguments(self, parsed: argparse.Namespace) -> Fields:
        return {"timeout": parsed.timeout}


class Thaw(RecordedOrder):
    """Let a frozen guest write again. Refused when it had thawed by itself: what was copied is not consistent then."""

    method = "unquiesce_instance"


COMMANDS = {
    "server image create": ImageCreate,
    "server freeze": Freeze,
    "server thaw": Thaw,
}
