"""Instances change their size and their place."""

from __future__ import annotations

import argparse

from agent_protocol.outcomes import Refused

from ...context import RequestContext
from ..base import Fields, without_order
from ..recorded import Call, RecordedOrder


class Resize(RecordedOrder):
    """Give an instance other sizes, which `server resize confirm` or `server resize revert` has to end.

    It is shut down for it, and boots again. Disks only grow.
    """

    method = "resize_instance"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--memory", type=int, metavar="MIB", help="memory (default: as it has)")
        parser.add_argument("--vcpus", type=int, metavar="N", help="processors (default: as it has)")
        parser.add_argument("--disk", type=int, metavar="GIB", help="root disk (default: as it has)")
        parser.add_argument("--node", metavar="HOST", help="host that it goes to as well (default: XenServer chooses)")

    def request(self, context: RequestContext, parsed: argparse.Namespace) -> Call:
        sizes = {"memory_mb": parsed.memory, "vcpus": parsed.vcpus, "root_gb": parsed.disk}
        wanted = {name: size for name, size in sizes.items() if size is not None}
        if not wanted:
            raise Refused("bad_size", "a resize needs --memory, --vcpus or --disk")
        target = parsed.server
        if len(wanted) < len(sizes):
            instance = self.app.client.ask(without_order(context), "get_instance", target=target)
            wanted = {**{name: instance[name] for name in sizes}, **wanted}
            # By its uuid from now on: a name may be given away meanwhile.
            target = instance["uuid"]
        node = {} if parsed.node is None else {"node": parsed.node}
        return Call(self.method, {"target": target, **wanted, **node})


class Confirm(RecordedOrder):
    """Keep a resized or migrated instance as it is now; there is no way back then."""

    method = "confirm_resize"


class Revert(RecordedOrder):
    """Put a resized or migrated instance back as it was before, disk contents included."""

    method = "revert_resize"


class _ToNode(RecordedOrder):
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--node", required=True, metavar="HOST", help="host that it goes to")

    def arguments(self, parsed: argparse.Namespace) -> Fields:
        return {"node": parsed.node}


class Migrate(_ToNode):
    """Shut an instance down and move it to another host; `server resize confirm` or `server resize revert` ends it."""

    method = "migrate_instance"


class MigrateLive(_ToNode):
    """Move a running instance to another host while it runs."""

    method = "live_migrate_instance"


COMMANDS = {
    "server resize": Resize,
    "server resize confirm": Confirm,
    "server resize revert": Revert,
    "server migrate": Migrate,
    "server migrate live": MigrateLive,
}
