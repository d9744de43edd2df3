"""Agents that do not do as they should, as processes that a simulated guest runs in place of the real one.

    python standin_agent.py SOCKET BEHAVIOUR

old-style     answers like the existing unix agents: no advert, no claims, no outcome in its replies
takes-orders  claims a password and never answers
ignores       takes and answers everything but passwords, and does not claim (an existing agent that hangs)
refuses-key   answers keyinit with a degenerate public number
garbage       answers everything with bytes that are no JSON
"""

from __future__ import annotations

import json
import sys

from agent_protocol.legacy import AgentExchange
from agent_protocol.messages import ADVERT, CLAIMS, REPLIES, REQUESTS, Advert, encode_advert
from agent_protocol.xenstore import Client, StoreError, connect


def serve(store: Client, behaviour: str) -> None:
    exchange = AgentExchange()
    seen = set()
    if behaviour == "takes-orders":
        store.write(ADVERT, encode_advert(Advert("0", "boot", ("version", "features", "keyinit", "password"))))
    store.watch(REQUESTS, "requests")
    while True:
        store.next_event(None)
        try:
            waiting = [name for name in store.directory(REQUESTS) if name not in seen]
        except StoreError:
            continue
        for name in waiting:
            seen.add(name)
            request = json.loads(store.read(f"{REQUESTS}/{name}"))
            if request["name"] == "password":
                if behaviour == "takes-orders":
                    store.write(f"{CLAIMS}/{name}", b"")
                    continue
                if behaviour == "ignores":
                    continue
            store.write(f"{REPLIES}/{name}", reply(request, behaviour, exchange))
            store.remove(f"{REQUESTS}/{name}")


def reply(request: dict[str, str], behaviour: str, exchange: AgentExchange) -> bytes:
    if behaviour == "garbage":
        return b"\xff\xfe{"
    answers = {
        "version": lambda: ("0", "0.0.1.38"),
        "features": lambda: ("0", "version,features,keyinit,password,injectfile,resetnetwork"),
        "keyinit": lambda: ("D0", "1" if behaviour == "refuses-key" else exchange.accept(request["value"])),
        "password": lambda: ("0", "" if exchange.open(request["value"]) else "no"),
        "injectfile": lambda: ("0", ""),
    }
    returncode, message = answers.get(request["name"], lambda: ("404", "unknown"))()
    return json.dumps({"returncode": returncode, "message": message}).encode()


if __name__ == "__main__":
    serve(connect(sys.argv[1]), sys.argv[2])
