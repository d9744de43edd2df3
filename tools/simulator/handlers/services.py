"""What other pools ask for: PUT /services/xenops, by which a VM comes from one of them (between_pools)."""

from __future__ import annotations

import logging

from .. import tasks
from ..between_pools import receiver
from ..formats.streams import FormatError
from .request import Refused, Request

LOG = logging.getLogger("xenward.simulator.migration")


def receive(request: Request) -> None:
    """Let another pool send a VM over this connection."""
    state = request.state
    if state.settings.hypervisor != "simulated":
        raise Refused(501)

    def write(data: bytes) -> None:
        request.write(data)
        request.http.wfile.flush()

    request.answer({"content-type": "application/octet-stream"})
    with state.tasks.performing(tasks.dummy("VM.migrate_receive")):
        try:
            receiver.serve(state, request.session, request.body(), write)
        except FormatError as error:
            LOG.info("what another pool says is not right: %s", error)
