"""Instances are started and stopped."""

from __future__ import annotations

import argparse

from ..base import Fields
from ..reading import seconds
from ..recorded import RecordedOrder


class Start(RecordedOrder):
    """Boot a stopped instance."""

    method = "start_instance"


class Stop(RecordedOrder):
    """Shut an instance down, by force if it does not comply."""

    method = "stop_instance"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--timeout",
            type=seconds,
            metavar="SECONDS",
            help="time that the guest has to comply, 0 to use force at once (default: the hypervisor's)",
        )

    def arguments(self, parsed: argparse.Namespace) -> Fields:
        return {} if parsed.timeout is None else {"timeout": parsed.timeout}


class Reboot(RecordedOrder):
    """Restart an instance."""

    method = "reboot_instance"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--hard", action="store_true", help="do not ask the guest; brings an instance in error back, too"
        )

    def arguments(self, parsed: argparse.Namespace) -> Fields:
        return {"reboot_type": "HARD" if parsed.hard else "SOFT"}


class Pause(RecordedOrder):
    """Stop the processors of a running instance; it keeps its memory."""

    method = "pause_instance"


class Unpause(RecordedOrder):
    """Let the processors of a paused instance go on."""

    method = "unpause_instance"


class Suspend(RecordedOrder):
    """Write the memory of a running instance to storage, and stop it."""

    method = "suspend_instance"


class Resume(RecordedOrder):
    """Let a suspended instance go on where it was."""

    method = "resume_instance"


COMMANDS = {
    "server start": Start,
    "server stop": Stop,
    "server reboot": Reboot,
    "server pause": Pause,
    "server unpause": Unpause,
    "server suspend": Suspend,
    "server resume": Resume,
}
