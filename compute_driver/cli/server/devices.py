"""Volumes of an instance come and go."""

from __future__ import annotations

import argparse
from typing import Any

from ...context import RequestContext
from .. import describing
from ..base import Fields
from ..recorded import Call, RecordedOrder


class AddVolume(RecordedOrder):
    """Attach a volume to an instance, and plug it in if it runs; shows its device.

    A password for CHAP goes to the compute service over the bus.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        describing.add_volume_options(parser)

    def request(self, context: RequestContext, parsed: argparse.Namespace) -> Call:
        del context
        volume = describing.volume(parsed)
        arguments = {"target": parsed.server, "volume": volume.to_dict(secrets=True)}
        return Call("attach_volume", arguments, {"volume": volume.id}, describing.has_password(volume))

    def told(self, answer: Any) -> Fields:
        return {"device": answer}


class RemoveVolume(RecordedOrder):
    """Take a volume away from an instance; what is on it stays."""

    method = "detach_volume"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("volume", help="the volume's id: `server show` has it")

    def arguments(self, parsed: argparse.Namespace) -> Fields:
        return {"volume_id": parsed.volume}


COMMANDS = {
    "server add volume": AddVolume,
    "server remove volume": RemoveVolume,
}
