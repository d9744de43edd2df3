"""The first process of a machine's namespaces: its network, its Windows session, and the relay to XenStore.

    python -m tools.labs.wine.inside LOADER [STORE]

It says `ready` on standard output when Windows has booted, and runs until its standard input ends; with it end all
processes of the namespaces, by the kernel. machine.py starts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence

from tools.labs.wine.relay import Relay

_READY = "ready"

_SESSION = ("cmd.exe", "/c", f"echo {_READY}&pause")
"""Keeps a session, without which Windows shuts down, and says when there is one. It ends with its standard input."""


async def _reap() -> None:
    # A namespace's first process gets all those that have lost their parents.
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG) is not None:
                pass
        await asyncio.sleep(1)


async def _run(loader: str, store: str | None) -> None:
    if store is not None:
        await Relay(store).start()
    loop = asyncio.get_running_loop()
    # Not by asyncio, which wants to see its children's end itself.
    session = subprocess.Popen([loader, *_SESSION], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert session.stdout is not None
    said = await loop.run_in_executor(None, session.stdout.readline)
    if said.decode("ascii", "replace").strip() != _READY:
        raise SystemExit("Windows does not boot")
    print(_READY, flush=True)
    reaping = asyncio.ensure_future(_reap())
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    reaping.cancel()


def main(arguments: Sequence[str]) -> None:
    """See above. SystemExit when Windows does not boot."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    asyncio.run(_run(arguments[0], arguments[1] if len(arguments) > 1 else None))
    # Nothing that is left is waited for.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
