"""The program `xenward-agent`: options, log and signals. It runs in the foreground, for a service manager."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from agent_protocol.legacy import AgentExchange
from agent_protocol.outcomes import Unsuccessful
from agent_protocol.wire import WireError
from agent_protocol.xenstore import XenStoreError

from . import VERSION, system
from .agent import Agent
from .commands import COMMANDS, SEALED_COMMANDS, Context, features
from .store import open_store, store_path

_log = logging.getLogger(__name__)


def _store(text: str) -> str:
    try:
        store_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xenward-agent", description="Carry out what this guest's host asks for.")
    parser.add_argument("--root", metavar="DIR", default="/", help="the guest's root directory (default: /)")
    parser.add_argument(
        "--store",
        metavar="unix:PATH|xenbus",
        type=_store,
        default="xenbus",
        help="how to reach XenStore (default: xenbus, the kernel's device)",
    )
    parser.add_argument("--version", action="version", version=VERSION)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent. The exit status is 0 after SIGTERM or SIGINT, 1 when the guest or its store cannot be served."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        guest = system.choose(options.root)
        store = open_store(options.store)
        context = Context(guest, AgentExchange(), VERSION, features(COMMANDS))
        agent = Agent(store, COMMANDS, SEALED_COMMANDS, context)
        _stop_on_signals(agent)
        agent.run()
    except (Unsuccessful, WireError, XenStoreError) as error:
        _log.error("%s", error)
        return 1
    return 0


def _stop_on_signals(agent: Agent) -> None:
    # In a thread of its own: the handler interrupts the agent anywhere, also where it holds its turn.
    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        threading.Thread(target=agent.stop).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


if __name__ == "__main__":
    sys.exit(main())
