"""Two hundred guests are met in one call of the dom0 plugin, and asked in another."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Callable

from agent_protocol.adverts import verify_advert
from agent_protocol.outcomes import Outcome
from compute_driver.agents import SEALED, AgentInfo
from compute_driver.sealing import SealedRequest, read_receipt

from .fleet import agents_in, boot, xenserver
from .recorder import recorded_house

GUESTS = 200


MAX_ARGUMENT = 128 * 1024
"""Bytes of one argument of a process on Linux: XAPI gives a plugin its whole call in one."""


def test_two_hundred_sealed_requests_are_one_plugin_process(
    directory: Path, record_property: Callable[[str, object], None]
) -> None:
    with recorded_house(directory, "--no-agent") as home, xenserver(home) as server:
        guests = boot(home, server, GUESTS)
        (host,) = server.call("host.get_all")

        def call(function: str, **arguments: str) -> str:
            started = time.monotonic()
            answer = server.call("host.call_plugin", host, "xenward", function, arguments, timeout=60.0)
            seconds = time.monotonic() - started
            record_property(f"{function} seconds", seconds)
            print(f"{function}: {GUESTS} guests in {seconds:.2f} s")
            return str(answer)

        with agents_in(home, guests):
            vms = json.dumps([guest.vm for guest in guests])
            told = json.loads(call("adverts", vms=vms, timeout="30.000"))
            assert len(home.plugin_calls) == 1

            requests, agents = [], []
            for number, guest in enumerate(guests):
                advert = verify_advert(told[guest.vm].encode(), guest.vm)
                agent = AgentInfo(advert.version, advert.features, SEALED, advert.identity, advert.key)
                content = base64.b64encode(str(number).encode()).decode()
                value = json.dumps({"path": "/n", "content": content})
                requests.append(SealedRequest.seal(agent, guest.vm, "file_put", value, timeout=60.0))
                agents.append(agent)
            assert len({agent.identity for agent in agents}) == GUESTS
            assert not any(request.box for request in requests)
            entries = [{"vm": request.vm, "id": request.request_id, "value": request.value} for request in requests]
            answers = json.loads(call("exchange", requests=json.dumps(entries), timeout="30.000"))

        assert [arguments[1].count("<methodName>exchange") for arguments, _ in home.plugin_calls] == [0, 1]
        argument = home.plugin_calls[1][0][1]
        print(f"the call's argument has {len(os.fsencode(argument))} of {MAX_ARGUMENT} bytes")
        assert len(answers) == GUESTS
        for number, (guest, agent, request, answer) in enumerate(zip(guests, agents, requests, answers)):
            assert (answer["id"], answer["delivery"]) == (request.request_id, "answered")
            receipt = read_receipt(agent.identity or b"", guest.vm, request.request_id, answer["value"])
            result = request.open(receipt, answer["value"], "")
            assert (result.outcome, result.code) == (Outcome.SUCCEEDED, "")
            assert (guest.root / "n").read_text() == str(number)
