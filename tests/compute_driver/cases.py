"""Every operation of the manager's table on the instance `web`, and what it should look like from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from compute_driver.context import RequestContext
from compute_driver.manager import operations
from compute_driver.manager.operations import Operation
from compute_driver.states import PowerState, VmState

from .bench import (
    CONTEXT,
    FILE,
    FIRST_NODE,
    IMAGE,
    INTERFACE,
    KEYS,
    PASSWORD,
    SECOND_NODE,
    UUID,
    VOLUME,
    Bench,
)

_RUNS = {"vm_state": "active", "power_state": PowerState.RUNNING, "node": FIRST_NODE}
_OFF = {"vm_state": "stopped", "power_state": PowerState.SHUTDOWN, "node": ""}


@dataclass(frozen=True)
class Case:
    """One operation. verb: of the driver, which does it. before: vm_state that it is tried in; None for what makes the
    instance. after: columns on success. prepare: what must be so besides.
    """

    operation: Operation
    verb: str
    before: VmState | None
    run: Callable[[Bench, RequestContext], Any]
    after: Mapping[str, Any] = field(default_factory=lambda: _RUNS)
    prepare: Callable[[Bench], object] = lambda bench: None

    @property
    def name(self) -> str:
        return str(self.operation.task_state) if self.operation.action == "reboot" else self.operation.action

    def begin(self, bench: Bench) -> None:
        """Everything is there that it needs."""
        if self.before is not None:
            bench.have(self.before)
        self.prepare(bench)
        bench.driver.steering.clear_calls()

    def carry_out(self, bench: Bench, context: RequestContext = CONTEXT) -> Any:
        return self.run(bench, context)


def _agent_is_met(bench: Bench) -> None:
    bench.driver.trust_agent(bench.instance)


def _create(bench: Bench, context: RequestContext) -> Any:
    return bench.create(
        context,
        instance_uuid=UUID,
        image_ref=IMAGE,
        injected_files=[FILE],
        ssh_keys=KEYS,
        interfaces=[INTERFACE],
        volumes=[VOLUME],
        metadata={"role": "web"},
        node=FIRST_NODE,
    )


def _send(bench: Bench, context: RequestContext) -> Any:
    # What is in the box is known to the caller and the agent alone.
    return bench.send("generate_admin_password", bench.seal(), context)


def _attached(bench: Bench) -> None:
    bench.attach(bench.instance)


_ACTIVE, _STOPPED, _RESIZED, _RESCUED = VmState.ACTIVE, VmState.STOPPED, VmState.RESIZED, VmState.RESCUED

CASES = [
    Case(operations.CREATE, "spawn", None, _create),
    Case(
        operations.DELETE,
        "destroy",
        VmState.ERROR,
        lambda it, context: it.manager.terminate_instance(context, "web"),
        {"vm_state": "deleted"},
        _attached,
    ),
    Case(
        operations.REBUILD,
        "rebuild",
        _ACTIVE,
        lambda it, context: it.manager.rebuild_instance(context, "web", image_ref=IMAGE, admin_password=PASSWORD),
        {**_RUNS, "image_ref": IMAGE},
    ),
    Case(
        operations.RESCUE,
        "rescue",
        _ACTIVE,
        lambda it, context: it.manager.rescue_instance(context, "web", image_ref=IMAGE, rescue_password=PASSWORD),
        {**_RUNS, "vm_state": "rescued"},
    ),
    Case(operations.UNRESCUE, "unrescue", _RESCUED, lambda it, context: it.manager.unrescue_instance(context, "web")),
    Case(operations.START, "power_on", _STOPPED, lambda it, context: it.manager.start_instance(context, "web")),
    Case(operations.STOP, "power_off", _ACTIVE, lambda it, context: it.manager.stop_instance(context, "web"), _OFF),
    Case(
        operations.PAUSE,
        "pause",
        _ACTIVE,
        lambda it, context: it.manager.pause_instance(context, "web"),
        {**_RUNS, "vm_state": "paused", "power_state": PowerState.PAUSED},
    ),
    Case(
        operations.UNPAUSE, "unpause", VmState.PAUSED, lambda it, context: it.manager.unpause_instance(context, "web")
    ),
    Case(
        operations.SUSPEND,
        "suspend",
        _ACTIVE,
        lambda it, context: it.manager.suspend_instance(context, "web"),
        {"vm_state": "suspended", "power_state": PowerState.SUSPENDED, "node": ""},
    ),
    Case(
        operations.RESUME, "resume", VmState.SUSPENDED, lambda it, context: it.manager.resume_instance(context, "web")
    ),
    Case(operations.REBOOT, "reboot", _ACTIVE, lambda it, context: it.manager.reboot_instance(context, "web", "SOFT")),
    Case(
        operations.REBOOT_HARD,
        "reboot",
        VmState.PAUSED,
        lambda it, context: it.manager.reboot_instance(context, "web", "HARD"),
    ),
    Case(
        operations.SET_PASSWORD,
        "set_admin_password",
        _ACTIVE,
        lambda it, context: it.manager.set_admin_password(context, "web", PASSWORD),
    ),
    Case(operations.GENERATE_PASSWORD, "send_sealed", _ACTIVE, _send, prepare=_agent_is_met),
    Case(
        operations.INJECT_FILE,
        "inject_file",
        _ACTIVE,
        lambda it, context: it.manager.inject_file(context, "web", FILE),
    ),
    Case(
        operations.ADD_SSH_KEYS,
        "add_ssh_keys",
        _ACTIVE,
        lambda it, context: it.manager.add_ssh_keys(context, "web", KEYS),
    ),
    Case(operations.TRUST_AGENT, "trust_agent", _ACTIVE, lambda it, context: it.manager.trust_agent(context, "web")),
    Case(
        operations.INJECT_NETWORK,
        "inject_network_info",
        _ACTIVE,
        lambda it, context: it.manager.inject_network_info(context, "web"),
        prepare=_attached,
    ),
    Case(
        operations.RESET_NETWORK, "reset_network", _ACTIVE, lambda it, context: it.manager.reset_network(context, "web")
    ),
    Case(
        operations.CHANGE_METADATA,
        "change_instance_metadata",
        _STOPPED,
        lambda it, context: it.manager.change_instance_metadata(context, "web", {"role": ["+", "db"]}),
        {**_OFF, "instance_metadata": {"role": "db"}},
    ),
    Case(
        operations.SNAPSHOT,
        "snapshot",
        _STOPPED,
        lambda it, context: it.manager.snapshot_instance(context, "web", name="copy"),
        _OFF,
    ),
    Case(operations.QUIESCE, "quiesce", _ACTIVE, lambda it, context: it.manager.quiesce_instance(context, "web")),
    Case(
        operations.UNQUIESCE,
        "unquiesce",
        _ACTIVE,
        lambda it, context: it.manager.unquiesce_instance(context, "web"),
        prepare=lambda it: it.driver.quiesce(it.instance, timeout=60.0),
    ),
    Case(
        operations.RESIZE,
        "migrate_disk_and_power_off",
        _ACTIVE,
        lambda it, context: it.manager.resize_instance(context, "web", memory_mb=128, vcpus=2, root_gb=2),
        {**_RUNS, "vm_state": "resized", "memory_mb": 128, "vcpus": 2, "root_gb": 2},
    ),
    Case(
        operations.MIGRATE,
        "migrate_disk_and_power_off",
        _ACTIVE,
        lambda it, context: it.manager.migrate_instance(context, "web", node=SECOND_NODE),
        {**_RUNS, "vm_state": "resized", "node": SECOND_NODE},
    ),
    Case(
        operations.CONFIRM_RESIZE,
        "confirm_migration",
        _RESIZED,
        lambda it, context: it.manager.confirm_resize(context, "web"),
        {**_RUNS, "memory_mb": 128},
    ),
    Case(
        operations.REVERT_RESIZE,
        "finish_revert_migration",
        _RESIZED,
        lambda it, context: it.manager.revert_resize(context, "web"),
        {**_RUNS, "memory_mb": 64},
    ),
    Case(
        operations.LIVE_MIGRATION,
        "live_migration",
        _ACTIVE,
        lambda it, context: it.manager.live_migrate_instance(context, "web", node=SECOND_NODE),
        {**_RUNS, "node": SECOND_NODE},
    ),
    Case(
        operations.ATTACH_VOLUME,
        "attach_volume",
        _ACTIVE,
        lambda it, context: it.manager.attach_volume(context, "web", VOLUME),
    ),
    Case(
        operations.DETACH_VOLUME,
        "detach_volume",
        _ACTIVE,
        lambda it, context: it.manager.detach_volume(context, "web", VOLUME.id),
        prepare=_attached,
    ),
    Case(
        operations.ATTACH_INTERFACE,
        "attach_interface",
        _ACTIVE,
        lambda it, context: it.manager.attach_interface(context, "web", INTERFACE),
    ),
    Case(
        operations.DETACH_INTERFACE,
        "detach_interface",
        _STOPPED,
        lambda it, context: it.manager.detach_interface(context, "web", INTERFACE.id),
        _OFF,
        prepare=_attached,
    ),
]

ON_INSTANCES = [case for case in CASES if case.before is not None]


def _parametrized(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


every_case = _parametrized(CASES)
every_case_on_an_instance = _parametrized(ON_INSTANCES)
