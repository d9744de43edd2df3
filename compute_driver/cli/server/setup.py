"""What a new system is given once its agent is there: a password, keys and files, sealed to that agent."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused

from ...files import InjectedFile
from .. import reading
from ..base import Fields

if TYPE_CHECKING:
    from ...caller import Caller


@dataclass(frozen=True)
class Setup:
    """password: None leaves it as the image has it. shown: what to show of it in the end."""

    password: Password | None = None
    shown: Fields = field(default_factory=dict, repr=False)
    keys: tuple[str, ...] = ()
    files: tuple[InjectedFile, ...] = ()

    @classmethod
    def read(cls, parsed: argparse.Namespace, *, possible: bool) -> Setup:
        """What the options of add_options ask for.

        possible: whether this command will see the guest's agent; if not, Refused (`nobody_sets_up`) when something is
        asked for.
        """
        if not possible:
            if parsed.password_stdin or parsed.generate or parsed.key_file or parsed.file:
                said = "password, keys and files need a guest that runs and a command that waits: give them afterwards"
                raise Refused("nobody_sets_up", said)
            return cls()
        password, shown = (None, {}) if parsed.no_password else reading.password(parsed, prompt=False)
        keys = reading.keys(parsed.key_file) if parsed.key_file else []
        return cls(password, shown, tuple(keys), tuple(_file(argument) for argument in parsed.file))

    def give(self, caller: Caller, target: str) -> None:
        """Give it all to a running guest. Raises the error of the first thing that it did not take."""
        if self.password is not None:
            caller.set_password(target, self.password)
        if self.keys:
            caller.add_ssh_keys(target, self.keys)
        for file in self.files:
            caller.put_file(target, file)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare password, keys and files."""
    parser.add_argument("--key-file", metavar="FILE", help="public SSH keys for the administrator, one a line")
    parser.add_argument(
        "--file", action="append", default=[], metavar="PATH=LOCAL", help="put the local file at PATH in the guest"
    )
    reading.add_password_options(parser, optional=True)


def _file(argument: str) -> InjectedFile:
    path, local = reading.pair(argument, "PATH=LOCAL", "bad_file")
    return InjectedFile(path, reading.read(local))
