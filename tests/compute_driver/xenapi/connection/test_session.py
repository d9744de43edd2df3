from __future__ import annotations

import socket
import threading
import time
import traceback

import pytest

from agent_protocol.outcomes import Outcome, Unsuccessful
from compute_driver.errors import (
    XenServerAnswerLost,
    XenServerAuthenticationFailed,
    XenServerFailure,
    XenServerUnreachable,
)
from compute_driver.xenapi.connection.sdk_session import NotSent
from compute_driver.xenapi.connection.session import Connection, XenServer

from ..bad_server import DEADLINE, PASSWORD, BadServer, Behaviour, Drip, Drop, Failure, Late, Raw, ThenClose, client

LOGIN = "session.login_with_password"
NEVER = threading.Event()


def shows_no_secret(error: BaseException) -> bool:
    told = repr(error) + str(error) + repr(vars(error)) + "".join(traceback.format_exception_only(type(error), error))
    return PASSWORD not in told and "hunter2" not in told


def test_one_session_is_kept_for_call_after_call(server: BadServer) -> None:
    xenserver = client(server)
    assert xenserver.call("VM.get_all") == "answer to VM.get_all"
    assert xenserver.call("VM.start", "ref", False) == "answer to VM.start"
    assert server.calls == [
        (LOGIN, "root", PASSWORD, "1.1", "xenward"),
        ("VM.get_all", "OpaqueRef:session-1"),
        ("VM.start", "OpaqueRef:session-1", "ref", False),
    ]


# Connections that cannot be made, or break


def test_a_refused_connection_is_unreachable() -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        port = nobody_listens.getsockname()[1]
        xenserver = XenServer(Connection(f"http://user:pw@127.0.0.1:{port}", "root", PASSWORD))
        for method in ("VM.get_all", "VM.start"):
            with pytest.raises(XenServerUnreachable) as caught:
                xenserver.call(method)
            assert str(caught.value) == f"XenServer at 127.0.0.1:{port} cannot be reached: Connection refused."


def test_a_name_that_is_none_is_unreachable() -> None:
    with pytest.raises(XenServerUnreachable):
        XenServer(Connection("https://no-such-host.invalid", "root", PASSWORD)).call("VM.get_all")


def test_a_server_without_tls_is_unreachable_over_https(server: BadServer) -> None:
    with pytest.raises(XenServerUnreachable):
        client(server, url=server.url.replace("http:", "https:"), timeout=0.3).call("VM.start")
    assert server.calls == []


@pytest.mark.parametrize("method", ["VM.get_all", "VM.start"])
def test_a_connection_closed_while_idle_is_replaced_and_the_call_sent_once(server: BadServer, method: str) -> None:
    server.behave("VM.get_all_records", ThenClose("first"))
    xenserver = client(server)
    assert xenserver.call("VM.get_all_records") == "first"
    assert server.closed.wait(DEADLINE)
    assert xenserver.call(method) == f"answer to {method}"
    assert server.seen(method) == 1
    assert server.seen(LOGIN) == 1


def test_a_lost_answer_to_an_order_is_unknown_and_the_order_sent_once(server: BadServer) -> None:
    server.behave("VM.start", Drop())
    xenserver = client(server)
    with pytest.raises(XenServerAnswerLost) as caught:
        xenserver.call("VM.start", "ref", False)
    assert (caught.value.outcome, caught.value.call) == (Outcome.UNKNOWN, "VM.start")
    assert server.seen("VM.start") == 1
    # The next call does well, with the same session: none is left behind.
    assert xenserver.call("VM.get_all") == "answer to VM.get_all"
    assert server.seen(LOGIN) == 1


def test_a_lost_answer_on_a_connection_used_before_is_unknown_too(server: BadServer) -> None:
    xenserver = client(server)
    xenserver.call("VM.start")
    server.behave("VM.start", Drop())
    with pytest.raises(XenServerAnswerLost):
        xenserver.call("VM.start")
    assert server.seen("VM.start") == 2


def test_a_lost_answer_to_a_question_is_unreachable(server: BadServer) -> None:
    server.behave("VM.get_record", Drop())
    with pytest.raises(XenServerUnreachable):
        client(server).call("VM.get_record", "ref")
    assert server.seen("VM.get_record") == 1


def test_a_lost_answer_to_the_login_is_unreachable(server: BadServer) -> None:
    server.behave(LOGIN, Drop())
    with pytest.raises(XenServerUnreachable) as caught:
        client(server).call("VM.start")
    assert server.seen("VM.start") == 0
    assert shows_no_secret(caught.value)


