"""What the command reads besides its arguments: files, standard input, and passwords, which are never arguments."""

from __future__ import annotations

import argparse
import base64
import getpass
import json
import sys
from pathlib import Path
from typing import Any

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused

from .. import passwords
from .base import Fields

MAX_CONFIG_DRIVE = 64 * 1024**2
"""Bytes of a config drive's files, as Nova limits its disc."""


def seconds(text: str) -> float:
    """An argument: seconds, at most a day."""
    number = float(text)
    if not 0 <= number <= 86400:
        raise argparse.ArgumentTypeError("seconds are a number from 0 to 86400")
    return number


def add_password_options(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Declare how the password is given. optional: it may also be left as the image has it."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--password-stdin", action="store_true", help="read the password from standard input, one line")
    choice.add_argument("--generate", action="store_true", help="make a password and show it once")
    if optional:
        choice.add_argument("--no-password", action="store_true", help="leave the password as the image has it")


def password(parsed: argparse.Namespace, *, prompt: bool) -> tuple[Password, Fields]:
    """The password that the options ask for, and what to show of it: a generated one, once.

    prompt: without any option, ask for it at the terminal; otherwise one is made.
    """
    if parsed.password_stdin:
        return Password(_first_line(sys.stdin.buffer.readline(), "standard input")), {}
    if parsed.generate or not prompt:
        generated = passwords.generate()
        return generated, {"admin_password": generated.value}
    _require_terminal("give --generate or --password-stdin where there is no terminal to ask at")
    typed = getpass.getpass("New password: ")
    if typed != getpass.getpass("Again: "):
        raise Refused("no_password", "the two passwords differ")
    return Password(typed), {}


def known_password(file: str | None, what: str, option: str) -> Password:
    """A password that somebody else chose: a file's first line (`-`: standard input), or asked for at the terminal.

    what, option: what it is called there, and the option that names a file.
    """
    if file is not None:
        line = sys.stdin.buffer.readline() if file == "-" else read(file).partition(b"\n")[0]
        return Password(_first_line(line, file))
    _require_terminal(f"give {option} where there is no terminal to ask at")
    return Password(getpass.getpass(f"{what}: "))


def _require_terminal(otherwise: str) -> None:
    if not sys.stdin.isatty():
        raise Refused("no_password", otherwise)


def _first_line(line: bytes, source: str) -> str:
    # As bytes: as text, a carriage return would end the line, and with it the password, too.
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("bad_password", f"the password from {source} is not UTF-8") from None


def read(path: str) -> bytes:
    """A local file, `-` for standard input."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise Refused("unreadable_file", f"{path}: {error.strerror}") from None


def keys(path: str) -> list[str]:
    """Public SSH keys, one a line."""
    lines = [line.strip() for line in read(path).decode("utf-8", "replace").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def description(path: str) -> Any:
    """A description in JSON. What is wrong with it is told without its content, which may hold a password."""
    try:
        return json.loads(read(path))
    except (ValueError, RecursionError):
        raise Refused("bad_json", f"{path} is not JSON") from None


def pair(argument: str, form: str, code: str) -> tuple[str, str]:
    """Both sides of an argument's first `=`. form, code: for the error when it has none."""
    left, separator, right = argument.partition("=")
    if not separator or not left:
        raise Refused(code, f"{argument!r} is not of the form {form}")
    return left, right


def config_drive(directory: str) -> dict[str, str]:
    """The files below a directory, by their paths in it, their contents in base64."""
    root = Path(directory)
    try:
        if not root.is_dir():
            raise Refused("unreadable_file", f"{directory}: not a directory")
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        if sum(path.stat().st_size for path in paths) > MAX_CONFIG_DRIVE:
            raise Refused("config_drive_too_large", f"{directory} has more than {MAX_CONFIG_DRIVE >> 20} MiB")
        contents = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    except OSError as error:
        raise Refused("unreadable_file", f"{error.filename}: {error.strerror}") from None
    return {name: base64.b64encode(content).decode("ascii") for name, content in contents.items()}
