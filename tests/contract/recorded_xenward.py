"""The command `xenward` with its embedded bus written down: each message, its context, and what it was answered."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from compute_driver import bus
from compute_driver.cli.main import run

from .recorder import BUS_LOG


def _record(what: str, told: object) -> None:
    with Path(os.environ[BUS_LOG]).open("a") as log:
        log.write(json.dumps([what, told], default=repr) + "\n")


def _recorded(transport: Any) -> Any:
    def recorded(conf: Any) -> Any:
        made = transport(conf)
        # Only now: the command decides on concurrency before the bus is imported.
        from oslo_messaging._drivers.impl_fake import FakeDriver

        send = FakeDriver._send

        def recorded_send(self: Any, target: Any, ctxt: Any, message: Any, *arguments: Any, **named: Any) -> Any:
            _record("message", [repr(target), ctxt, message])
            try:
                answer = send(self, target, ctxt, message, *arguments, **named)
            except BaseException as error:
                _record("failure", repr(error))
                raise
            _record("answer", answer)
            return answer

        FakeDriver._send = recorded_send
        return made

    return recorded


if __name__ == "__main__":
    bus.transport = _recorded(bus.transport)
    run()
