"""What reaches into a running guest: passwords, files and metadata."""

from __future__ import annotations

import argparse
from typing import Any

from ...context import RequestContext
from ...files import InjectedFile
from .. import describing, reading
from ..base import Fields, Order
from ..recorded import RecordedOrder


class PasswordSet(Order):
    """Set the administrator's password in a running guest."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        reading.add_password_options(parser)

    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        password, shown = reading.password(parsed, prompt=True)
        self.caller(context).set_password(parsed.server, password)
        return shown


class PasswordGenerate(Order):
    """Have the guest make a password for its administrator, and show it."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--ssh-key",
            metavar="FILE",
            help="an ssh-rsa public key: show the password encrypted to it (RSA-OAEP, base64)",
        )

    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        caller = self.caller(context)
        if parsed.ssh_key:
            return dict(caller.generate_password_for_rsa(parsed.server, reading.keys(parsed.ssh_key)))
        return {"admin_password": caller.generate_password(parsed.server)}


def _octal(text: str) -> int:
    mode = int(text, 8)
    if not 0 <= mode <= 0o7777:
        raise argparse.ArgumentTypeError("a mode has at most four octal digits")
    return mode


class FilePut(Order):
    """Put a local file into a running guest, in place of what is there."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("local", help="local file, - for standard input")
        parser.add_argument("path", help="absolute path in the guest")
        parser.add_argument(
            "--mode", type=_octal, metavar="OCTAL", help="permission bits (default: as before, or 0600)"
        )
        parser.add_argument("--owner", metavar="USER[:GROUP]", help="owner (default: as before, or the superuser)")

    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        file = InjectedFile(parsed.path, reading.read(parsed.local), parsed.mode, parsed.owner)
        self.caller(context).put_file(parsed.server, file)
        return {}


class _Properties(RecordedOrder):
    method = "change_instance_metadata"

    def told(self, answer: Any) -> Fields:
        return {"properties": answer}


class Set(_Properties):
    """Set properties (metadata) of an instance, and tell its guest."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--property", action="append", required=True, metavar="KEY=VALUE", help="what to set; may be repeated"
        )

    def arguments(self, parsed: argparse.Namespace) -> Fields:
        return {"diff": {key: ["+", value] for key, value in describing.properties(parsed.property).items()}}


class Unset(_Properties):
    """Remove properties (metadata) of an instance, and tell its guest."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--property", action="append", required=True, metavar="KEY", help="what to remove; may be repeated"
        )

    def arguments(self, parsed: argparse.Namespace) -> Fields:
        return {"diff": {key: ["-"] for key in parsed.property}}


COMMANDS = {
    "server password set": PasswordSet,
    "server password generate": PasswordGenerate,
    "server file put": FilePut,
    "server set": Set,
    "server unset": Unset,
}
