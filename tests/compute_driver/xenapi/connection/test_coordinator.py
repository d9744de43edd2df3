"""Which host of a pool is asked, and what becomes of a call while another one takes over."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agent_protocol.outcomes import Outcome, Refused
from compute_driver.errors import (
    XenServerAnswerLost,
    XenServerAuthenticationFailed,
    XenServerFailure,
    XenServerUnreachable,
)
from compute_driver.xenapi.connection.members import Members
from compute_driver.xenapi.connection.session import Connection, XenServer
from tools.simulator.process import SimulatorProcess

from ..bad_server import PASSWORD, BadServer, Drop, Failure, client

LOGIN = "session.login_with_password"


@pytest.fixture
def hosts() -> Iterator[list[BadServer]]:
    """Three hosts; none of them is a supporter unless it is told to be."""
    with ExitStack() as stack:
        yield [stack.enter_context(BadServer()) for _ in range(3)]


def led_to(server: BadServer) -> Failure:
    """What a supporter answers whose coordinator is that one."""
    return Failure(("HOST_IS_SLAVE", server.url.removeprefix("http://")))


def nobody() -> str:
    """A URL where nothing listens."""
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{it.getsockname()[1]}"


def test_a_supporter_leads_to_the_coordinator_which_is_asked_from_then_on(hosts: list[BadServer]) -> None:
    hosts[0].behave(LOGIN, led_to(hosts[1]))
    xenserver = client(hosts[0])
    assert [xenserver.call("VM.start", "ref") for _ in range(2)] == ["answer to VM.start"] * 2
    assert (hosts[0].seen("VM.start"), hosts[1].seen("VM.start"), hosts[1].seen(LOGIN)) == (0, 2, 1)


def test_a_coordinator_that_became_a_supporter_sends_the_order_on_and_it_is_carried_out_once(
    hosts: list[BadServer],
) -> None:
    xenserver = client(hosts[0])
    xenserver.call("VM.get_all")
    hosts[0].behave("VM.start", led_to(hosts[1]))
    assert xenserver.call("VM.start", "ref", False) == "answer to VM.start"
    assert hosts[1].calls == [
        (LOGIN, "root", PASSWORD, "1.1", "xenward"),
        ("VM.start", "OpaqueRef:session-1", "ref", False),
    ]
    xenserver.call("VM.get_all")
    assert hosts[0].seen("VM.get_all") == 1


def test_hosts_that_send_us_round_in_a_circle_are_unreachable_at_an_end(hosts: list[BadServer]) -> None:
    for here, there in zip(hosts, [*hosts[1:], hosts[0]]):
        here.behave(LOGIN, *[led_to(there)] * 9)
    with pytest.raises(XenServerFailure) as caught:
        client(hosts[0]).call("VM.start")
    assert (caught.value.details[0], caught.value.outcome) == ("HOST_IS_SLAVE", Outcome.UNREACHABLE)
    assert [host.seen(LOGIN) for host in hosts] == [1, 1, 1]


def test_hops_are_bounded() -> None:
    with ExitStack() as stack:
        chain = [stack.enter_context(BadServer()) for _ in range(7)]
        for here, there in zip(chain, chain[1:]):
            here.behave(LOGIN, led_to(there))
        with pytest.raises(XenServerFailure) as caught:
            client(chain[0]).call("VM.start")
        assert caught.value.details[0] == "HOST_IS_SLAVE"
        assert [host.seen(LOGIN) for host in chain] == [1, 1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("address", ["", "no host", "user@host", "host:port", "127.0.0.1:99999", "a/b", "-\n"])
def test_an_address_that_is_none_is_not_followed(server: BadServer, address: str) -> None:
    server.behave(LOGIN, Failure(("HOST_IS_SLAVE", address)))
    xenserver = client(server)
    with pytest.raises(XenServerFailure) as caught:
        xenserver.call("VM.start")
    assert caught.value.outcome is Outcome.UNREACHABLE
    assert xenserver.call("VM.start") == "answer to VM.start"


def test_the_password_does_not_follow_to_another_machine_over_plain_http(server: BadServer) -> None:
    server.behave("VM.start", Failure(("HOST_IS_SLAVE", "192.0.2.1")))
    with pytest.raises(Refused) as caught:
        client(server).call("VM.start")
    assert caught.value.code == "xenserver_plain_http"


def test_a_host_that_is_down_is_passed_over(hosts: list[BadServer]) -> None:
    xenserver = client(hosts[0], url=f"{nobody()}, {hosts[0].url}")
    assert xenserver.call("VM.start") == "answer to VM.start"
    xenserver.call("VM.start")
    assert hosts[0].seen(LOGIN) == 1


def test_when_all_are_down_the_first_is_named() -> None:
    first, second = nobody(), nobody()
    with pytest.raises(XenServerUnreachable) as caught:
        XenServer(Connection(f"{first},{second}", "root", PASSWORD)).call("VM.start")
    assert caught.value.address == first.removeprefix("http://")


@pytest.mark.parametrize("code", ["HOST_IN_EMERGENCY_MODE", "HOST_STILL_BOOTING"])
@pytest.mark.parametrize("method", [LOGIN, "VM.start"])
def test_a_host_without_a_coordinator_is_passed_over_or_unreachable(
    hosts: list[BadServer], code: str, method: str
) -> None:
    hosts[0].behave(method, Failure((code,)))
    both = client(hosts[0], url=f"{hosts[0].url},{hosts[1].url}")
    assert both.call("VM.start") == "answer to VM.start"
    hosts[0].behave(method, Failure((code,)))
    alone = client(hosts[0])
    with pytest.raises(XenServerFailure) as caught:
        alone.call("VM.start")
    assert (caught.value.outcome, caught.value.code) == (Outcome.UNREACHABLE, f"xenserver_{code.lower()}")
    assert alone.call("VM.start") == "answer to VM.start"


def test_an_order_whose_answer_was_lost_goes_to_no_other_host(hosts: list[BadServer]) -> None:
    hosts[0].behave("VM.start", Drop())
    xenserver = client(hosts[0], url=",".join(host.url for host in hosts))
    with pytest.raises(XenServerAnswerLost):
        xenserver.call("VM.start")
    assert [host.seen("VM.start") for host in hosts] == [1, 0, 0]


def test_a_wrong_password_is_tried_at_one_host_only(hosts: list[BadServer]) -> None:
    xenserver = client(hosts[0], url=",".join(host.url for host in hosts), password="wrong")
    with pytest.raises(XenServerAuthenticationFailed):
        xenserver.call("VM.start")
    assert [host.seen(LOGIN) for host in hosts] == [1, 0, 0]


def test_a_host_that_goes_away_takes_no_further_calls_with_it(server: BadServer) -> None:
    with BadServer() as going:
        xenserver = client(server, url=f"{going.url},{server.url}")
        xenserver._idle.put(xenserver.open_session())
        xenserver._idle.put(xenserver.open_session())
        going.behave("VM.start", Drop())
        with pytest.raises(XenServerAnswerLost):
            xenserver.call("VM.start")
    # One session with it is left. Nothing can be sent to it, so the call may go elsewhere.
    assert xenserver.call("VM.start") == "answer to VM.start"
    assert (going.seen("VM.start"), server.seen("VM.start")) == (1, 1)


def test_after_an_answer_that_did_not_come_no_idle_connection_is_relied_on(server: BadServer) -> None:
    xenserver = client(server)
    spare = xenserver.open_session()
    xenserver._idle.put(spare)
    xenserver._idle.put(xenserver.open_session())
    assert spare._transport._http is not None and spare._transport._http.sock is not None
    server.behave("VM.start", Drop())
    with pytest.raises(XenServerAnswerLost):
        xenserver.call("VM.start")
    assert spare._transport._http.sock is None
    assert xenserver.call("VM.get_all") == "answer to VM.get_all"
    assert server.seen(LOGIN) == 2


# Settings


@pytest.mark.parametrize(
    ("named", "url"),
    [
        ("10.0.0.1", "https://10.0.0.1"),
        ("xen-2:8443", "https://xen-2:8443"),
        ("fd00::7", "https://[fd00::7]"),
        ("[fd00::7]:8443", "https://[fd00::7]:8443"),
        ("https://10.0.0.1:8443/import_raw_vdi?x=y", "https://10.0.0.1:8443"),
        ("http://10.0.0.1", "https://10.0.0.1"),
    ],
)
def test_other_members_are_asked_in_the_same_way(named: str, url: str) -> None:
    assert Members(["https://xen-1:443"]).other(named).geturl() == url


@pytest.mark.parametrize("url", ["", " , ", "xen-1", "ftp://xen-1", "https://", "https://xen-1:port", "https://[x"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Refused) as caught:
        Connection(url, "root", PASSWORD)
    assert caught.value.code == "xenserver_settings"
    assert PASSWORD not in str(caught.value)


def test_plain_http_to_another_machine_needs_leave_and_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for url in ("http://xen-1", "https://xen-1,http://10.1.2.3"):
        with pytest.raises(Refused) as caught:
            Connection(url, "root", PASSWORD)
        assert caught.value.code == "xenserver_plain_http"
    caplog.set_level(logging.WARNING)
    XenServer(Connection("http://127.0.0.1,http://localhost:1,http://[::1]", "root", PASSWORD))
    assert not caplog.records
    XenServer(Connection("http://xen-1", "root", PASSWORD, allow_plain_http=True))
    assert "xen-1" in caplog.text and PASSWORD not in caplog.text


# A pool that lets another host coordinate


def test_calls_and_events_follow_the_coordinator_of_a_pool() -> None:
    with SimulatorProcess(["--no-agent", "--login-failure-delay", "0", "--hosts", "2"]) as pool:
        urls = ",".join(host.url for host in pool.hosts)
        xenserver = XenServer(Connection(urls, pool.username, pool.password))
        events = xenserver.events
        assert events.await_change(lambda view: True, 10.0)
        first, second = (xenserver.call("host.get_by_uuid", host.uuid) for host in pool.hosts)
        pool.control.change_coordinator(second)
        assert xenserver.call("pool.get_all")
        assert xenserver.members.coordinator.geturl() == pool.hosts[1].url
        assert events.await_change(lambda view: True, 10.0)
        pool.control.change_coordinator(first)
        pool.control.crash_host(second)
        assert xenserver.call("pool.get_all")
        assert xenserver.members.coordinator.geturl() == pool.hosts[0].url
        assert events.await_change(lambda view: True, 10.0)
        xenserver.close()
