"""`xenward`, the operator's command: sets up, runs one subcommand, ends with an exit status per outcome."""

from __future__ import annotations

import argparse
import getpass
import logging
import os
import sys
from contextlib import ExitStack
from importlib.metadata import version
from itertools import takewhile
from typing import Any, NoReturn

from cliff.app import App
from cliff.commandmanager import CommandManager

from .. import concurrency, config
from ..context import RequestContext
from . import agent, console, host, order, plugin, server, service
from .base import EXIT_STATUS
from .recorded import ORDER_TIMEOUT

COMMANDS: dict[str, Any] = {
    **server.COMMANDS,
    **console.COMMANDS,
    **order.COMMANDS,
    **agent.COMMANDS,
    **host.COMMANDS,
    **plugin.COMMANDS,
    **service.COMMANDS,
}


class WholeNames(CommandManager):
    """Finds commands by whole names. cliff takes an instance called `rev` for short for `server resize revert`."""

    def find_command(self, argv: list[str]) -> tuple[Any, str, list[str]]:
        """The class of a command, its name, and its arguments. ValueError when there is none."""
        words = list(takewhile(lambda argument: not argument.startswith("-"), argv))
        for count in range(len(words), 0, -1):
            name = " ".join(words[:count])
            if name in self.commands:
                return self.commands[name].load(), name, argv[count:]
        raise ValueError(f"Unknown command {argv!r}")


class XenwardApp(App):
    """The command and what its subcommands need: a client of the compute service, and the request's context."""

    NAME = "xenward"
    DEFAULT_VERBOSE_LEVEL = 0

    def __init__(self) -> None:
        commands = WholeNames("xenward.cli")
        for name, command in COMMANDS.items():
            commands.add_command(name, command)
        super().__init__(
            description="Control Xen guests from outside. Exit status: "
            + ", ".join(f"{status} {outcome}" for outcome, status in EXIT_STATUS.items())
            + ".",
            version=version("xenward"),
            command_manager=commands,
            deferred_help=True,
        )
        self._stack = ExitStack()
        self._bus: tuple[Any, Any] | None = None
        self._client: Any = None

    def build_option_parser(self, *arguments: Any, **named: Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().build_option_parser(*arguments, **named)
        parser.add_argument("--config-file", help="configuration to read (default: $XENWARD_CONFIG_FILE, then /etc)")
        return parser

    def configure_logging(self) -> None:
        """Warnings to standard error, more with -v. An embedded service's own log is for -v only."""
        super().configure_logging()
        if self.options.verbose_level < 1:
            logging.getLogger("compute_driver").setLevel(logging.CRITICAL)

    @property
    def is_embedded(self) -> bool:
        """Whether the compute service runs in this process: it ends with the command."""
        conf, _ = self._connect()
        from .. import bus

        return bus.is_embedded(conf)

    @property
    def client(self) -> Any:
        """The compute service's client (rpc.ComputeClient). With an embedded bus the service runs in this process."""
        if self._client is None:
            conf, transport = self._connect()
            from .. import bus, rpc
            from ..service import assembly

            if bus.is_embedded(conf):
                self._stack.enter_context(assembly.embedded(conf, transport))
            self._client = rpc.ComputeClient(transport, conf.host, order_timeout=ORDER_TIMEOUT)
        return self._client

    def _connect(self) -> tuple[Any, Any]:
        """The configuration, and the transport of its bus. Concurrency is decided on before the bus is imported."""
        if self._bus is None:
            conf = config.load(self.options.config_file)
            concurrency.set_up(conf.concurrency_backend)
            from .. import bus

            self._bus = conf, bus.transport(conf)
        return self._bus

    def new_context(self) -> RequestContext:
        """The context of this invocation: a new request id, and who runs the command."""
        return RequestContext.new(getpass.getuser())

    def close(self) -> None:
        """End what was started for this invocation."""
        self._stack.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    app = XenwardApp()
    try:
        return int(app.run(sys.argv[1:] if arguments is None else arguments))
    finally:
        app.close()


def run() -> NoReturn:
    """The console script: main(), and then the end at once, without waiting for the bus's idle workers."""
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