@pytest.mark.parametrize(
    ("method", "error"), [("VM.get_record", XenServerUnreachable), ("VM.start", XenServerAnswerLost)]
)
def test_an_answer_that_comes_too_late_is_not_waited_for(
    server: BadServer, method: str, error: type[Unsuccessful]
) -> None:
    server.behave(method, Late(NEVER))
    xenserver = client(server)
    began = time.monotonic()
    with pytest.raises(error):
        xenserver.call(method, timeout=0.1)
    assert 0.1 <= time.monotonic() - began < 5
    assert server.seen(method) == 1
    # What comes on the old connection is never taken for the answer to something else.
    assert xenserver.call("VM.get_all") == "answer to VM.get_all"


def test_an_answer_that_comes_byte_by_byte_has_no_more_time(server: BadServer) -> None:
    server.behave("VM.start", Drip())
    began = time.monotonic()
    with pytest.raises(XenServerAnswerLost):
        client(server).call("VM.start", timeout=0.3)
    # Each byte came well within that time; at this pace the whole answer would take half an hour.
    assert time.monotonic() - began < DEADLINE


def test_a_session_that_was_hung_up_sends_nothing_but_its_logout(server: BadServer) -> None:
    session = client(server).open_session()
    session.hang_up()
    with pytest.raises(NotSent):
        session.call("VM.start", (), time.monotonic() + DEADLINE)
    assert server.seen("VM.start") == 0
    session.logout()
    assert server.seen("session.logout") == 1


def test_a_call_without_a_time_of_its_own_has_the_connections(server: BadServer) -> None:
    server.behave("VM.get_record", Late(NEVER))
    xenserver = client(server, timeout=0.1)
    with pytest.raises(XenServerUnreachable, match="no answer in time"):
        xenserver.call("VM.get_record")


def test_each_call_has_its_own_time(server: BadServer) -> None:
    event = threading.Event()
    xenserver = client(server, timeout=0.2)
    xenserver.call("VM.get_all")
    server.behave("VM.start", Late(event, "slow"))
    timer = threading.Timer(0.3, event.set)
    timer.start()
    assert xenserver.call("VM.start", timeout=DEADLINE) == "slow"
    timer.join()
    server.behave("VM.get_record", Late(NEVER))
    began = time.monotonic()
    with pytest.raises(XenServerUnreachable):
        xenserver.call("VM.get_record")
    assert time.monotonic() - began < 5


# Answers that are none

JUNK = [
    pytest.param(Raw(b"", "500 Internal Server Error"), id="500"),
    pytest.param(Raw(b"<html>busy</html>", "503 Service Unavailable"), id="503"),
    pytest.param(Raw(b""), id="empty"),
    pytest.param(Raw(b"\xff\xfe not XML"), id="not XML"),
    pytest.param(Raw(b"<html><body>hello</body></html>"), id="other XML"),
    pytest.param(Raw(b"<methodResponse><params>"), id="cut off"),
    pytest.param(
        Raw(b"<methodResponse><params><param><value><int>x</int></value></param></params></methodResponse>"),
        id="no number",
    ),
    pytest.param(Raw(b"<methodResponse></struct></methodResponse>"), id="not nested"),
    pytest.param(
        Raw(b"<methodResponse><params><param><value></struct></value></param></params></methodResponse>"),
        id="not nested deeper",
    ),
    pytest.param(
        Raw(
            b"<methodResponse><params><param><value><struct><value><int>1</int></value></struct></value></param>"
            b"</params></methodResponse>"
        ),
        id="odd struct",
    ),
    pytest.param(
        Raw(b"<methodResponse><params><param><value><base64>x</base64></value></param></params></methodResponse>"),
        id="no base64",
    ),
    pytest.param(
        Raw(b"<methodResponse><params><param><value><i4>7</i4></value></param></params></methodResponse>"),
        id="no struct",
    ),
    pytest.param(
        Raw(
            b"<methodResponse><params><param><value><struct><member><name>Status</name><value>Failure</value></member>"
            b"<member><name>ErrorDescription</name><value><array><data></data></array></value></member>"
            b"</struct></value></param></params></methodResponse>"
        ),
        id="no description",
    ),
    pytest.param(
        Raw(b"<methodResponse><params><param><value>text</value></param></params></methodResponse>"), id="text"
    ),
]


