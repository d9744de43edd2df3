"""Measure how long the main operations take, over the simulated XenServer and everything that stands before it; or,
with --idle, what an agent costs its guest that nobody asks anything; or, with --reads, what it costs to read VMs; or,
with --concurrent, how a service, RabbitMQ and a database bear many password resets at once."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from compute_driver import passwords
from compute_driver.context import RequestContext
from compute_driver.files import InjectedFile
from tools.commands import concurrent, embedded
from tools.commands.idle import measure_idle
from tools.commands.reads import measure_reads
from tools.simulator.process import SimulatorProcess

NAME = "bench"


def main() -> int:
    """`tools/bench`: prints medians and extremes; the machine's noise is in them."""
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="runs of each operation (default: %(default)s)")
    parser.add_argument(
        "--protocol", default="prefer-sealed", help="how the agent is spoken to, or `legacy` (default: %(default)s)"
    )
    parser.add_argument("--idle", type=float, metavar="SECONDS", help="measure an idle agent for so long instead")
    parser.add_argument("--reads", type=int, metavar="VMS", help="measure reads in a pool of so many VMs instead")
    parser.add_argument("--concurrent", type=int, metavar="RESETS", help="measure so many resets at once instead")
    parser.add_argument(
        "--bus", default=concurrent.BUS, help="with --concurrent: transport URL (default: this machine)"
    )
    parser.add_argument("--database", default=concurrent.DATABASE, help="with --concurrent: SQLAlchemy URL (likewise)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    if options.idle is not None:
        return _idle(options.idle, as_json=options.json)
    if options.reads is not None:
        return _reads(options.reads, options.rounds, as_json=options.json)
    if options.concurrent is not None:
        figures = concurrent.measure_concurrent(
            options.concurrent, options.rounds, bus=options.bus, database=options.database
        )
        title = f"Seconds for a reset, {options.concurrent} at once"
        _show_figures(figures, title, "backend", as_json=options.json)
        return 0
    with tempfile.TemporaryDirectory(prefix="xenward-bench-") as name:
        state = Path(name)
        with (
            SimulatorProcess(["--state", str(state / "xenserver")]) as simulator,
            embedded.client(embedded.write_settings(state, simulator, options.protocol)) as client,
        ):
            seconds = _measure(client, options.rounds, large_files=options.protocol != "legacy")
    if options.json:
        print(json.dumps({what: _summary(runs) for what, runs in seconds.items()}))
    else:
        _show(seconds)
    return 0


def _idle(seconds: float, *, as_json: bool) -> int:
    figures = measure_idle(seconds)
    if as_json:
        print(json.dumps(asdict(figures)))
    else:
        print(
            f"start to advert {figures.start_seconds:.3f} s, resident memory {figures.rss / 2**20:.1f} MiB, "
            f"woken up {figures.wakeups} times in {seconds:g} s"
        )
    return 0


def _reads(vms: int, rounds: int, *, as_json: bool) -> int:
    _show_figures(
        measure_reads(vms, rounds), f"Milliseconds for a read, in a pool of {vms} VMs", "read", as_json=as_json
    )
    return 0


def _show_figures(figures: dict[str, dict[str, float]], title: str, first: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures))
        return
    table = Table(title=title)
    for column in (first, *next(iter(figures.values()))):
        table.add_column(column, justify="left" if column == first else "right")
    for what, summary in figures.items():
        table.add_row(what, *(f"{value:g}" for value in summary.values()))
    Console().print(table)


def _measure(client: Any, rounds: int, *, large_files: bool) -> dict[str, list[float]]:
    def order(method: str, **arguments: Any) -> None:
        client.order(RequestContext.new(NAME), method, **arguments)

    def create() -> None:
        order(
            "build_and_run_instance",
            display_name=NAME,
            memory_mb=512,
            vcpus=1,
            root_gb=1,
            admin_password=passwords.generate().value,
            injected_files=[],
            ssh_keys=[],
        )

    from compute_driver.caller import Caller

    def put(size: int) -> None:
        Caller(client, RequestContext.new(NAME)).put_file(NAME, InjectedFile("/root/file", bytes(size), 0o600))

    operations: dict[str, Callable[[], Any]] = {
        "set_admin_password": lambda: order("set_admin_password", target=NAME, new_pass=passwords.generate().value),
        "set_admin_password, sealed by the caller": lambda: Caller(client, RequestContext.new(NAME)).set_password(
            NAME, passwords.generate()
        ),
        "inject_file, 512 bytes": lambda: put(512),
        "inject_file, 1 MiB": lambda: put(1024 * 1024),
        "get_instance": lambda: client.ask(RequestContext.new(NAME), "get_instance", target=NAME),
        "reboot_instance HARD": lambda: order("reboot_instance", target=NAME, reboot_type="HARD"),
    }
    if not large_files:
        del operations["inject_file, 1 MiB"]
    seconds = {"build_and_run_instance": [_timed(create)]}
    for what, operation in operations.items():
        seconds[what] = [_timed(operation) for _ in range(rounds)]
    return seconds


def _timed(operation: Callable[[], Any]) -> float:
    began = time.perf_counter()
    operation()
    return time.perf_counter() - began


def _summary(runs: list[float]) -> dict[str, float]:
    return {
        "runs": len(runs),
        "least": round(min(runs), 4),
        "median": round(statistics.median(runs), 4),
        "most": round(max(runs), 4),
    }


def _show(seconds: dict[str, list[float]]) -> None:
    table = Table(title="Seconds from the caller's view, bus and database included")
    for column in ("operation", "runs", "least", "median", "most"):
        table.add_column(column, justify="left" if column == "operation" else "right")
    for what, runs in seconds.items():
        summary = _summary(runs)
        table.add_row(what, str(len(runs)), *(f"{summary[name]:.3f}" for name in ("least", "median", "most")))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
