"""The program `xenward-agent`: options, log and signals. It runs in the foreground, for a service manager."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from agent_protocol.outcomes import Unsuccessful

from . import VERSION, log, system
from .agent import Agent
from .start import prepared
from .store import check_store
from .update.running import PROCESS

__all__ = ["main", "prepared"]

_END_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


def _store(text: str) -> str:
    try:
        return check_store(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xenward-agent", description="Carry out what this guest's host asks for.")
    parser.add_argument("--root", metavar="DIR", default="/", help="the guest's root directory (default: /)")
    parser.add_argument(
        "--store",
        metavar="unix:PATH|xenbus|windows",
        type=_store,
        help="how to reach XenStore (default: what the configuration says, or xenbus, the kernel's device; in Windows "
        "windows, which is whatever xeniface or wmi reaches)",
    )
    parser.add_argument("--check", action="store_true", help="tell what works in this guest and what does not, and end")
    parser.add_argument("--json", action="store_true", help="with --check: one line for programs")
    parser.add_argument("--version", action="version", version=VERSION)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent, with or without a network, and for as long as it takes until there is a store; or check the guest.

    An update of the agent takes its place in the same process. The exit status is 0 after SIGTERM or SIGINT, 1 when
    this guest cannot be served, is served by another agent, or the update cannot be started, 2 when its configuration
    or the command line is wrong.
    """
    options = _parser().parse_args(arguments)
    if options.check:
        from .check import main as check

        return check(options.root, options.store, as_json=options.json)
    log.set_up()
    try:
        guest = system.choose(options.root)
        guest.hold()
    except Unsuccessful as error:
        _log.error("%s", error)
        return 1
    try:
        agent = prepared(guest, options.store)
    except Unsuccessful as error:
        _log.error("%s", error)
        return 2
    came = _stop_on_signals(agent)
    agent.run()
    if PROCESS.restart_wanted:
        # From here on a signal ends the process; one that came before must not get lost with it.
        for number in _END_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if came:
            return 0
        try:
            PROCESS.restart()
        except OSError as error:
            _log.error("the agent cannot start its update: %s", error.strerror)
            return 1
    return 0


def _stop_on_signals(agent: Agent) -> list[int]:
    """The list of those that came, which grows."""
    came: list[int] = []

    # In a thread of its own: the handler interrupts the agent anywhere, also where it holds its turn.
    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)
        threading.Thread(target=agent.stop).start()

    for number in _END_SIGNALS:
        signal.signal(number, handle)
    return came


if __name__ == "__main__":
    sys.exit(main())
