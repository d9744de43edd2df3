"""Commands to a Xen host that runs: its domains, its guests, and dom0 itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Callable, TypeVar

from agent_protocol.xenstore import Client
from tools.labs.cache import LabError
from tools.simulator.domain import Disk, Domain, DomainTree, Interface

from . import images
from .control import Completed, Door, DoorClosed

GUEST_MEMORY = 192
"""MiB of each guest. Four of them fit."""

COMMAND_SECONDS = 60.0
"""For a command in dom0 or in a guest that is not told another time."""

CREATE_SECONDS = 90.0
"""For `xl create`, and for `xl save` and `xl restore`: each takes three to five."""

SHUTDOWN_SECONDS = 60.0
"""How long a guest may take to shut down by itself: it takes two. Then it is destroyed."""

_PATH = f"/usr/lib/xen-{images.XEN}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GUESTS = "/guests"
"""Where dom0 keeps each guest's disk, by VM uuid, and the configuration that xl reads."""

_IMAGES = "/images"
"""Where dom0 keeps the memory of guests that are suspended, by VM uuid: on a disk, since dom0 has little memory."""

_MOVE = """\
pipe=$1 old=$2 configuration=$3 seconds=$4
mkfifo "$pipe" || exit 1
timeout "$seconds" xl restore -e -p "$configuration" "$pipe" &
# Paused, not destroyed: when the other end fails, the guest goes on here.
timeout "$seconds" xl save -p "$old" "$pipe"
saved=$?
wait $!
restored=$?
rm -f "$pipe"
[ "$saved" = 0 ] && [ "$restored" = 0 ]
"""
"""Carries a domain's memory into another through a pipe, so that dom0 need not hold it. An end that dies ends the
other, unless it has not opened the pipe: hence the timeouts."""

_CONFIGURATION = """\
name="{uuid}"
uuid="{uuid}"
type="pv"
kernel="/lab/vmlinux"
ramdisk="/lab/guest.cpio"
memory={memory}
vcpus=1
extra="console=hvc0 quiet mitigations=off"
disk=["format=raw,vdev=xvda,access=rw,script=block-lab,target={disk}",
      "format=raw,vdev=xvdb,access=r,script=block-lab,target=/dev/system"]
on_poweroff="destroy"
on_reboot="destroy"
on_crash="destroy"
"""

_T = TypeVar("_T")


class _LaidOut(DomainTree):
    """xapi's nodes around what is really there: devices and the kernel's answers are not pretended."""

    def add_device(self, domid: int, device: Interface | Disk) -> None:
        """A guest of the lab has the devices that it was created with, and no network."""

    def remove_device(self, domid: int, device: Interface | Disk) -> None:
        """As above."""

    def ask(self, domid: int, request: str) -> None:
        """Whoever ends or suspends the domain asks the real kernel, and waits until it has done as it was asked."""


