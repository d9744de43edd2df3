"""The destination's side: builds what another pool sends, and lets it go on once it is told to.

What was built is gone again when the connection ends before that, whatever ended it. A pool that is killed in the
middle does the same when it is started again (forget).
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from typing import Any, Callable

from .. import errors, lifecycle, memory, placement, power, tasks, vdis
from ..formats.streams import FormatError, Source
from ..model import NULL_REF
from ..state import State
from . import frames, guest_files
from .description import Description

LOG = logging.getLogger("xenward.simulator.migration")

MARK = "base_mirror"
"""In sm_config of disks that are being received, as of xapi's."""

_OPERATION = "import"
"""The current operation of a VM that is being received."""

UNDER_WAY = "under way"
"""What is said of a way until the VM is there; then its reference is. The source asks when it got no answer."""


def serve(state: State, session: str, source: Source, write: Callable[[bytes], object]) -> None:
    """Answer what another pool says on a connection, until its end. session: that it came with."""
    with _Receiver(state, session) as receiver:
        while (frame := frames.read(source)) is not None:
            try:
                answer: dict[str, Any] = {"ok": receiver.obey(frame)}
            except errors.ApiError as error:
                answer = {"error": error.description}
            except OSError as error:
                answer = {"error": errors.internal_error(type(error).__name__).description}
            write(frames.encode(answer))
            if "error" in answer:
                return


class _Receiver:
    """One connection, and what has come over it until now."""

    def __init__(self, state: State, session: str) -> None:
        self._state = state
        self._session = session
        self._stack = contextlib.ExitStack()
        self._attached = self._stack.enter_context(contextlib.ExitStack())
        self._files = tempfile.TemporaryFile(dir=state.settings.state)  # noqa: SIM115 (closed with the rest)
        self._stack.enter_context(self._files)
        self._has_files = False
        self._way = ""
        self._described: Description | None = None
        self._disks: dict[str, str] = {}
        self._vm = ""

    def __enter__(self) -> _Receiver:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._stack:
            if self._way and self._state.arrivals[self._way] == UNDER_WAY:
                try:
                    self._undo()
                finally:
                    del self._state.arrivals[self._way]

    def obey(self, frame: frames.Frame) -> Any:
        """Do what a frame says; gives the answer. ApiError, FormatError and OSError end it all."""
        commands: dict[str, Callable[[frames.Frame], Any]] = {
            "check": self._check,
            "begin": self._begin,
            "block": self._block,
            "files": self._take_files,
            "build": self._build,
            "go": self._go,
            "find_out": self._find_out,
        }
        name = frame.message.get("command")
        if not isinstance(name, str) or name not in commands:
            raise FormatError("a command that is none")
        if not self._state.database.exists("session", self._session):
            raise errors.session_invalid(self._session)
        return commands[name](frame)

    def _describe(self, frame: frames.Frame) -> Description:
        untrusted = frame.message.get("vm")
        if not isinstance(untrusted, dict):
            raise FormatError("a VM's description makes no sense")
        return Description.from_dict(self._state.model, untrusted)

    # Before

    def _check(self, frame: frames.Frame) -> None:
        """Whether a VM could come."""
        check(self._state, self._describe(frame))

    def _begin(self, frame: frames.Frame) -> None:
        """A VM shall come: make its disks."""
        way = frame.message.get("way")
        if self._way or not isinstance(way, str) or not way or way in self._state.arrivals:
            raise FormatError("a way that cannot be begun")
        described = self._describe(frame)
        check(self._state, described)
        self._way, self._described = way, described
        self._state.arrivals[way] = UNDER_WAY
        for disk in described.disks:
            vdi = vdis.create(
                self._state,
                disk.repository,
                disk.fields["virtual_size"],
                **{name: disk.fields[name] for name in vdis.KEPT_BY_COPIES},
                sm_config={MARK: way},
            )
            self._disks[disk.name] = vdi
            self._attached.enter_context(vdis.attached(self._state, vdi, "RW"))

    def _block(self, frame: frames.Frame) -> None:
        """A part of a disk."""
        name, offset = frame.message.get("disk"), frame.message.get("offset")
        if not isinstance(name, str) or name not in self._disks or type(offset) is not int or self._vm:
            raise FormatError("a block of no disk")
        vdis.write(self._state, self._disks[name], offset, frame.body)

    def _take_files(self, frame: frames.Frame) -> None:
        """A part of the archive with the guest's files."""
        self._has_files = True
        self._files.write(frame.body)

    # The VM itself

    def _build(self, frame: frames.Frame) -> str:
        """All is there: build the VM as it is described now, with its domain if it runs. Gives its reference."""
        before, it = self._described, self._describe(frame)
        if before is None or self._vm or [disk.name for disk in it.disks] != [disk.name for disk in before.disks]:
            raise FormatError("a VM that was not begun")
        if (it.is_copy, it.host, it.power_state) != (before.is_copy, before.host, before.power_state):
            raise FormatError("a VM that was not begun")
        check(self._state, it)
        self._attached.close()
        self._described = it
        with self._state.database.exclusively():
            self._vm = self._record(it)
            # Nobody else has it yet.
            self._stack.enter_context(self._state.turn(self._vm))
        power.update_allowed_operations(self._state.database, self._vm)
        if self._has_files:
            self._files.seek(0)
            guest_files.unpack(self._files, self._state.guest(it.fields["uuid"]).root)
        if it.power_state == "Running":
            lifecycle.arrive(self._state, self._vm, it.host)
        vdis.update_disks_of(self._state, self._vm)
        return self._vm

    def _record(self, it: Description) -> str:
        """The objects of the VM; its reference."""
        database = self._state.database
        fields = dict(it.fields)
        guest_metrics = NULL_REF
        if it.guest_metrics is not None:
            guest_metrics = database.create("VM_guest_metrics", **it.guest_metrics)
        vm = database.create(
            "VM",
            **fields,
            power_state="Suspended" if it.power_state == "Suspended" else "Halted",
            domid=-1,
            metrics=database.create("VM_metrics", **it.metrics),
            guest_metrics=guest_metrics,
            suspend_VDI=self._disks[it.image] if it.image else NULL_REF,
            current_operations={tasks.current().ref: _OPERATION},
        )
        for vbd in it.vbds:
            vdi = self._disks[vbd.to] if vbd.to else NULL_REF
            # A disc in a drive stays behind.
            database.create("VBD", **{**vbd.fields, "VM": vm, "VDI": vdi, "empty": not vbd.to})
        for vif in it.vifs:
            mac = vif.fields["MAC"]
            if it.is_copy:
                mac = lifecycle.generated_mac(fields["other_config"].get("mac_seed", ""), vif.fields["device"])
            database.create("VIF", **{**vif.fields, "VM": vm, "network": vif.to, "MAC": mac})
        return vm

    def _go(self, frame: frames.Frame) -> str:
        """From now on it is this pool's, and runs if it ran. Gives its reference."""
        del frame
        state, database, it = self._state, self._state.database, self._described
        if not self._vm or it is None:
            raise FormatError("a VM that was not built")
        with database.exclusively():
            for vdi in self._disks.values():
                database.remove_from_map("VDI", vdi, "sm_config", MARK)
            database.set("VM", self._vm, current_operations={})
            state.arrivals[self._way] = self._vm
        try:
            if it.power_state == "Running":
                lifecycle.unpause(state, self._vm)
                domains = state.domains_of(self._vm)
                domains.tell(database.get("VM", self._vm, "domid"), lifecycle.UPDATED)
        except OSError as error:
            # It is here, and the source must let go of it: it waits, paused, for somebody who finds out.
            LOG.error("a VM came, but its guest does not go on: %s", type(error).__name__)
        power.update_allowed_operations(database, self._vm)
        return self._vm

    def _find_out(self, frame: frames.Frame) -> str | None:
        """What became of a way: UNDER_WAY, the VM that came, or None when nothing came, and nothing will."""
        return self._state.arrivals.get(str(frame.message.get("way")))

    def _undo(self) -> None:
        self._attached.close()
        if self._vm:
            remove(self._state, self._vm)
        elif self._described is not None and self._has_files:
            self._state.guest(self._described.fields["uuid"]).delete()
        for vdi in self._disks.values():
            _drop(self._state, vdi)


