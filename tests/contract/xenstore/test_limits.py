"""How much fits: values, names, nodes, paths and packets, in each environment's daemon."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import uuid

import pytest

from agent_protocol import wire
from agent_protocol.wire import Operation
from agent_protocol.xenstore import Client, StoreError, WatchEvent, connect
from tests.agent_protocol.store import DEADLINE, in_background
from tests.contract import environments
from tests.contract.environments import Environment
from tests.contract.xenstore.support import HOME, VM, code, events, raw
from tools.labs.xenstored.server import XenstoredServer
from tools.simulator.xenstore.server import StoreServer


def test_two_thousand_bytes_pass_and_what_is_too_large_is_refused(
    dom0: Client, guest: Client, environment: Environment
) -> None:
    limits = environment.limits
    for size in (2000, limits.guest_value):
        guest.write("data/x", b"v" * size)
        assert guest.read("data/x") == b"v" * size
    assert code(guest.write, "data/x", b"v" * (limits.guest_value + 1)) == limits.guest_value_code
    assert guest.read("data/x") == b"v" * limits.guest_value
    # dom0's requests stand in nodes that the guest owns.
    dom0.write(f"{HOME}/data/host/{VM}", b"v" * 2000)
    assert guest.read(f"data/host/{VM}") == b"v" * 2000
    if limits.dom0_value is not None:
        dom0.write("/x", b"v" * limits.dom0_value)
        assert code(dom0.write, "/x", b"v" * (limits.dom0_value + 1)) == limits.dom0_value_code


def test_fifty_four_replies_wait_in_a_guests_directory(dom0: Client, guest: Client, environment: Environment) -> None:
    names = [str(uuid.uuid4()) for _ in range(environment.limits.names)]
    assert len(names) >= 54
    for name in names:
        guest.write(f"data/guest/{name}", b"")
    assert code(guest.write, f"data/guest/{uuid.uuid4()}", b"") == environment.limits.quota_code
    assert sorted(dom0.directory(f"{HOME}/data/guest")) == sorted(names)
    guest.remove(f"data/guest/{names[0]}")
    guest.write(f"data/guest/{uuid.uuid4()}", b"")


def test_a_guest_owns_a_thousand_nodes_at_most(dom0: Client, guest: Client, environment: Environment) -> None:
    owned, refused = 1, ""
    for number in range(1000):
        try:
            guest.mkdir(f"data/{number // 30}/{number % 30}")
        except StoreError as error:
            refused = error.code
            break
        owned += 1 if number % 30 else 2
    assert (owned, refused) == (1000, environment.limits.quota_code)
    # What dom0 writes counts, but dom0 may.
    dom0.write(f"{HOME}/data/host/{VM}", b"request")
    guest.remove("data/0")
    guest.write("data/again", b"")


def test_paths_have_a_limit(dom0: Client, guest: Client, environment: Environment) -> None:
    limit = environment.limits.path
    dom0.write("a" * limit, b"far")
    for path in ("/" + "a" * (limit - 1), "/local/domain/0/" + "b" * limit):
        dom0.write(path, b"far")
        assert dom0.read(path) == b"far"
        assert code(dom0.write, path + "a", b"") == "EINVAL"
    guest.mkdir("data/" + "/".join("c" * 505))


@pytest.mark.parametrize("path", ["", "//", "/a/", "a/", "/a//b", "/a b", "/a.b", "/a\n", "/\u00e9"])
def test_illegal_paths_are_einval(server: StoreServer, path: str) -> None:
    # The client itself refuses to send these.
    for operation, rest in (
        (Operation.READ, b""),
        (Operation.WRITE, b"v"),
        (Operation.MKDIR, b""),
        (Operation.RM, b""),
    ):
        answered, payload = raw(server, operation, path.encode() + b"\0" + rest)
        assert (answered, payload) == (Operation.ERROR, b"EINVAL\0")


def test_a_long_list_of_names_is_whole(dom0: Client, guest: Client, environment: Environment) -> None:
    names = [f"{number:04d}-{'n' * 30}" for number in range(300)]
    for name in names:
        dom0.write(f"/long/{name}", b"")
    dom0.set_permissions("/long", ["n0", "r3"])
    dom0.watch("/watched", "t")
    events(dom0)
    assert sorted(dom0.directory("/long")) == names
    # Listing has left everything else of the connection as it was.
    dom0.write("/watched", b"")
    assert events(dom0) == [WatchEvent("/watched", "t")]
    if environment.limits.parts:
        assert sorted(guest.directory("/long")) == names
    else:
        assert code(guest.directory, "/long") in ("ENOSYS", "E2BIG")


def test_a_packet_of_4096_bytes_is_the_largest(server: StoreServer, environment: Environment) -> None:
    value = b"v" * (wire.MAX_PAYLOAD - len(b"/x\0"))
    answered, payload = raw(server, Operation.WRITE, b"/x\0" + value)
    if environment.limits.dom0_value is None:
        assert (answered, payload) == (Operation.WRITE, b"OK\0")
    else:
        assert (answered, payload) == (Operation.ERROR, environment.limits.dom0_value_code.encode() + b"\0")
    # Above it the daemon refuses or hangs up, whichever; the client never sends such a packet.
    try:
        assert raw(server, Operation.WRITE, b"/x\0" + value + b"v")[0] == Operation.ERROR
    except ConnectionError:
        pass
    with connect(str(server.socket)) as after:
        assert after.directory("/tool") == ["xenstored"]


# What only the real daemons can tell


@pytest.mark.parametrize("environment", environments.real_daemons(), indirect=True)
def test_the_numbers_of_the_operations_are_those_of_xen(server: StoreServer) -> None:
    """xs_wire.h: 20 is nobody's any more, 21 ends all watches, 22 reads a list in parts."""
    with connect(str(server.socket)) as client:
        client.watch("/a", "t")
        events(client)
        assert raw(server, 20, b"/tool\x000\0")[0] == Operation.ERROR
        client._ask(Operation.RESET_WATCHES, "", b"\0")
        client.write("/a", b"")
        assert events(client) == []
    assert (Operation.RESET_WATCHES, Operation.DIRECTORY_PART) == (21, 22)


@pytest.mark.parametrize("environment", environments.real_daemons(), indirect=True)
def test_a_daemon_that_is_busy_takes_its_clients_one_after_the_other(server: StoreServer) -> None:
    """The real daemons let two wait (listen(2) with 1); more must wait for their turn to wait."""
    assert isinstance(server, XenstoredServer)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        waiting = [in_background(lambda: connect(str(server.socket), DEADLINE)) for _ in range(8)]
        # Whoever gives up does so at once; whoever waits cannot be served before the daemon goes on.
        queued, still = concurrent.futures.wait(waiting, timeout=0.5, return_when=concurrent.futures.FIRST_EXCEPTION)
        assert [future.exception() for future in queued] == [None] * len(queued)
        assert still
    finally:
        os.kill(server.pid, signal.SIGCONT)
    for future in waiting:
        with future.result(DEADLINE) as client:
            assert client.directory("/tool") == ["xenstored"]
