"""What an idle agent costs its guest: memory, wake-ups, and the time until hosts can reach it.

The agent is the real process, its store the simulated one, its guest a directory.
"""

from __future__ import annotations

import compileall
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from agent_protocol.messages import ADVERT
from agent_protocol.xenstore import Client, StoreError, connect
from tools.simulator.guest import make_root
from tools.simulator.xenstore.server import XenStoreServer

_DOMID = 1
_VM = "3f1c0b52-7c55-4b0e-9a64-0d9f5a3f2a11"
_TIMEOUT = 30.0
"""Seconds that the agent may take for anything here; a busy machine needs some."""

_CHECKOUT = Path(__file__).resolve().parents[2]

_START = f"import runpy, sys; sys.path.insert(0, {str(_CHECKOUT)!r}); runpy.run_module('guest_agent', None, '__main__')"
"""What `python -m guest_agent` does, for an interpreter that is isolated from the environment and the directory."""

_RSS = re.compile(r"^VmRSS:\s*([0-9]+) kB$", re.MULTILINE)
_SWITCHES = re.compile(r"^voluntary_ctxt_switches:\s*([0-9]+)$", re.MULTILINE)


@dataclass(frozen=True)
class IdleFigures:
    """rss: bytes of memory in use after the idle time. wakeups: how often the agent woke up in it. start_seconds: from
    the start of its process to its advert."""

    rss: int
    wakeups: int
    start_seconds: float


def measure_idle(seconds: float) -> IdleFigures:
    """Start an agent, leave it alone for that long, and end it. RuntimeError when it does not serve."""
    with tempfile.TemporaryDirectory(prefix="xs") as name:
        directory = Path(name)
        make_root(directory / "root")
        server = XenStoreServer(directory / "store")
        server.start()
        try:
            with connect(str(server.socket)) as store:
                return _measure(store, server, directory, seconds)
        finally:
            server.stop()


def _measure(store: Client, server: XenStoreServer, directory: Path, seconds: float) -> IdleFigures:
    domain = f"/local/domain/{_DOMID}"
    store.write(f"{domain}/vm", f"/vm/{_VM}".encode())
    store.mkdir(f"{domain}/data")
    store.set_permissions(domain, ["n0", f"r{_DOMID}"])
    store.set_permissions(f"{domain}/vm", ["n0", f"r{_DOMID}"])
    store.set_permissions(f"{domain}/data", [f"n{_DOMID}"])
    store.watch(f"{domain}/{ADVERT}", "advert")
    # As it is where the agent is installed: what is compiled anew at a start takes time and memory.
    for package in ("agent_protocol", "guest_agent"):
        compileall.compile_dir(_CHECKOUT / package, quiet=2)
    options = ["--root", str(directory / "root"), "--store", f"unix:{server.introduce(_DOMID)}"]
    began = time.perf_counter()
    agent = subprocess.Popen([sys.executable, "-I", "-c", _START, *options], stderr=subprocess.DEVNULL)
    try:
        _wait_for_advert(store, f"{domain}/{ADVERT}")
        start_seconds = time.perf_counter() - began
        _wait_until_quiet(agent.pid)
        before = _number(_SWITCHES, agent.pid)
        time.sleep(seconds)
        return IdleFigures(_number(_RSS, agent.pid) * 1024, _number(_SWITCHES, agent.pid) - before, start_seconds)
    finally:
        agent.terminate()
        agent.wait()


def _wait_for_advert(store: Client, path: str) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while True:
        try:
            store.read(path)
            return
        except StoreError as error:
            if error.code != "ENOENT":
                raise
        if store.next_event(deadline - time.monotonic()) is None:
            raise RuntimeError("the agent did not show up")


def _wait_until_quiet(pid: int) -> None:
    """Until the agent has read the events of its own start and sleeps; nothing tells that from outside."""
    deadline = time.monotonic() + _TIMEOUT
    switches = -1
    while switches != (switches := _number(_SWITCHES, pid)):
        if time.monotonic() > deadline:
            raise RuntimeError("the agent does not come to rest")
        time.sleep(0.2)


def _number(field: re.Pattern[str], pid: int) -> int:
    found = field.search(Path(f"/proc/{pid}/status").read_text("ascii"))
    if found is None:
        raise RuntimeError("the agent has ended")
    return int(found[1])
