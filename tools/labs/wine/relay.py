"""Between the stand-in for the Xen drivers, which speaks TCP, and the XenStore socket of the guest's domain.

What the two say to each other is XenStore's own wire protocol, and passes unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

PORT = 4321
"""Of 127.0.0.1 in the machine's own network. As in sources/store.c."""


class Relay:
    """Serves the drivers. store: the path of the socket; while nobody listens there, connections are closed at once.

    The path may lead to another socket later: then the drivers find the domain that the guest was moved to.
    """

    def __init__(self, store: str) -> None:
        self._store = store

    async def start(self) -> None:
        """Serve, while the event loop runs. OSError when the port is taken."""
        await asyncio.start_server(self._serve, "127.0.0.1", PORT)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            store_reader, store_writer = await asyncio.open_unix_connection(self._store)
            try:
                await asyncio.wait(
                    [
                        asyncio.ensure_future(_pass_on(reader, store_writer)),
                        asyncio.ensure_future(_pass_on(store_reader, writer)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                store_writer.close()
        writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
