"""`xenward console …`: what a guest wrote to its serial console, and the way to its screen."""

from __future__ import annotations

import argparse
import base64
import sys
from typing import Any

from cliff.command import Command
from cliff.show import ShowOne

from agent_protocol.outcomes import Refused

from .base import Question, add_server


def visible(untrusted: bytes) -> str:
    """Text that a guest wrote, for a terminal: what would steer it, or hide or turn other text, is escaped."""
    text = untrusted.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return "".join(it if it in "\n\t" or it.isprintable() else _escaped(it) for it in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class LogShow(Question, Command):
    """Show the last of what a guest wrote to its serial console.

    At a terminal its control characters are made visible: a guest writes what it likes, and terminals obey.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        add_server(parser)
        parser.add_argument("--lines", type=_positive, metavar="N", help="only the last N lines")
        parser.add_argument("--raw", action="store_true", help="the bytes as they are, to a terminal, too")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        told = self.app.client.ask(self.app.new_context(), "get_console_output", target=parsed_args.server)
        untrusted = base64.b64decode(told)
        if parsed_args.lines is not None:
            untrusted = b"".join(untrusted.splitlines(keepends=True)[-parsed_args.lines :])
        if sys.stdout.isatty() and not parsed_args.raw:
            shown = visible(untrusted)
            untrusted = (shown if not shown or shown.endswith("\n") else shown + "\n").encode("utf-8")
        sys.stdout.flush()
        sys.stdout.buffer.write(untrusted)
        sys.stdout.buffer.flush()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one line")
    return number


class UrlShow(Question, ShowOne):
    """Show where the screen of a running guest is: an HTTP CONNECT to the path there leads to RFB (VNC).

    The token opens it, and everything else that the service can do on XenServer: it is for a proxy, not for users.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        add_server(parser)
        parser.add_argument("--show-token", action="store_true", help="show the token, too: a secret")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        if parsed_args.show_token and self.app.is_embedded:
            raise Refused("bus_embedded", "without a service the token would end with this command")
        told = self.app.client.ask(self.app.new_context(), "get_vnc_console", target=parsed_args.server)
        host = f"[{told['host']}]" if ":" in told["host"] else told["host"]
        scheme = "https" if told["tls"] else "http"
        shown = {"url": f"{scheme}://{host}:{told['port']}{told['internal_access_path']}"}
        shown.update({name: told[name] for name in ("host", "port", "internal_access_path", "tls")})
        if parsed_args.show_token:
            shown["token"] = told["token"]
        return list(shown), list(shown.values())


COMMANDS = {
    "console log show": LogShow,
    "console url show": UrlShow,
}
