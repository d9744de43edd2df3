"""Two hundred guests in one call of one plugin process, each over its own connection to the store."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Callable

from agent_protocol.xenstore import Client
from tests.agent_protocol.store import DEADLINE, in_background
from tests.dom0_plugins.conftest import Guest, read_or_none, request
from tests.dom0_plugins.test_plugin_process import run
from tools.packages.dom0_plugin import build
from tools.simulator.xenstore.server import XenStoreServer

GUESTS = 200
AGENTS = 4
"""Threads that play the agents, each those of a quarter of the guests."""

BOUND = 10.0
"""Seconds that the call may take here, daemon and agents included; it takes about one."""


def test_two_hundred_guests(
    server: XenStoreServer, dom0: Client, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    plugin = tmp_path / "xenward"
    build(plugin, sys.executable)
    guests = [Guest(server, dom0, domid) for domid in range(1, GUESTS + 1)]
    requests = [request(guest, f"for {guest.domid}") for guest in guests]

    def play(part: int) -> None:
        for guest, entry in list(zip(guests, requests))[part::AGENTS]:
            guest.claim(entry["id"])
            guest.reply(entry["id"], guest.take(entry["id"]) + b": done")
            guest.store.remove(f"data/xenward/claims/{entry['id']}")

    agents = [in_background(lambda part=part: play(part)) for part in range(AGENTS)]  # type: ignore[misc]
    started = time.monotonic()
    answer = run(plugin, server.socket, "exchange", {"requests": json.dumps(requests), "timeout": str(DEADLINE)})
    seconds = time.monotonic() - started
    record_property("seconds", seconds)
    print(f"{GUESTS} guests: {seconds:.2f} s")
    for agent in agents:
        agent.result(DEADLINE)
    results = json.loads(answer["Value"])
    assert [(result["id"], result["delivery"], result["value"]) for result in results] == [
        (entry["id"], "answered", f"for {guest.domid}: done") for guest, entry in zip(guests, requests)
    ]
    assert all(guest.leftovers() == [] for guest in guests)
    assert read_or_none(dom0, f"{guests[0].domain}/xenward") is None
    assert seconds < BOUND
    for guest in guests:
        guest.store.close()
