"""`xenward agent …`: the agents in guests, and which of them are trusted."""

from __future__ import annotations

import argparse
from typing import Any

from cliff.show import ShowOne

from agent_protocol.outcomes import Refused

from .base import Fields, Question, add_server
from .recorded import RecordedOrder

_SHOWN = ("version", "protocol", "fingerprint", "key_id", "clock_offset", "features", "guest")


class Show(Question, ShowOne):
    """Show what is remembered of an instance's agent; the fingerprint is that of the identity it is pinned to."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        add_server(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        agent = self.app.client.ask(self.app.new_context(), "get_agent", target=parsed_args.server, action=None)
        if agent is None:
            raise Refused("agent_unknown", "the instance's agent was never met")
        return list(_SHOWN), [agent[name] for name in _SHOWN]


class Trust(RecordedOrder):
    """Pin the agent that is in the guest now, in place of the one that was known."""

    method = "trust_agent"

    def told(self, answer: Any) -> Fields:
        return {"fingerprint": answer["fingerprint"], "version": answer["version"]}


COMMANDS = {
    "agent show": Show,
    "agent trust": Trust,
}
