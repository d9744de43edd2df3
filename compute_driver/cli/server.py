"""`xenward server …`: instances, their passwords and files, and what was done to them."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path
from typing import Any

from cliff.lister import Lister
from cliff.show import ShowOne

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused, Unsuccessful, unsuccessful

from .. import passwords
from ..context import RequestContext
from ..files import InjectedFile
from ..states import PowerState
from .base import Fields, Order, Question


def _add_password_options(parser: argparse.ArgumentParser) -> None:
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--password-stdin", action="store_true", help="read the password from standard input, one line")
    choice.add_argument("--generate", action="store_true", help="make a password and show it once")


def _password(parsed: argparse.Namespace, *, prompt: bool) -> tuple[Password, Fields]:
    """The password that the options ask for, and what to show of it: a generated one, once."""
    if parsed.password_stdin:
        return Password(_first_line()), {}
    if parsed.generate or not prompt:
        generated = passwords.generate()
        return generated, {"admin_password": generated.value}
    if not sys.stdin.isatty():
        raise Refused("no_password", "give --generate or --password-stdin where there is no terminal to ask at")
    typed = getpass.getpass("New password: ")
    if typed != getpass.getpass("Again: "):
        raise Refused("no_password", "the two passwords differ")
    return Password(typed), {}


def _first_line() -> str:
    # As bytes: as text, a carriage return would end the line, and with it the password, too.
    line = sys.stdin.buffer.readline().removesuffix(b"\n").removesuffix(b"\r")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("bad_password", "the password on standard input is not UTF-8") from None


def _read(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise Refused("unreadable_file", f"{path}: {error.strerror}") from None


class Create(Order):
    """Create an instance, boot it, give it a password, keys and files."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", help="name of the instance")
        parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="memory (default: %(default)s)")
        parser.add_argument("--vcpus", type=int, default=1, metavar="N", help="processors (default: %(default)s)")
        parser.add_argument("--disk", type=int, default=10, metavar="GIB", help="root disk (default: %(default)s)")
        parser.add_argument("--image", default="", metavar="IMAGE", help="what the root disk holds (default: nothing)")
        parser.add_argument("--key-file", metavar="FILE", help="public SSH keys for the administrator, one a line")
        parser.add_argument(
            "--file", action="append", default=[], metavar="PATH=LOCAL", help="put the local file at PATH in the guest"
        )
        _add_password_options(parser)

    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        password, shown = _password(parsed, prompt=False)
        files = [_file(argument) for argument in parsed.file]
        keys = _keys(parsed.key_file) if parsed.key_file else []
        instance = self.call(
            context,
            "build_and_run_instance",
            display_name=parsed.name,
            memory_mb=parsed.memory,
            vcpus=parsed.vcpus,
            root_gb=parsed.disk,
            image_ref=parsed.image,
            admin_password=None,
            injected_files=[],
            ssh_keys=[],
        )
        try:
            # Only now there is an agent to seal to, and the bus never sees what it gets.
            caller = self.caller(context)
            caller.set_password(instance["uuid"], password)
            if keys:
                caller.add_ssh_keys(instance["uuid"], keys)
            for file in files:
                caller.put_file(instance["uuid"], file)
        except Unsuccessful as error:
            # A guest that is not what was asked for is no use; the error tells why there is none.
            try:
                self.call(context, "terminate_instance", target=instance["uuid"])
            except Unsuccessful as left:
                said = f"{error.message}; instance {instance['uuid']} could not be removed: {left.message}"
                raise unsuccessful(error.outcome, error.code, said) from None
            raise
        return {"uuid": instance["uuid"], "name": instance["display_name"], "vm_state": instance["vm_state"], **shown}


def _file(argument: str) -> InjectedFile:
    path, separator, local = argument.partition("=")
    if not separator:
        raise Refused("bad_file", f"{argument!r} is not of the form PATH=LOCAL")
    return InjectedFile(path, _read(local))


def _keys(path: str) -> list[str]:
    lines = [line.strip() for line in _read(path).decode("utf-8", "replace").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


class Delete(Order):
    """Destroy an instance and its disks."""

    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        self.call(context, "terminate_instance", target=parsed.server)
        return {}


class Start(Order):
    """Boot a stopped instance."""

    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        self.call(context, "start_instance", target=parsed.server)
        return {}


class Stop(Order):
    """Shut an instance down, by force if it does not comply."""

    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        self.call(context, "stop_instance", target=parsed.server)
        return {}


class Reboot(Order):
    """Restart an instance."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--hard", action="store_true", help="do not ask the guest")

    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        self.call(context, "reboot_instance", target=parsed.server, reboot_type="HARD" if parsed.hard else "SOFT")
        return {}


class PasswordSet(Order):
    """Set the administrator's password in a running guest."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        _add_password_options(parser)

    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        password, shown = _password(parsed, prompt=True)
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
            return dict(caller.generate_password_for_rsa(parsed.server, _keys(parsed.ssh_key)))
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
        file = InjectedFile(parsed.path, _read(parsed.local), parsed.mode, parsed.owner)
        self.caller(context).put_file(parsed.server, file)
        return {}


class List(Question, Lister):
    """List the instances as recorded."""

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[list[Any]]]:
        del parsed_args
        instances = self.app.client.ask(self.app.new_context(), "list_instances")
        columns = ["uuid", "display_name", "vm_state", "task_state", "power_state", "created_at"]
        for instance in instances:
            instance["power_state"] = PowerState(instance["power_state"]).word
        return columns, [[instance[column] for column in columns] for instance in instances]


class Show(Question, ShowOne):
    """Show an instance as recorded, its agent, and its power state as XenServer says now."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("server", help="uuid or unique name of the instance")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        instance = self.app.client.ask(self.app.new_context(), "get_instance", target=parsed_args.server)
        agent = instance.pop("agent") or {}
        shown = {
            name: instance[name] for name in instance if name not in ("id", "deleted", "deleted_at", "terminated_at")
        }
        shown.update({f"agent_{name}": agent.get(name) for name in ("version", "protocol", "features", "last_seen_at")})
        return list(shown), list(shown.values())


class Actions(Question, Lister):
    """Show the audit trail: what was done, step by step, and how it ended."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("server", nargs="?", help="uuid or unique name of the instance (default: all)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[list[Any]]]:
        actions = self.app.client.ask(self.app.new_context(), "list_actions", target=parsed_args.server)
        columns = [
            "started_at",
            "target",
            "action",
            "step",
            "outcome",
            "code",
            "seconds",
            "user",
            "message",
            "request_id",
        ]
        return columns, [[action[column] for column in columns] for action in actions]


COMMANDS = {
    "server create": Create,
    "server list": List,
    "server show": Show,
    "server delete": Delete,
    "server start": Start,
    "server stop": Stop,
    "server reboot": Reboot,
    "server password set": PasswordSet,
    "server password generate": PasswordGenerate,
    "server file put": FilePut,
    "server actions": Actions,
}
