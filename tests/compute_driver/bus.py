"""Both ends of the bus in one process. oslo.messaging uses one global configuration, so they share it here too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compute_driver import bus, concurrency, config


class Switch:
    """Stands between the endpoint, which lives as long as this whole bus, and each test's own manager."""

    manager: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.manager, name)


@contextmanager
def serving(directory: Path) -> Iterator[tuple[Any, Switch]]:
    """The bus's transport, with an endpoint of host `here` on it whose manager can be set. directory: an empty one."""
    (directory / "xenward.conf").write_text(f"[DEFAULT]\nhost = here\nstate_path = {directory}\n")
    missing = object()
    before = sys.modules.get("eventlet", missing)
    concurrency.set_up("threading")
    from compute_driver import rpc

    conf = config.load(str(directory / "xenward.conf"))
    transport = bus.transport(conf)
    assert bus.is_embedded(conf)
    switch = Switch()
    server = rpc.server(transport, switch, "here")  # type: ignore[arg-type]
    server.start()
    yield transport, switch
    server.stop()
    server.wait()
    transport.cleanup()
    conf.reset()
    conf.clear_default("transport_url")
    if before is missing:
        del sys.modules["eventlet"]
    else:
        sys.modules["eventlet"] = before  # type: ignore[assignment]
