"""VMs with their disks to other repositories of the pool, with or without another host. Source: xapi_vm_migrate.ml.

A disk is mirrored while its VM runs: the bytes are copied, then the VBDs are given the copy, then the old disk goes. So
after any error, and when the task is cancelled, the VM is as it was and no copy is left. Snapshots stay where they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from . import copies, errors, lifecycle, placement, tasks, vdis
from .disks import BLOCK
from .state import Context, State


@dataclass(frozen=True)
class Plan:
    """What is to be done with a VM. References all.

    host: where it shall be able to run. disks: all of its disks, and the repository that each shall be in. networks:
    its VIFs, and the network that each shall be on.
    """

    vm: str
    host: str
    disks: dict[str, str]
    networks: dict[str, str]

    def moving(self, state: State) -> dict[str, str]:
        """The disks that are not where they shall be."""
        return {vdi: sr for vdi, sr in self.disks.items() if state.database.get("VDI", vdi, "SR") != sr}


def plan(state: State, vm: str, host: str, vdi_map: dict[str, str], vif_map: dict[str, str]) -> Plan:
    """Check what a caller wants.

    ApiError VM_REQUIRES_SR when the host does not see a repository, VDI_NOT_IN_MAP when that is where a disk is about
    which nothing was said, VDI_CBT_ENABLED, VM_REQUIRES_NETWORK, HOST_NOT_ENOUGH_PCPUS, HOST_NOT_ENOUGH_FREE_MEMORY.
    """
    database = state.database
    record = database.record("VM", vm)
    disks: dict[str, str] = {}
    for vdi in disks_of(state, vm):
        sr = database.get("VDI", vdi, "SR")
        wanted = vdi_map.get(vdi, sr)
        if not placement.sees(database, host, wanted):
            if vdi not in vdi_map:
                raise errors.ApiError("VDI_NOT_IN_MAP", vdi)
            raise errors.ApiError("VM_REQUIRES_SR", vm, wanted)
        if wanted != sr and database.get("VDI", vdi, "cbt_enabled"):
            raise errors.ApiError("VDI_CBT_ENABLED", vdi)
        disks[vdi] = wanted
    for vbd in record["VBDs"]:
        disc = database.get("VBD", vbd, "VDI")
        if database.exists("VDI", disc) and disc not in disks:
            sr = database.get("VDI", disc, "SR")
            if not placement.sees(database, host, sr):
                raise errors.ApiError("VM_REQUIRES_SR", vm, sr)
    networks = {vif: vif_map.get(vif, database.get("VIF", vif, "network")) for vif in record["VIFs"]}
    for network in networks.values():
        placement.assert_sees_network(database, vm, host, network)
    if record["power_state"] == "Running":
        placement.assert_enough_processors(database, vm, host)
        if record["resident_on"] != host:
            placement.assert_enough_memory(database, vm, host)
    return Plan(vm, host, disks, networks)


def disks_of(state: State, vm: str) -> list[str]:
    """The disks that belong to a VM: no discs in drives, but the image of its memory."""
    database = state.database
    record = database.record("VM", vm)
    vbds = [database.snapshot("VBD", vbd) for vbd in record["VBDs"]]
    found = [vbd["VDI"] for vbd in vbds if vbd["type"] != "CD"] + [record["suspend_VDI"]]
    return [vdi for vdi in dict.fromkeys(found) if database.exists("VDI", vdi)]


def move(state: State, plan: Plan) -> None:
    """Do it. ApiError TASK_CANCELLED, as of vdis.create(), and for a running VM as of lifecycle.migrate()."""
    database = state.database
    moving = plan.moving(state)
    with mirrored(state, moving) as copied:
        before = {vif: database.get("VIF", vif, "network") for vif in plan.networks}
        _exchange(state, plan.vm, copied)
        _connect(state, plan.networks)
        try:
            if database.get("VM", plan.vm, "power_state") == "Running":
                lifecycle.migrate(state, plan.vm, plan.host)
        except BaseException:
            _connect(state, before)
            _exchange(state, plan.vm, {new: old for old, new in copied.items()})
            raise
    for old, new in copied.items():
        for snapshot in database.find("VDI", "snapshot_of", old):
            database.set("VDI", snapshot, snapshot_of=new)
        vdis.destroy(state, old)
    vdis.update_disks_of(state, plan.vm)


def copy(context: Context, plan: Plan) -> str:
    """Make another VM of a halted one, its disks copied to where the plan wants them; gives its reference."""
    state, database = context.state, context.database

    def copy_disk(vdi: str) -> str:
        with mirrored(state, {vdi: plan.disks[vdi]}) as copied:
            return copied[vdi]

    name = database.get("VM", plan.vm, "name_label")
    made = copies.clone_vm(context, plan.vm, name, copy_disk)
    by_device = {database.get("VIF", vif, "device"): network for vif, network in plan.networks.items()}
    vifs = database.get("VM", made, "VIFs")
    _connect(state, {vif: by_device[database.get("VIF", vif, "device")] for vif in vifs})
    return made


def _exchange(state: State, vm: str, disks: dict[str, str]) -> None:
    """Give a VM other disks for those that it has."""
    database = state.database
    for vbd in database.get("VM", vm, "VBDs"):
        vdi = database.get("VBD", vbd, "VDI")
        if vdi in disks:
            database.set("VBD", vbd, VDI=disks[vdi])
    image = database.get("VM", vm, "suspend_VDI")
    if image in disks:
        database.set("VM", vm, suspend_VDI=disks[image])


def _connect(state: State, networks: dict[str, str]) -> None:
    for vif, network in networks.items():
        state.database.set("VIF", vif, network=network)


@contextlib.contextmanager
def mirrored(state: State, disks: dict[str, str]) -> Iterator[dict[str, str]]:
    """Copies of disks, attached or not, each in another repository; when this ends in an error, they are gone again.

    disks: the repository for each. Gives the copy of each. ApiError TASK_CANCELLED, and as of vdis.create().
    """
    database, task = state.database, tasks.current()
    copied: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for vdi in disks:
            database.add_to_map("VDI", vdi, "current_operations", task.ref, "mirror")
            stack.callback(end_operation, state, vdi, task.ref)
        try:
            for number, (vdi, sr) in enumerate(disks.items()):
                copied[vdi] = vdis.create_like(state, vdi, sr)
                _copy_bytes(state, vdi, copied[vdi], number, len(disks))
            stack.close()
            yield copied
        except BaseException:
            for vdi in copied.values():
                vdis.destroy(state, vdi)
            raise


def end_operation(state: State, vdi: str, task: str) -> None:
    """A task does nothing to a disk any more."""
    state.database.remove_from_map("VDI", vdi, "current_operations", task)
    vdis.update_vdi_operations(state, vdi)


def _copy_bytes(state: State, vdi: str, into: str, number: int, total: int) -> None:
    task = tasks.current()
    source = state.database.get("VDI", vdi, "location")
    with vdis.attached(state, into, "RW"):
        blocks = list(state.disks.allocated(source, BLOCK))
        for done, block in enumerate(blocks, 1):
            task.check()
            vdis.write(state, into, block * BLOCK, state.disks.read(source, block * BLOCK, BLOCK))
            task.progress((number + done / len(blocks)) / total)
