"""Instances come and go: create, delete, rebuild, rescue."""

from __future__ import annotations

import argparse
from typing import Any

from agent_protocol.outcomes import Failed, Outcome, Unknown, Unsuccessful, unsuccessful

from ...context import RequestContext
from .. import describing, reading
from ..base import Fields, Order
from ..recorded import Call, RecordedOrder
from . import setup
from .setup import Setup


class Create(RecordedOrder):
    """Create an instance, boot it, give it a password, keys and files."""

    # Besides the order that --order-id is about there are those that give it what it needs.
    asking = Order.asking

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", help="name of the instance")
        parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="memory (default: %(default)s)")
        parser.add_argument("--vcpus", type=int, default=1, metavar="N", help="processors (default: %(default)s)")
        parser.add_argument("--disk", type=int, default=10, metavar="GIB", help="root disk (default: %(default)s)")
        parser.add_argument("--image", default="", metavar="IMAGE", help="what the root disk holds (default: nothing)")
        networks = parser.add_mutually_exclusive_group()
        networks.add_argument(
            "--network",
            action="append",
            default=[],
            metavar="NETWORK",
            help="uuid or name of a network to be on, with DHCP; may be repeated (default: the first that has a wire)",
        )
        networks.add_argument("--interfaces", metavar="FILE", help="all interfaces, as a list in JSON; [] for none")
        parser.add_argument(
            "--volume",
            action="append",
            default=[],
            metavar="FILE",
            help="attach the volume that FILE has in JSON",
        )
        parser.add_argument("--property", action="append", default=[], metavar="KEY=VALUE", help="metadata")
        parser.add_argument("--node", metavar="HOST", help="host to boot on (default: XenServer chooses)")
        parser.add_argument("--no-start", action="store_true", help="do not boot it")
        parser.add_argument("--config-drive", metavar="DIR", help="the files of a config drive: openstack/latest/…")
        setup.add_options(parser)

    def request(self, context: RequestContext, parsed: argparse.Namespace) -> Call:
        order_id = str(context.order_id)
        identity = describing.instance_uuid(order_id)
        arguments = {
            "display_name": parsed.name,
            "memory_mb": parsed.memory,
            "vcpus": parsed.vcpus,
            "root_gb": parsed.disk,
            "image_ref": parsed.image,
            "admin_password": None,
            "injected_files": [],
            "ssh_keys": [],
            "instance_uuid": identity,
        }
        volumes = [describing.described_volume(file) for file in parsed.volume]
        arguments.update(_unless_empty(interfaces=_interfaces(parsed, order_id)))
        arguments.update(_unless_empty(volumes=[volume.to_dict(secrets=True) for volume in volumes] or None))
        arguments.update(_unless_empty(metadata=describing.properties(parsed.property) or None, node=parsed.node))
        if parsed.no_start:
            arguments["power_on"] = False
        if parsed.config_drive is not None:
            arguments["config_drive"] = reading.config_drive(parsed.config_drive)
        shown = {"uuid": identity, "name": parsed.name}
        is_secret = any(describing.has_password(volume) for volume in volumes)
        return Call("build_and_run_instance", arguments, shown, is_secret)

    def told(self, answer: Any) -> Fields:
        return {"uuid": answer["uuid"], "name": answer["display_name"], "vm_state": answer["vm_state"]}

    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        given = Setup.read(parsed, possible=not (parsed.no_wait or parsed.no_start))
        fields = super().order(context, parsed)
        try:
            # Only now there is an agent to seal to, and the bus never sees what it gets.
            given.give(self.caller(context), fields["uuid"])
        except Unsuccessful as error:
            self._remove(context, fields["uuid"], error)
            raise
        return {**fields, **given.shown}

    def _remove(self, context: RequestContext, instance: str, error: Unsuccessful) -> None:
        # A guest that is not what was asked for is no use; the error tells why there is none.
        try:
            self.call(context, "terminate_instance", target=instance)
        except Unsuccessful as left:
            said = f"{error.message}; instance {instance} could not be removed: {left.message}"
            raise unsuccessful(error.outcome, error.code, said) from None


def _interfaces(parsed: argparse.Namespace, order_id: str) -> list[dict[str, Any]] | None:
    if parsed.interfaces is not None:
        return describing.new_interfaces(parsed.interfaces, order_id)
    return describing.interfaces_on(parsed.network, order_id) if parsed.network else None


def _unless_empty(**arguments: Any) -> Fields:
    """Those that are not None: a service that is older than an argument serves who does not need it."""
    return {name: value for name, value in arguments.items() if value is not None}


class Delete(RecordedOrder):
    """Destroy an instance and its disks; its volumes stay."""

    method = "terminate_instance"


class Rebuild(RecordedOrder):
    """Replace an instance's root disk by a new one, then give it a password, keys and files.

    Its addresses and volumes stay, its agent is a stranger again.
    """

    method = "rebuild_instance"
    asking = Order.asking

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--image", required=True, metavar="IMAGE", help="what the new root disk holds")
        setup.add_options(parser)

    def arguments(self, parsed: argparse.Namespace) -> Fields:
        return {"image_ref": parsed.image}

    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        given = Setup.read(parsed, possible=not parsed.no_wait)
        fields = super().order(context, parsed)
        try:
            given.give(self.caller(context), parsed.server)
        except Unsuccessful as error:
            # Unlike a new instance this one stays: it has an owner, addresses and volumes. Nor is `refused` true any
            # more, after which nothing would be changed.
            said = f"it was rebuilt, but lacks some of password, keys and files: {error.message}"
            kind = Unknown if error.outcome is Outcome.UNKNOWN else Failed
            raise kind(error.code, said) from None
        return {**fields, **given.shown}


class Rescue(RecordedOrder):
    """Boot an instance from another image, with its own root disk beside it.

    The rescue system's password goes to the compute service over the bus: there is no agent yet to seal it to.
    """

    method = "rescue_instance"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--image", required=True, metavar="IMAGE", help="the rescue system")
        reading.add_password_options(parser, optional=True)

    def request(self, context: RequestContext, parsed: argparse.Namespace) -> Call:
        del context
        arguments = {"target": parsed.server, "image_ref": parsed.image}
        if parsed.no_password:
            return Call(self.method, arguments)
        password, shown = reading.password(parsed, prompt=True)
        return Call(self.method, {**arguments, "rescue_password": password.value}, shown, is_secret=True)


class Unrescue(RecordedOrder):
    """Boot a rescued instance from its own disk again."""

    method = "unrescue_instance"


COMMANDS = {
    "server create": Create,
    "server delete": Delete,
    "server rebuild": Rebuild,
    "server rescue": Rescue,
    "server unrescue": Unrescue,
}
