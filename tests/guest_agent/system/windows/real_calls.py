"""Calls of the running Windows' WindowsSystem, for test_real.py: prints how each of the arguments ends."""

from __future__ import annotations

import sys

from agent_protocol.messages import Password
from agent_protocol.outcomes import Unsuccessful
from guest_agent.system.windows import WindowsSystem


def main() -> None:
    system = WindowsSystem()
    for call in sys.argv[1:]:
        try:
            print(repr(eval(f"system.{call}", {"system": system, "Password": Password})))
        except Unsuccessful as error:
            print(error.outcome, error.code)


if __name__ == "__main__":
    main()
