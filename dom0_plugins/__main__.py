"""Entry point of the plugin: what XAPI runs is a zip archive that begins here."""

import os
from typing import Callable, Dict, Mapping

from agent_protocol.xenstore import Client, XenStoreError, connect

from . import adverts as adverts_function
from . import console_log as console_log_function
from . import exchange as exchange_function
from . import status as status_function
from .xapi import Function, PluginFailure, dispatch

SOCKET = "/var/run/xenstored/socket"
"""Where dom0's XenStore daemon listens; libxenstore's variable XENSTORED_PATH names another place."""


def _open_store() -> Client:
    return connect(os.environ.get("XENSTORED_PATH", SOCKET))


def _with_store(function: Callable[[Mapping[str, str], Client], str], arguments: Mapping[str, str]) -> str:
    try:
        with _open_store() as store:
            return function(arguments, store)
    except XenStoreError as error:
        raise PluginFailure("XENWARD_XENSTORE", str(error)) from None


def exchange(arguments: Mapping[str, str]) -> str:
    """See exchange.exchange. A XenStore that does not answer fails the call with XENWARD_XENSTORE."""
    return _with_store(exchange_function.exchange, arguments)


def adverts(arguments: Mapping[str, str]) -> str:
    """See adverts.adverts. A XenStore that does not answer fails the call with XENWARD_XENSTORE."""
    return _with_store(adverts_function.adverts, arguments)


def console_log(arguments: Mapping[str, str]) -> str:
    """See console_log.console_log. A XenStore that does not answer fails the call with XENWARD_XENSTORE."""
    return _with_store(console_log_function.console_log, arguments)


def version(_arguments: Mapping[str, str]) -> str:
    """See status.version. It takes no arguments."""
    return status_function.version(FUNCTIONS)


def status(_arguments: Mapping[str, str]) -> str:
    """See status.status. It takes no arguments."""
    return status_function.status(_open_store, FUNCTIONS)


FUNCTIONS: Dict[str, Function] = {
    "adverts": adverts,
    "console_log": console_log,
    "exchange": exchange,
    "status": status,
    "version": version,
}


def main() -> None:
    """Serve the one call that this process was started for."""
    dispatch(FUNCTIONS)


if __name__ == "__main__":
    main()
