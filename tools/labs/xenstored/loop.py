"""One thread that waits for many descriptors, and does what other threads ask it to do in between."""

from __future__ import annotations

import collections
import os
import selectors
import threading
from concurrent.futures import Future
from typing import Callable, TypeVar

_T = TypeVar("_T")


class Loop:
    """Runs from the moment when it is made until stop().

    selector: what is registered there has a function as its data, which is called with the events. Only the loop's own
    thread may touch it.
    """

    def __init__(self, name: str) -> None:
        self.selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        self.selector.register(self._wake_reader, selectors.EVENT_READ, lambda _events: self._obey())
        self._commands: collections.deque[Callable[[], None]] = collections.deque()
        self._running = True
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, command: Callable[[], _T]) -> _T:
        """Run `command` in the loop's thread, and return or raise what it does. Not from that thread itself."""
        done: Future[_T] = Future()

        def run() -> None:
            try:
                done.set_result(command())
            except Exception as error:
                done.set_exception(error)

        self._commands.append(run)
        os.write(self._wake_writer, b"\0")
        return done.result()

    def stop(self) -> None:
        """End the thread. Nothing may be asked of it any more."""
        self.do(self._end)
        self._thread.join()
        self.selector.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _end(self) -> None:
        self._running = False

    def _run(self) -> None:
        while self._running:
            for key, events in self.selector.select():
                # What came before in this round may have closed it.
                if self.selector.get_map().get(key.fd) is key:
                    key.data(events)

    def _obey(self) -> None:
        os.read(self._wake_reader, 4096)
        while self._commands:
            self._commands.popleft()()
