"""The compute service in this process, in front of a simulated XenServer: what quickstart and bench work with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compute_driver import concurrency, config
from tools.simulator.process import SimulatorProcess


def write_settings(state: Path, simulator: SimulatorProcess, agent_protocol: str = "prefer-sealed") -> Path:
    """A configuration file for `xenward` that names the simulated XenServer; only its owner may read it."""
    settings = state / "xenward.conf"
    settings.touch(mode=0o600)
    settings.write_text(
        f"[DEFAULT]\nhost = simulated\nstate_path = {state}\n\n"
        f"[xenserver]\nurl = {simulator.url}\nusername = {simulator.username}\npassword = {simulator.password}\n\n"
        f"[agent]\nprotocol = {agent_protocol}\n"
    )
    return settings


@contextmanager
def client(settings: Path) -> Iterator[Any]:
    """A client (rpc.ComputeClient) of a service that runs in this process while the block does."""
    conf = config.load(str(settings))
    concurrency.set_up(conf.concurrency_backend)
    # Only now: the process's edge decides on concurrency before the bus is imported.
    from compute_driver import bus, rpc
    from compute_driver.service import assembly

    transport = bus.transport(conf)
    with assembly.embedded(conf, transport):
        yield rpc.ComputeClient(transport, conf.host)
