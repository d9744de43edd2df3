"""Instances as they are."""

from __future__ import annotations

import argparse
from typing import Any

from cliff.columns import FormattableColumn
from cliff.lister import Lister
from cliff.show import ShowOne

from ...states import PowerState
from ..base import Question, add_server

_HIDDEN = ("id", "deleted", "deleted_at", "terminated_at", "task_action", "instance_metadata")


class List(Question, Lister):
    """List the instances as recorded."""

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[list[Any]]]:
        del parsed_args
        instances = self.app.client.ask(self.app.new_context(), "list_instances")
        columns = ["uuid", "display_name", "vm_state", "task_state", "power_state", "node", "created_at"]
        for instance in instances:
            instance["power_state"] = PowerState(instance["power_state"]).word
        return columns, [[instance[column] for column in columns] for instance in instances]


class _Volumes(FormattableColumn):
    def human_readable(self) -> str:
        return "\n".join(f"{it['id']} ({it['kind']}{_device(it)})" for it in self._value)


def _device(volume: dict[str, Any]) -> str:
    return f", {volume['device']}" if volume["device"] else ""


class _Interfaces(FormattableColumn):
    def human_readable(self) -> str:
        return "\n".join(" ".join([it["id"], it["mac"], *it["addresses"]]) for it in self._value)


class _Properties(FormattableColumn):
    def human_readable(self) -> str:
        return "\n".join(f"{key}={value}" for key, value in sorted(self._value.items()))


class _Counters(FormattableColumn):
    """One device a line, with what was read from it and written to it."""

    def human_readable(self) -> str:
        return "\n".join(f"{it['device']} {_bytes(it['read_bytes'])} {_bytes(it['write_bytes'])}" for it in self._value)


def _bytes(count: float | None) -> str:
    return "?" if count is None else f"{count:.0f}"


class Show(Question, ShowOne):
    """Show an instance as recorded, its volumes, interfaces and agent, and its power state as XenServer says now."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        add_server(parser)
        parser.add_argument("--diagnostics", action="store_true", help="show what the running guest uses instead")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        shown = self._diagnostics(parsed_args.server) if parsed_args.diagnostics else self._record(parsed_args.server)
        return list(shown), list(shown.values())

    def _record(self, target: str) -> dict[str, Any]:
        context = self.app.new_context()
        instance = self.app.client.ask(context, "get_instance", target=target)
        devices = self.app.client.ask(context, "get_devices", target=instance["uuid"])
        agent = instance.pop("agent") or {}
        shown = {name: value for name, value in instance.items() if name not in _HIDDEN}
        shown["properties"] = _Properties(instance["instance_metadata"])
        shown["volumes"] = _Volumes(devices["volumes"])
        shown["interfaces"] = _Interfaces(devices["interfaces"])
        shown.update({f"agent_{name}": agent.get(name) for name in ("version", "protocol", "features", "last_seen_at")})
        return shown

    def _diagnostics(self, target: str) -> dict[str, Any]:
        told = dict(self.app.client.ask(self.app.new_context(), "get_diagnostics", target=target))
        return {**told, "disks": _Counters(told["disks"]), "nics": _Counters(told["nics"])}


COMMANDS = {
    "server list": List,
    "server show": Show,
}