class XenHost:
    """A host whose dom0 is reached through `door`, and its XenStore through `store`.

    explain: says what is known when dom0 does not answer; "" when that is nothing.

    Every method raises LabError when it fails or takes too long, and XenStoreError when the store does not serve it.
    """

    def __init__(self, door: Door, store: Client, explain: Callable[[], str] = lambda: "") -> None:
        self._door = door
        self._explain = explain
        self.store = store
        self.domains: DomainTree = _LaidOut(store)

    # Domains

    def create(self, domain: Domain, paused: bool = False) -> int:
        """Build a domain for a VM and start its guest; its domid. The guest's disk is made when it is the first time.

        The domid of `domain` is ignored; its memory is, because the lab has little: see GUEST_MEMORY.
        """
        folder = f"{_GUESTS}/{domain.uuid}"
        configuration = _CONFIGURATION.format(uuid=domain.uuid, memory=GUEST_MEMORY, disk=f"{folder}/disk.ext4")
        self._sh(f"mkdir -p {folder}")
        if self.run(["test", "-e", f"{folder}/disk.ext4"]).status != 0:
            self._ask(lambda door: door.copy("/lab/disk.ext4", f"{folder}/disk.ext4"))
        self.put(f"{folder}/configuration", configuration.encode("ascii"))
        # -e: nobody waits for the domain's end; that is for whoever created it. Paused: it must find its nodes.
        self._sh(f"xl create -q -e -p {folder}/configuration", CREATE_SECONDS)
        return self._furnish(domain, paused)

    def suspend(self, domid: int, vm_uuid: str) -> None:
        """End a domain and keep its memory, until resume() or discard().

        When that fails, no memory is kept, and the guest goes on where it was.
        """
        image = f"{_IMAGES}/{vm_uuid}"
        try:
            self._sh(f"xl save {domid} {image}", CREATE_SECONDS)
        except LabError:
            self._sh(f"rm -f {image}")
            raise
        self.domains.remove(domid, vm_uuid)

    def resume(self, domain: Domain, paused: bool = False) -> int:
        """A new domain with the memory that suspend() kept; its domid. The domid and memory of `domain` are ignored.

        When that fails, the memory is still kept.
        """
        self._sh(f"xl restore -e -p {_GUESTS}/{domain.uuid}/configuration {_IMAGES}/{domain.uuid}", CREATE_SECONDS)
        domid = self._furnish(domain, paused)
        self.discard(domain.uuid)
        return domid

    def discard(self, vm_uuid: str) -> None:
        """Drop the memory that is kept of a VM, if there is any."""
        self._sh(f"rm -f {_IMAGES}/{vm_uuid}")

    def migrate(self, domid: int, domain: Domain) -> int:
        """Move a running guest into a new domain of this host; its domid.

        The guest stands still meanwhile, some seconds: Debian's Xen is built without shadow paging, and cannot tell
        which pages a guest without hardware's help has changed (`xl migrate` fails to "enable logdirty"). When that
        fails, the guest goes on where it was.
        """
        folder = f"{_GUESTS}/{domain.uuid}"
        move = ["/bin/sh", "-c", _MOVE, "sh", f"{folder}/pipe", str(domid), f"{folder}/configuration"]
        done = self.run([*move, f"{CREATE_SECONDS:g}"], 2 * CREATE_SECONDS)
        if done.status != 0:
            self.unpause(domid)
            raise LabError(f"domain {domid} cannot be moved: {done.errors.decode('utf-8', 'replace')}")
        # First, since libxl takes the VM's own nodes along with any domain of it.
        self.destroy(domid, domain.uuid)
        return self._furnish(domain, paused=False)

    def _furnish(self, domain: Domain, paused: bool) -> int:
        """Lay out the nodes of a domain that xl has just built, and let it run; its domid."""
        domid = int(self._sh(f"xl domid {domain.uuid}"))
        try:
            self.domains.build(replace(domain, domid=domid))
            if not paused:
                self.unpause(domid)
        except BaseException:
            self.destroy(domid, domain.uuid)
            raise
        return domid

    def destroy(self, domid: int, vm_uuid: str) -> None:
        """End a domain at once, and remove its nodes."""
        self._sh(f"xl destroy {domid}")
        self.domains.remove(domid, vm_uuid)

    def shut_down(self, domid: int, vm_uuid: str) -> bool:
        """Ask a guest to shut down, wait for it, and remove what is left of its domain.

        False when it did not do so in time, and its power was cut.
        """
        done = self.run(["timeout", f"{SHUTDOWN_SECONDS:g}", "xl", "shutdown", "-w", str(domid)], 2 * SHUTDOWN_SECONDS)
        self.destroy(domid, vm_uuid)
        return done.status == 0

    def pause(self, domid: int) -> None:
        """Let a domain's processors stand still."""
        self._sh(f"xl pause {domid}")

    def unpause(self, domid: int) -> None:
        """Let them run."""
        self._sh(f"xl unpause {domid}")

    def forget(self, vm_uuid: str) -> None:
        """Remove a guest's disk, and what is kept of its memory."""
        self._sh(f"rm -rf {_GUESTS}/{vm_uuid} {_IMAGES}/{vm_uuid}")

    def list(self) -> dict[int, str]:
        """All domains: domid, and state as `xl list` shows it."""
        lines = self._sh("xl list").splitlines()[1:]
        rows = [line.split() for line in lines]
        return {int(row[-5]): row[-2] for row in rows}

    # Guests

    def guest_run(self, domid: int, command: str, timeout: float = COMMAND_SECONDS) -> str:
        """What a shell command prints, run by a guest for its console: neither its agent nor XenStore has a part in it.

        LabError when its exit status is not 0.
        """
        terminal = self.store.read(f"/local/domain/{domid}/console/tty").decode("ascii")
        status, output = self._ask(lambda door: door.console(terminal, command, timeout))
        if status != 0:
            raise LabError(f"in domain {domid}, {command!r} ended with {status}: {output}")
        return output

    def guest_log(self, vm_uuid: str) -> str:
        """What a VM's guests have said on their consoles, of all its domains."""
        return self._sh(f"cat /var/log/xen/console/guest-{vm_uuid}.log")

    # dom0

    def run(
        self,
        arguments: Sequence[str],
        timeout: float = COMMAND_SECONDS,
        *,
        environment: dict[str, str] | None = None,
    ) -> Completed:
        """Run a program in dom0. environment: all of it; that of a superuser's shell unless given."""
        environment = {"PATH": _PATH} if environment is None else environment
        return self._ask(lambda door: door.run(arguments, timeout=timeout, environment=environment))

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file in dom0."""
        self._ask(lambda door: door.put(path, content, mode))

    def get(self, path: str) -> bytes:
        """A file of dom0."""
        return self._ask(lambda door: door.get(path))

    def plugin_names(self) -> set[str]:
        """What stands in dom0's directory of plugins."""
        return set(self._sh(f"ls {images.PLUGINS}").split())

    def plugin(self, name: str, document: str, timeout: float, environment: dict[str, str]) -> Completed:
        """Run a plugin as xapi does: with a method call in XML as its only argument."""
        return self.run([f"{images.PLUGINS}/{name}", document], timeout, environment=environment)

    def _sh(self, command: str, timeout: float = COMMAND_SECONDS) -> str:
        done = self.run(["/bin/sh", "-c", command], timeout)
        if done.status != 0:
            said = (done.output + done.errors).decode("utf-8", "replace")
            raise LabError(f"in dom0, {command!r} ended with {done.status}: {said}")
        return done.output.decode("utf-8", "replace")

    def _ask(self, question: Callable[[Door], _T]) -> _T:
        try:
            return question(self._door)
        except DoorClosed as error:
            explanation = self._explain()
            raise LabError(f"{error}; {explanation}" if explanation else str(error)) from None
