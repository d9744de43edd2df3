"""`xenward-compute` as a test wants it: known to the hypervisor by a name of its own, and stopped where it is asked to.

python -m tests.compute_driver.service.named_main NAME STOP_AT [option of xenward-compute…]

NAME is what its sessions are called there. When the file STOP_AT exists, it holds the name of a call, such as
`VM.hard_shutdown`: the first of these that the fence lets pass is stopped right then, with the whole process (SIGSTOP),
and the file is gone.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any

from compute_driver import concurrency
from compute_driver.service import process

_call = threading.local()


def name_sessions(name: str) -> None:
    from compute_driver.xenapi.connection import sdk_session

    sdk_session.ORIGINATOR = name


def stop_at(trigger: Path) -> None:
    from compute_driver.service.leases import LeaseKeeper
    from compute_driver.xenapi.connection.sdk_session import Session

    call, check = Session.call, LeaseKeeper.check

    def named(self: Session, method: str, *arguments: Any) -> Any:
        _call.method = method
        return call(self, method, *arguments)

    def checked(self: LeaseKeeper) -> None:
        check(self)
        try:
            method = trigger.read_text()
        except FileNotFoundError:
            return
        if method.strip() and getattr(_call, "method", "").endswith(method):
            trigger.unlink()
            # To this very thread: it does not come to its next step.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    Session.call = named  # type: ignore[method-assign]
    LeaseKeeper.check = checked  # type: ignore[method-assign]


def main() -> int:
    name, trigger = sys.argv[1], Path(sys.argv[2])
    del sys.argv[1:3]
    set_up = concurrency.set_up

    def and_ours(backend: str) -> None:
        set_up(backend)
        # Only now may the rest be imported.
        name_sessions(name)
        stop_at(trigger)

    concurrency.set_up = and_ours
    return process.main()


if __name__ == "__main__":
    sys.exit(main())
