"""A guest's memory goes with it: this project's own agent outlives suspension and migration, as the same process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from agent_protocol.adverts import verify_advert
from agent_protocol.messages import ADVERT, new_request_id
from agent_protocol.outcomes import Outcome
from agent_protocol.sealed import (
    encode_sealed_request,
    open_reply,
    parse_sealed_reply,
    seal_request,
    verify_receipt,
)
from agent_protocol.xenstore import StoreError, connect
from tools.commands.proof import password_opens
from tools.simulator.process import SimulatorProcess

from .pools import Pool, Vm, logged_in
from .support import until


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """Two hosts whose guests run the real agent, and whose dom0s have the real plugin."""
    with SimulatorProcess(["--hosts", "2"]) as simulator, logged_in(simulator) as session:
        yield Pool(simulator, session)


@pytest.fixture
def vm(pool: Pool) -> Iterator[Vm]:
    vm = pool.make()
    pool.disk(vm, pool.shared)
    vm.start_on(pool.refs[0], False, False)
    yield vm
    vm.destroy()


def advert(pool: Pool, vm: Vm) -> bytes:
    """What the agent says of itself in the XenStore of the host where the VM is; nothing while it does not."""
    number = pool.refs.index(vm.get_resident_on())
    with connect(str(pool.hosts[number].xenstore_socket), timeout=5.0) as store:
        try:
            return store.read(f"/local/domain/{vm.get_domid()}/{ADVERT}")
        except StoreError:
            return b""


def set_password(pool: Pool, vm: Vm, password: str) -> None:
    """Reset the administrator's password as the compute driver does: sealed, by the plugin of the resident host."""
    agent = verify_advert(until(lambda: advert(pool, vm)), vm.uuid)
    request_id, expires = new_request_id(), int(time.time()) + 60
    value = json.dumps({"user": "root", "value": password})
    box = seal_request(agent.key, vm.uuid, request_id, "password", value, expires=expires)
    message = encode_sealed_request(box)
    entry = {"vm": vm.uuid, "id": request_id, "value": message.node.decode("ascii")}
    arguments = {"requests": json.dumps([entry]), "timeout": "20"}
    ((answer),) = json.loads(vm.call_host_plugin("xenward", "exchange", arguments))
    assert answer["delivery"] == "answered", answer
    reply = parse_sealed_reply(answer["value"].encode("utf-8"))
    receipt = verify_receipt(reply, agent.identity, vm.uuid, request_id)
    result = open_reply(receipt, box.reply_key, vm.uuid, request_id, reply.box)
    assert result.outcome is Outcome.SUCCEEDED, result
    assert password_opens(pool.simulator.guest_root(vm.uuid), "root", password)


def test_password_resets_before_and_after_suspension_and_migration(pool: Pool, vm: Vm) -> None:
    set_password(pool, vm, "At-the-beginning-1")
    pid = pool.simulator.agent_pid(vm.uuid)
    vm.pool_migrate(pool.refs[1], {})
    assert vm.get_resident_on() == pool.refs[1]
    set_password(pool, vm, "After-the-migration-2")
    vm.suspend()
    assert vm.get_resident_on() == "OpaqueRef:NULL"
    vm.resume_on(pool.refs[0], False, False)
    set_password(pool, vm, "After-the-resumption-3")
    vm.pool_migrate(pool.refs[0], {})
    set_password(pool, vm, "On-the-same-host-4")
    assert pool.simulator.agent_pid(vm.uuid) == pid
