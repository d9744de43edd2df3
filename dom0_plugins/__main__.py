"""Entry point of the plugin: what XAPI runs is a zip archive that begins here."""

import os
from typing import Mapping

from agent_protocol.xenstore import XenStoreError, connect

from . import exchange as exchange_function
from .xapi import PluginFailure, dispatch

SOCKET = "/var/run/xenstored/socket"
"""Where dom0's XenStore daemon listens; libxenstore's variable XENSTORED_PATH names another place."""


def exchange(arguments: Mapping[str, str]) -> str:
    """See exchange.exchange. A XenStore that does not answer fails the call with XENWARD_XENSTORE."""
    try:
        with connect(os.environ.get("XENSTORED_PATH", SOCKET)) as store:
            return exchange_function.exchange(arguments, store)
    except XenStoreError as error:
        raise PluginFailure("XENWARD_XENSTORE", str(error)) from None


def main() -> None:
    """Serve the one call that this process was started for."""
    dispatch({"exchange": exchange})


if __name__ == "__main__":
    main()
