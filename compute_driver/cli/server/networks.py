"""Network interfaces of an instance: they come and go, and the guest configures them."""

from __future__ import annotations

import argparse

from ...context import RequestContext
from .. import describing
from ..base import Fields
from ..recorded import Call, RecordedOrder


class AddNetwork(RecordedOrder):
    """Add a network interface to an instance, and plug it in if it runs; shows its id and MAC address.

    `server network apply` has the guest configure it.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        describing.add_interface_options(parser)

    def request(self, context: RequestContext, parsed: argparse.Namespace) -> Call:
        interface = describing.interface(parsed, str(context.order_id))
        arguments = {"target": parsed.server, "interface": interface.to_dict()}
        return Call("attach_interface", arguments, {"interface": interface.id, "mac": interface.mac})


class RemoveNetwork(RecordedOrder):
    """Take a network interface away from an instance."""

    method = "detach_interface"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("interface", help="the interface's id: `server show` has it")

    def arguments(self, parsed: argparse.Namespace) -> Fields:
        return {"interface_id": parsed.interface}


class Apply(RecordedOrder):
    """Have a running guest configure its interfaces as they are recorded, or as a file says from now on."""

    method = "inject_network_info"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--interfaces", metavar="FILE", help="all of them, as a list in JSON, with the ids and MACs that they have"
        )

    def arguments(self, parsed: argparse.Namespace) -> Fields:
        return {} if parsed.interfaces is None else {"interfaces": describing.known_interfaces(parsed.interfaces)}


class Reset(RecordedOrder):
    """Have a running guest's agent read its network data again."""

    method = "reset_network"


COMMANDS = {
    "server add network": AddNetwork,
    "server remove network": RemoveNetwork,
    "server network apply": Apply,
    "server network reset": Reset,
}
