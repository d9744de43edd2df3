"""A driver under many threads, native and green; and what it never imports, so that current clouds can load it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Make
from .environments import Environment, FakeEnvironment
from .wanted import WITH_AGENT
from .xenserver import XenServerEnvironment

CHECKOUT = Path(__file__).resolve().parents[3]

WORK = """
import json, sys, threading
from agent_protocol.messages import Password
from agent_protocol.outcomes import Busy
from compute_driver.agents import AgentsInMemory
from tests.contract.driver.wanted import Steps, Wanted, AGENTLESS, WITH_AGENT

told = json.load(sys.stdin)
if told["url"]:
    from compute_driver.xenapi.driver import XenServerDriver
    from compute_driver.xenapi.connection.session import Connection
    connection = Connection(told["url"], told["username"], told["password"])
    driver = XenServerDriver(connection, AgentsInMemory(), agent_timeout=60.0, boot_timeout=60.0)
else:
    from compute_driver.fake.driver import FakeDriver
    driver = FakeDriver()
    for uuid in told["guests"]:
        driver.spawn(Wanted(uuid), image=WITH_AGENT, progress=Steps())
guests = [Wanted(uuid) for uuid in told["guests"]]
begin, problems, reads, resets, busy = threading.Barrier(64), [], [], [], []

def work(number):
    try:
        begin.wait(60)
        guest = guests[number % len(guests)]
        for _ in range(3):
            assert driver.get_info(guest).state == 1
            assert set(told["guests"]) <= set(driver.list_instance_uuids())
            reads.append(number)
        if number % 8 == 0:
            try:
                driver.set_admin_password(guest, Password(f"thread {number} Pass-word"))
                resets.append(number)
            except Busy:
                busy.append(number)
    except BaseException as error:
        problems.append(repr(error))

threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(100)
assert not problems, problems[:3]
assert len(reads) == 192, len(reads)
assert len(resets) + len(busy) == 8 and resets, (resets, busy)
opens = [number for number in resets if not told["url"] and driver.opens(guests[0], f"thread {number} Pass-word")]
driver.close()
print(json.dumps({"resets": resets, "opens": opens}))
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
def test_64_threads_read_and_reset_at_once(environment: Environment, make: Make, backend: str) -> None:
    guests = [make(image=WITH_AGENT) for _ in range(2)]
    told = {"guests": [guest.uuid for guest in guests], "url": ""}
    if isinstance(environment, XenServerEnvironment):
        simulator = environment.simulator
        told |= {"url": simulator.url, "username": simulator.username, "password": simulator.password}
    done = subprocess.run(
        [sys.executable, "-c", backend + WORK],
        cwd=CHECKOUT,
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    # All resets are of the first guest, and the last of them is what opens it.
    if isinstance(environment, FakeEnvironment):
        opens = said["opens"]
    else:
        opens = [number for number in said["resets"] if environment.opens(guests[0], f"thread {number} Pass-word")]
    assert len(opens) == 1
    assert opens[0] in said["resets"]


@pytest.mark.parametrize("module", ["compute_driver.xenapi.driver", "compute_driver.fake.driver"])
def test_a_driver_imports_no_bus_no_database_and_no_green_threads(module: str) -> None:
    script = f"import sys, {module}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "compute_driver" in imported
    assert not {name for name in imported if name == "eventlet" or name.startswith(("oslo", "sqlalchemy", "alembic"))}