def check(state: State, it: Description) -> None:
    """Nothing, or the ApiError that says why a VM cannot come. Its order follows xapi_vm_migrate.ml.

    HANDLE_INVALID, HOST_NOT_LIVE, HOST_DISABLED, DUPLICATE_VM, SR_HAS_NO_PBDS, VM_REQUIRES_SR, VM_REQUIRES_NETWORK,
    HOST_NOT_ENOUGH_PCPUS, HOST_NOT_ENOUGH_FREE_MEMORY.
    """
    database = state.database
    state.live_host(it.host)
    placement.assert_usable(database, it.host)
    known = database.find("VM", "uuid", it.fields["uuid"])
    if known:
        raise errors.ApiError("DUPLICATE_VM", known[0])
    for disk in it.disks:
        database.record("SR", disk.repository)
        vdis.assert_plugged(state, disk.repository)
        if not placement.sees(database, it.host, disk.repository):
            raise errors.ApiError("VM_REQUIRES_SR", it.vm, disk.repository)
    for vif in it.vifs:
        database.record("network", vif.to)
        placement.assert_sees_network(database, it.vm, it.host, vif.to)
    if it.power_state == "Running":
        placement.assert_processors(database, it.fields, it.host)
        placement.assert_memory(database, memory.vm_need(it.fields), it.host)


def remove(state: State, vm: str) -> None:
    """Take a VM away that did not come to stay, or that has left; whatever it is doing. Its disks are left."""
    if state.database.get("VM", vm, "domid") >= 0:
        lifecycle.halt(state, vm, clean=False)
    lifecycle.remove(state, vm)


def unfinished(state: State) -> list[str]:
    """The VMs that are being received, or were when this pool was killed."""
    records = state.database.snapshots("VM")
    return [vm for vm, record in records.items() if _OPERATION in record["current_operations"].values()]


def forget(state: State, vms: list[str]) -> None:
    """Take away what was being received when this pool was killed: those VMs, and all disks that were to come."""
    for vm in vms:
        lifecycle.remove(state, vm)
    for vdi, record in state.database.snapshots("VDI").items():
        if MARK in record["sm_config"]:
            _drop(state, vdi)


def _drop(state: State, vdi: str) -> None:
    # One that is out of reach now must not keep the others.
    with contextlib.suppress(errors.ApiError):
        vdis.destroy(state, vdi)
