"""The emulated computer on which Xen runs: one QEMU process, which never outlives the process that started it."""

from __future__ import annotations

import collections
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

from tools.labs.cache import LabError
from tools.simulator.watchdog import Watchdog

from .images import Images

MEMORY = 1280
"""MiB of the computer. Xen has 15 of it, dom0 what follows, and guests the rest."""

DOM0_MEMORY = 384
"""MiB of dom0, for its programs and for the disks of guests."""

BOOT_SECONDS = 120.0
"""Until dom0 must be up. It takes 8 to 14; this is for a machine that is very busy."""

_READY = "dom0 is up"
"""What dom0's control program says on the console when it can be reached."""

_DOOR = 7000
"""dom0's port for control.Door."""

_KEPT_LINES = 2000
_TOLD_LINES = 25

_ATTEMPTS = 3

_XEN = (
    f"dom0_mem={DOM0_MEMORY}M,max:{DOM0_MEMORY}M dom0_max_vcpus=1 console=com1 com1=115200,8n1 loglvl=warning "
    # Without eager-fpu, two guests that both compute lose each other's vector registers: of 330 password hashes that
    # two made at the same time, 5 came out wrong.
    "guest_loglvl=warning bootscrub=0 spec-ctrl=no,eager-fpu xpti=no pv-l1tf=off"
)
_LINUX = "console=hvc0 quiet mitigations=off"
"""Emulated processors leak nothing through timing, and what guards against it costs seconds."""


class PortTaken(LabError):
    """Raise when somebody took the port between our looking and QEMU's."""


class Machine:
    """A computer that boots at once. LabError when QEMU cannot be run.

    initramfs: dom0's. The file may be removed once boot() has returned.
    """

    def __init__(self, images: Images, initramfs: Path, watchdog: Watchdog) -> None:
        self.port = _free_port()
        self._watchdog = watchdog
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._changed = threading.Condition()
        self._ready = self._ended = False
        share = images.tools / "usr/share"
        command = images.tool(
            "usr/bin/qemu-system-x86_64",
            *("-L", str(share / "qemu"), "-L", str(share / "seabios")),
            *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
            # Without `-smap` dom0 crashes at once. Two processors: guests do not wait for dom0.
            *("-accel", "tcg,thread=multi", "-cpu", "max,-smap,-rdtscp", "-smp", "2", "-m", str(MEMORY)),
            *("-kernel", str(images.hypervisor), "-append", _XEN),
            *("-initrd", f"{images.kernel} {_LINUX},{initramfs}"),
            # What is written goes to a file of QEMU's own that has no name.
            *("-drive", f"file={images.system},format=raw,if=ide,snapshot=on"),
            *("-drive", f"file={images.space},format=raw,if=ide,snapshot=on"),
            # The machine reaches nothing outside, and is reached by this machine only.
            *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:{_DOOR}"),
            *("-device", "e1000,netdev=net,romfile="),
        )
        environment = {**os.environ, "QEMU_MODULE_DIR": str(images.tools / "usr/lib/x86_64-linux-gnu/qemu")}
        try:
            self._process = watchdog.start(
                lambda: subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        except OSError as error:
            raise LabError(f"QEMU cannot be run: {error.strerror}") from None
        self._reader = threading.Thread(target=self._read, name="xen-console", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    def ended(self, within: float = 0.0) -> bool:
        """Whether QEMU is gone, or is so within a time. Its connections end before it does."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, within)

    def boot(self, timeout: float = BOOT_SECONDS) -> None:
        """Wait until dom0 is up. LabError, with the last lines of the console, when that does not happen."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended, max(0.0, deadline - time.monotonic()))
            if self._ready:
                return
            if any("Could not set up host forwarding rule" in line for line in self._lines):
                raise PortTaken(f"port {self.port} was taken by somebody else")
        raise LabError(f"dom0 was not up within {timeout:g} s; {self.last_words()}")

    def last_words(self) -> str:
        """The last lines of the console, Xen's and dom0's, and whether QEMU still runs, for an error's text."""
        with self._changed:
            state = f"QEMU ended with {self._process.poll()}" if self._ended else "QEMU runs"
            lines = list(self._lines)[-_TOLD_LINES:]
        return f"{state}; the last lines of its console are:\n" + "\n".join(lines)

    def console(self) -> str:
        """The last lines of the console, many of them."""
        with self._changed:
            return "\n".join(self._lines)

    def stop(self) -> None:
        """Switch the computer off."""
        self._process.kill()
        self._process.wait()
        self._watchdog.release(self._process.pid)
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                with self._changed:
                    self._lines.append(line.decode("utf-8", "replace").rstrip())
                    self._ready = self._ready or _READY in self._lines[-1]
                    self._changed.notify_all()
        self._process.wait()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def start(images: Images, initramfs: Path, watchdog: Watchdog) -> Machine:
    """A computer whose dom0 is up. LabError when it does not come up."""
    for attempt in range(1, _ATTEMPTS + 1):
        machine = Machine(images, initramfs, watchdog)
        try:
            machine.boot()
            return machine
        except PortTaken:
            machine.stop()
            if attempt == _ATTEMPTS:
                raise
        except BaseException:
            machine.stop()
            raise
    raise AssertionError("not reached")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
