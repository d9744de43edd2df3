"""Calls, long work and events from many native threads, and from as many green ones in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.simulator.process import SimulatorProcess

CHECKOUT = Path(__file__).resolve().parents[4]

WORK = """
import sys, threading
from compute_driver.xenapi.connection.session import Connection, XenServer
from tests.compute_driver.xenapi.waiting import vm_record

url, username, fingerprint = sys.argv[1:]
password = sys.stdin.readline().strip()
server = XenServer(Connection(url, username, password, fingerprints=(fingerprint,)))
events = server.events
assert events.await_change(lambda view: True, 30.0)
problems, done = [], []

def work(number):
    try:
        name = f"vm-{number}"
        vm = server.call("VM.create", vm_record(name, other_config={"xenward:instance": name}))
        server.run("VM.start", vm, False, False, timeout=60.0)
        assert events.wait_for("VM", vm, lambda row: row["power_state"] == "Running", 60.0)
        assert events.vm_of(name).ref == vm
        server.run("VM.hard_shutdown", vm, timeout=60.0)
        events.barrier(60.0)
        assert events.record("VM", vm)["power_state"] == "Halted"
        assert server.call("VM.get_name_label", vm) == name
        server.call("VM.destroy", vm)
        done.append(number)
    except BaseException as error:
        problems.append(repr(error))

threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(100)
assert not problems, problems[:3]
assert len(done) == 64, len(done)
assert events.is_live
server.close()
print("done")
"""

NATIVE = """
import sys
sys.modules["eventlet"] = None
"""

GREEN = """
import warnings
warnings.simplefilter("ignore")
import eventlet
eventlet.monkey_patch()
import threading, socket
assert socket.socket.__module__.startswith("eventlet")
"""


@pytest.mark.parametrize("backend", [NATIVE, GREEN], ids=["native", "green"])
def test_64_threads_work_together(backend: str) -> None:
    with SimulatorProcess(["--no-agent", "--login-failure-delay", "0", "--tls"]) as simulator:
        done = subprocess.run(
            [sys.executable, "-c", backend + WORK, simulator.url, simulator.username, simulator.fingerprint],
            cwd=CHECKOUT,
            input=f"{simulator.password}\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=110,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout
