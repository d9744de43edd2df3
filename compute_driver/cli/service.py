"""`xenward service …`: the compute services that share the database."""

from __future__ import annotations

import argparse
from typing import Any

from cliff.lister import Lister

from .base import Question

COLUMNS = ["host", "version", "state", "started_at", "last_seen_at", "epoch", "lease_seconds_left", "holder", "id"]

LATE = 60.0
"""Seconds without a sign of life after which a service is called silent."""


class List(Question, Lister):
    """List the services, and who has the lease of each one's host.

    A service that did not say that it ended is `silent` when nothing was heard of it for a minute.
    """

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[list[Any]]]:
        del parsed_args
        rows = []
        for service in self.app.client.ask(self.app.new_context(), "list_services"):
            lease = service.pop("lease") or {"epoch": None, "seconds_left": None, "holder": ""}
            state = "stopped" if service["stopped_at"] else "silent" if service["seconds_silent"] > LATE else "up"
            left = lease["seconds_left"]
            shown = {
                **service,
                "state": state,
                "epoch": lease["epoch"],
                "lease_seconds_left": None if left is None else round(left, 1),
                "holder": lease["holder"],
            }
            rows.append([shown[column] for column in COLUMNS])
        return COLUMNS, rows


COMMANDS = {"service list": List}
