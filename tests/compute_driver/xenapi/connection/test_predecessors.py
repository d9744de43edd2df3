"""Who takes a simulated pool over, and whom it was taken from: what still reaches it, and what has an effect."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from agent_protocol.outcomes import Unknown
from compute_driver.errors import XenServerFailure
from compute_driver.fencing import LeaseLost
from compute_driver.images import DiskFormat, ImageReader
from compute_driver.xenapi.connection.predecessors import Predecessors
from compute_driver.xenapi.connection.session import ORIGINATOR, Connection, XenServer
from compute_driver.xenapi.guests.quiet import await_quiet
from compute_driver.xenapi.storage.transfers import Transfers
from tests.contract.driver.fences import RecordingFence
from tools.simulator.process import SimulatorProcess

from ..bad_server import DEADLINE
from ..conftest import Wanted
from ..waiting import eventually, vm_record

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(["--no-agent", "--login-failure-delay", "0"]) as it:
        it.control.log_calls()
        yield it


@pytest.fixture
def heir(simulator: SimulatorProcess) -> Iterator[XenServer]:
    """Who takes over."""
    with closing(XenServer(Connection(simulator.url, simulator.username, simulator.password))) as it:
        yield it


def of_driver(simulator: SimulatorProcess) -> list[tuple[str, str]]:
    """What drivers asked for since the log was cleared: calls and how they ended."""
    calls = simulator.control.read_calls()
    return [(call.name, call.outcome) for call in calls if call.originator in (ORIGINATOR, "")]


def test_what_was_let_pass_before_the_session_was_ended_has_no_effect(
    simulator: SimulatorProcess, heir: XenServer
) -> None:
    fence = RecordingFence()
    old = XenServer(Connection(simulator.url, simulator.username, simulator.password), fence)
    vm, errors = heir.call("VM.create", vm_record("stopped")), list[LeaseLost]()

    def start() -> None:
        try:
            old.call("VM.start", vm, False, False)
        except LeaseLost as error:
            errors.append(error)

    assert old.call("VM.get_power_state", vm) == "Halted"
    with fence.stopping() as held:
        thread = threading.Thread(target=start)
        thread.start()
        assert held.arrived.wait(DEADLINE)
        Predecessors(heir).end(fence.sessions)
        fence.holds = False
        simulator.control.clear_calls()
        held.released.set()
        thread.join(DEADLINE)
    assert len(errors) == 1
    # It did reach the pool, and was turned away; nothing came after it.
    assert of_driver(simulator) == [("VM.start", "SESSION_INVALID")]
    assert heir.call("VM.get_power_state", vm) == "Halted"
    assert (len(fence.sessions), fence.ended) == (1, fence.sessions)
    old.close()
    heir.call("VM.destroy", vm)


def test_the_stream_of_events_ends_with_its_session_and_begins_anew_only_with_the_lease(
    simulator: SimulatorProcess, heir: XenServer
) -> None:
    fence = RecordingFence()
    old = XenServer(Connection(simulator.url, simulator.username, simulator.password), fence)
    assert old.events.await_change(lambda view: True, DEADLINE)
    fence.holds = False
    Predecessors(heir).end(fence.sessions)
    eventually(lambda: not old.events.is_live)
    assert not old.events.await_change(lambda view: True, 0.3)
    fence.holds = True
    assert old.events.await_change(lambda view: True, DEADLINE)
    assert len(fence.sessions) == 2
    old.close()
    assert sorted(fence.ended) == sorted(fence.sessions)


class Reader(io.BytesIO):
    """An image of four MiB of which the lease outlives one."""

    size: int | None = 4 * MIB

    def __init__(self, fence: RecordingFence) -> None:
        super().__init__(b"x" * 4 * MIB)
        self._fence = fence

    def read(self, size: int | None = -1) -> bytes:
        self._fence.holds = self.tell() < MIB
        return super().read(size)


@pytest.fixture
def vdi(heir: XenServer) -> Iterator[str]:
    pool = heir.call("pool.get_all")[0]
    record = {"SR": heir.call("pool.get_default_SR", pool), "virtual_size": str(4 * MIB), "type": "user"}
    rest: dict[str, Any] = {"sharable": False, "read_only": False, "other_config": {}, "name_label": "disk"}
    it = str(heir.call("VDI.create", {**record, **rest}))
    yield it
    heir.call("VDI.destroy", it)


def test_a_transfer_stops_when_the_lease_goes(simulator: SimulatorProcess, heir: XenServer, vdi: str) -> None:
    fence = RecordingFence()
    old = XenServer(Connection(simulator.url, simulator.username, simulator.password), fence)
    transfers, reader = Transfers(old), Reader(fence)
    image: ImageReader = reader
    with pytest.raises(LeaseLost):
        transfers.send(image, 4 * MIB, vdi, DiskFormat.RAW)
    assert 0 < transfers.bytes_sent < 4 * MIB
    # Nobody has it any more.
    eventually(lambda: not heir.call("VDI.get_VBDs", vdi))
    fence.holds = False
    simulator.control.clear_calls()
    with pytest.raises(LeaseLost):
        transfers.send(Reader(fence), 4 * MIB, vdi, DiskFormat.RAW)
    assert "import_raw_vdi" not in [name for name, _ in of_driver(simulator)]
    old.close()


class Brief(RecordingFence):
    """The lease goes by itself. left: how often it is there still."""

    left = 1000

    def check(self) -> None:
        self.left -= 1
        self.holds = self.left >= 0
        super().check()


def test_a_transfer_does_not_begin_when_the_lease_went_on_the_way_there(
    simulator: SimulatorProcess, heir: XenServer, vdi: str
) -> None:
    fence = Brief()
    old = XenServer(Connection(simulator.url, simulator.username, simulator.password), fence)
    assert old.events.await_change(lambda view: True, DEADLINE)
    assert old.call("VM.get_all")
    simulator.control.clear_calls()
    # One for its task, one for its session.
    fence.left = 2
    with pytest.raises(LeaseLost):
        Transfers(old).send(io.BytesIO(b"x" * MIB), MIB, vdi, DiskFormat.RAW)  # type: ignore[arg-type]
    names = [name for name, _ in of_driver(simulator)]
    assert "task.create" in names and "session.login_with_password" in names
    assert "import_raw_vdi" not in names and "task.cancel" not in names
    old.close()


def _soon() -> float:
    return time.monotonic() + DEADLINE


def test_what_a_predecessor_began_is_cancelled_or_known_until_it_is_over(
    simulator: SimulatorProcess, heir: XenServer
) -> None:
    with closing(XenServer(Connection(simulator.url, simulator.username, simulator.password))) as old:
        session = old.open_session()
        vm = heir.call("VM.create", vm_record("busy"))
        rule = simulator.control.stick_tasks("VM.start")
        stuck = session.call("Async.VM.start", (vm, False, False), _soon())
        upload = session.call("task.create", ("Import into somewhere", ""), _soon())
        simulator.control.clear_calls()
        predecessors = Predecessors(heir)
        predecessors.end([heir.call("session.get_uuid", session.ref)])
        assert predecessors.calls() == {stuck: "Async.VM.start"}
        # It shows at no object yet, so it may be about any guest.
        with pytest.raises(Unknown) as caught:
            await_quiet(heir, predecessors, Wanted(), 0.0)
        assert (caught.value.code, "Async.VM.start" in caught.value.message) == ("guest_busy", True)
        cancelled = [call.references for call in simulator.control.read_calls() if call.name == "task.cancel"]
        assert cancelled == [(upload,)]
        # Nobody took it up, and nobody ever will.
        assert upload not in heir.call("task.get_all_records")
        with pytest.raises(XenServerFailure):
            session.call("VM.get_all", (), _soon())
        simulator.control.remove_rule(rule)
        # As soon as it shows at its guest, it is none of the others' business.
        await_quiet(heir, predecessors, Wanted(), DEADLINE)
        eventually(lambda: not predecessors.calls())
        heir.call("VM.hard_shutdown", vm)
        heir.call("VM.destroy", vm)
