"""Many password resets at once, through a compute service of its own, a real broker and a real database."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url, text

from compute_driver import passwords
from compute_driver.context import RequestContext
from tools.commands.environment import CHECKOUT
from tools.simulator.process import SimulatorProcess

NAME = "bench"

BUS = "rabbit://guest:guest@127.0.0.1:5672/"
DATABASE = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"

_BOOTERS = 4
"""Guests that are booted together; more only wait for one another on a small machine."""


def measure_concurrent(resets: int, rounds: int, *, bus: str, database: str) -> dict[str, dict[str, float]]:
    """Figures for each backend: throughput, and percentiles of the seconds that a caller waits.

    resets: passwords that are reset at the same time, each in a guest of its own; rounds: how often all of them are.
    bus: transport URL. database: SQLAlchemy URL of any database of a server; one beside it is made, and dropped.
    """
    figures = {}
    with tempfile.TemporaryDirectory(prefix="xenward-bench-") as name, _database_beside(database) as own:
        state = Path(name)
        host = f"bench-{uuid.uuid4().hex[:8]}"
        with SimulatorProcess(["--state", str(state / "xenserver")]) as simulator:
            guests: list[str] = []
            for backend in ("threading", "eventlet"):
                conf = _configure(state, simulator, host, backend, bus, own)
                with _service(conf, state):
                    client = _client(conf)
                    guests = guests or _boot(client, resets)
                    figures[backend] = _figures(*_reset_all(client, guests, rounds))
    return figures


@contextmanager
def _database_beside(url: str) -> Iterator[str]:
    made = f"xenward_bench_{uuid.uuid4().hex[:12]}"
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    forced = " WITH (FORCE)" if server.dialect.name == "postgresql" else ""
    try:
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {made}"))
        try:
            yield make_url(url).set(database=made).render_as_string(hide_password=False)
        finally:
            with server.connect() as connection:
                connection.execute(text(f"DROP DATABASE {made}{forced}"))
    finally:
        server.dispose()


def _configure(state: Path, simulator: SimulatorProcess, host: str, backend: str, bus: str, database: str) -> Path:
    conf = state / "xenward.conf"
    conf.touch(mode=0o600)
    conf.write_text(
        f"[DEFAULT]\nhost = {host}\nstate_path = {state}\nconcurrency_backend = {backend}\ntransport_url = {bus}\n\n"
        # Nothing is to be left on the broker: queues that remove themselves, in place of quorum queues.
        "[oslo_messaging_rabbit]\namqp_auto_delete = true\n\n"
        f"[database]\nconnection = {database}\n\n"
        f"[xenserver]\nurl = {simulator.url}\nusername = {simulator.username}\npassword = {simulator.password}\n\n"
        "[endpoint]\nport = -1\n\n[logging]\nlevel = warning\n"
    )
    return conf


@contextmanager
def _service(conf: Path, state: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "compute_driver.service", "--config-file", str(conf)]
    with (state / "service.log").open("a") as log:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise SystemExit((state / "service.log").read_text())
            yield
        finally:
            process.terminate()
            process.wait(timeout=120)


def _client(conf_file: Path) -> Any:
    from compute_driver import concurrency, config

    conf = config.load(str(conf_file))
    # The caller's side has native threads; what is compared is the service.
    concurrency.set_up("threading")
    from compute_driver import bus, rpc

    return rpc.ComputeClient(bus.transport(conf), conf.host)


def _boot(client: Any, number: int) -> list[str]:
    def boot(index: int) -> str:
        made = client.order(
            RequestContext.new(NAME),
            "build_and_run_instance",
            display_name=f"{NAME}-{index}",
            memory_mb=64,
            vcpus=1,
            root_gb=1,
            admin_password=passwords.generate().value,
        )
        return str(made["uuid"])

    with ThreadPoolExecutor(_BOOTERS) as pool:
        return list(pool.map(boot, range(number)))


def _reset_all(client: Any, guests: list[str], rounds: int) -> tuple[list[float], float]:
    from compute_driver.caller import Caller

    def reset(guest: str) -> float:
        began = time.perf_counter()
        Caller(client, RequestContext.new(NAME)).set_password(guest, passwords.generate())
        return time.perf_counter() - began

    seconds: list[float] = []
    with ThreadPoolExecutor(len(guests)) as pool:
        began = time.perf_counter()
        for _ in range(rounds):
            seconds += pool.map(reset, guests)
        return seconds, time.perf_counter() - began


def _figures(seconds: list[float], total: float) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {
        "resets": len(seconds),
        "per second": round(len(seconds) / total, 1),
        "p50": round(cuts[49], 3),
        "p90": round(cuts[89], 3),
        "p99": round(cuts[98], 3),
        "most": round(max(seconds), 3),
    }