@pytest.mark.parametrize("junk", JUNK)
def test_junk_in_answer_to_an_order_is_unknown(server: BadServer, junk: Behaviour) -> None:
    server.behave("VM.start", junk)
    xenserver = client(server)
    with pytest.raises(XenServerAnswerLost) as caught:
        xenserver.call("VM.start")
    assert shows_no_secret(caught.value)
    assert server.seen("VM.start") == 1
    assert xenserver.call("VM.start") == "answer to VM.start"


@pytest.mark.parametrize("junk", JUNK)
def test_junk_in_answer_to_a_question_is_unreachable(server: BadServer, junk: Behaviour) -> None:
    server.behave("VM.get_record", junk)
    with pytest.raises(XenServerUnreachable):
        client(server).call("VM.get_record")


@pytest.mark.parametrize("junk", JUNK)
def test_junk_in_answer_to_the_login_is_unreachable(server: BadServer, junk: Behaviour) -> None:
    server.behave(LOGIN, junk)
    xenserver = client(server)
    with pytest.raises(XenServerUnreachable) as caught:
        xenserver.call("VM.start")
    assert shows_no_secret(caught.value)
    assert server.seen("VM.start") == 0
    assert xenserver.call("VM.start") == "answer to VM.start"


# What XenServer refuses


def test_a_failure_is_told_with_its_details_and_the_session_kept(server: BadServer) -> None:
    server.behave("VM.start", Failure(("VM_BAD_POWER_STATE", "ref", "halted", "running")))
    xenserver = client(server)
    with pytest.raises(XenServerFailure) as caught:
        xenserver.call("VM.start")
    assert caught.value.details == ("VM_BAD_POWER_STATE", "ref", "halted", "running")
    assert caught.value.code == "xenserver_vm_bad_power_state"
    xenserver.call("VM.get_all")
    assert server.seen(LOGIN) == 1


def test_an_xml_rpc_fault_is_a_failure(server: BadServer) -> None:
    fault = (
        b"<methodResponse><fault><value><struct><member><name>faultCode</name><value><int>1</int></value></member>"
        b"<member><name>faultString</name><value>no such method</value></member></struct></value></fault>"
        b"</methodResponse>"
    )
    server.behave("VM.fly", Raw(fault))
    with pytest.raises(XenServerFailure) as caught:
        client(server).call("VM.fly")
    assert caught.value.details == ("FAULT", "1", "no such method")


@pytest.mark.parametrize("method", ["VM.get_all", "VM.start"])
def test_an_expired_session_is_renewed(server: BadServer, method: str) -> None:
    xenserver = client(server)
    server.behave(method, Failure(("SESSION_INVALID", "OpaqueRef:session-1")))
    assert xenserver.call(method) == f"answer to {method}"
    assert [call[:2] for call in server.calls] == [
        (LOGIN, "root"),
        (method, "OpaqueRef:session-1"),
        (LOGIN, "root"),
        (method, "OpaqueRef:session-2"),
    ]


def test_a_password_changed_meanwhile_is_refused_at_the_renewal(server: BadServer) -> None:
    xenserver = client(server)
    server.behave("VM.start", Failure(("SESSION_INVALID", "OpaqueRef:session-1")))
    server.behave(LOGIN, "OpaqueRef:session-1", Failure(("SESSION_AUTHENTICATION_FAILED", "root", "no")))
    with pytest.raises(XenServerAuthenticationFailed):
        xenserver.call("VM.start")
    assert xenserver.call("VM.start") == "answer to VM.start"


def test_a_session_that_never_becomes_valid_is_a_failure(server: BadServer) -> None:
    server.behave("VM.start", *[Failure(("SESSION_INVALID", "OpaqueRef:a-secret"))] * 3)
    xenserver = client(server)
    with pytest.raises(XenServerFailure) as caught:
        xenserver.call("VM.start")
    assert caught.value.code == "xenserver_session_invalid"
    assert "OpaqueRef" not in str(caught.value)
    assert (server.seen("VM.start"), server.seen(LOGIN)) == (2, 2)


def test_a_wrong_password_is_refused_without_showing_it(server: BadServer) -> None:
    xenserver = client(server, password="hunter2 wrong")
    with pytest.raises(XenServerAuthenticationFailed) as caught:
        xenserver.call("VM.start")
    assert caught.value.outcome is Outcome.REFUSED
    assert shows_no_secret(caught.value)
    assert server.seen("VM.start") == 0


def test_the_password_does_not_show_in_the_connection() -> None:
    connection = Connection("https://root:hunter2@xen-1:8443/x", "root", PASSWORD)
    assert PASSWORD not in repr(connection)
    assert connection.address == "xen-1:8443"
    assert Connection("https://xen-1", "root", "").address == "xen-1"
