"""`xenward host …`: the hosts of the pool."""

from __future__ import annotations

import argparse
from typing import Any

from cliff.lister import Lister
from cliff.show import ShowOne

from agent_protocol.outcomes import Refused

from ..context import RequestContext
from .base import Fields, Order, Question
from .plugin import word

_INVENTORY = ("total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio")


def _add_host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", help="name of the host")


class List(Question, Lister):
    """List the hosts, what they have and use, and whether their dom0 plugin is good."""

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[list[Any]]]:
        del parsed_args
        nodes = self.app.client.ask(self.app.new_context(), "list_nodes")
        columns = ["hypervisor_hostname", "enabled", "live", "vcpus", "vcpus_used", "memory_mb", "memory_mb_used"]
        columns += ["local_gb", "local_gb_used", "hypervisor_version", "host_ip", "plugin"]
        for node in nodes:
            node["plugin"] = word(node)
        return columns, [[node.get(column) for column in columns] for node in nodes]


class Show(Question, ShowOne):
    """Show a host: what it has and uses, how long it is up, and its dom0 plugin."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _add_host(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        client, context = self.app.client, self.app.new_context()
        nodes = client.ask(context, "list_nodes")
        shown = next((node for node in nodes if node["hypervisor_hostname"] == parsed_args.host), None)
        if shown is None:
            raise Refused("node_not_found", f"the pool has no host {parsed_args.host!r}")
        shown["plugin"] = word(shown)
        if shown["live"]:
            shown["uptime"] = client.ask(context, "get_host_uptime", node=parsed_args.host)
        return list(shown), list(shown.values())


class InventoryShow(Question, Lister):
    """Show what a host offers to a placement service."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _add_host(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[list[Any]]]:
        inventory = self.app.client.ask(self.app.new_context(), "get_inventory", node=parsed_args.host)
        rows = [[name, *(item[column] for column in _INVENTORY)] for name, item in sorted(inventory.items())]
        return ["resource_class", *_INVENTORY], rows


class HostOrder(Order):
    """An order about a host; the audit trail has those about instances only.

    method: of the compute service. does: its arguments besides the host.
    """

    asking = "xenward host show {1.host}"
    method = ""
    does: Fields = {}

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_host(parser)

    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        self.call(context, self.method, node=parsed.host, **self.does)
        return {"host": parsed.host}


class Enable(HostOrder):
    """Let a host take new guests."""

    method = "set_host_enabled"
    does = {"enabled": True}


class Disable(HostOrder):
    """Let a host take no new guests; those that it has stay."""

    method = "set_host_enabled"
    does = {"enabled": False}


class MaintenanceOn(HostOrder):
    """Empty a host for maintenance: it takes no new guests, and those that it has are moved away while they run."""

    method = "host_maintenance_mode"
    does = {"enabled": True}


class MaintenanceOff(HostOrder):
    """Let a host take guests again after maintenance."""

    method = "host_maintenance_mode"
    does = {"enabled": False}


class Shutdown(HostOrder):
    """Shut down a host that is in maintenance."""

    method = "host_power_action"
    does = {"action": "shutdown"}


class Reboot(HostOrder):
    """Restart a host that is in maintenance."""

    method = "host_power_action"
    does = {"action": "reboot"}


class Startup(HostOrder):
    """Start a host from afar, where XenServer was told how."""

    method = "host_power_action"
    does = {"action": "startup"}


COMMANDS = {
    "host list": List,
    "host show": Show,
    "host inventory show": InventoryShow,
    "host enable": Enable,
    "host disable": Disable,
    "host maintenance on": MaintenanceOn,
    "host maintenance off": MaintenanceOff,
    "host power shutdown": Shutdown,
    "host power reboot": Reboot,
    "host power startup": Startup,
}
