"""Consoles and diagnostics of running guests, and the hand-shake with the plugin that serves them."""

from __future__ import annotations

import base64
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import XenAPI
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.messages import Password
from agent_protocol.outcomes import Outcome, Refused, Unreachable, Unsuccessful, Unsupported
from agent_protocol.xenstore import connect
from compute_driver.resources import VncConsole
from compute_driver.xenapi.agents.plugin_versions import FUNCTIONS, PROTOCOL, PluginVersion
from compute_driver.xenapi.connection.cache import Change
from compute_driver.xenapi.connection.session import XenServer
from compute_driver.xenapi.guests import console, vms
from compute_driver.xenapi.guests.diagnostics import parse_updates

from ..conftest import Wanted
from ..nodes_pool import FIRST, SECOND, NodesPool, nodes_pool

VM = "00000000-0000-0000-0000-0000000000aa"

OTHER_PLUGIN = """\
#!/bin/sh
echo "<?xml version='1.0'?><methodResponse><params><param><value><struct><member><name>Status</name>\
<value>{status}</value></member><member><name>{name}</name>{value}</member></struct></value></param></params>\
</methodResponse>"
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[NodesPool]:
    with nodes_pool() as it:
        yield it
        it.restore()


@pytest.fixture(scope="module")
def guest(pool: NodesPool) -> Wanted:
    return pool.guest(SECOND)


class TestOutput:
    def test_what_the_guest_wrote(self, pool: NodesPool, guest: Wanted) -> None:
        uuid = pool.server.call("VM.get_uuid", pool.vm(guest))
        assert pool.driver.get_console_output(guest) == f"Simulated guest {uuid} boots.\r\n".encode()

    def test_only_its_end(self, pool: NodesPool, guest: Wanted) -> None:
        log = self.log(pool, guest)
        content = bytes(range(256)) * 1000
        before = log.read_bytes()
        try:
            log.write_bytes(content)
            assert pool.driver.get_console_output(guest) == content[-100 * 1024 :]
        finally:
            log.write_bytes(before)

    def log(self, pool: NodesPool, guest: Wanted) -> Path:
        domid = pool.server.call("VM.get_domid", pool.vm(guest))
        return pool.simulator.state / "host-2" / "consoles" / f"console.{domid}"

    def test_where_nothing_is_kept_it_says_so(self, pool: NodesPool, guest: Wanted) -> None:
        (store,) = [it.xenstore_socket for it in pool.simulator.hosts if it.name == SECOND]
        with connect(str(store)) as dom0:
            kept = dom0.read("/local/logconsole/@")
            dom0.remove("/local/logconsole/@")
            try:
                with pytest.raises(Unsupported) as caught:
                    pool.driver.get_console_output(guest)
            finally:
                dom0.write("/local/logconsole/@", kept)
        assert caught.value.code == "console_not_logged"
        assert "docs/install-xcpng.md" in caught.value.message

    def test_a_link_is_not_followed(self, pool: NodesPool, guest: Wanted) -> None:
        log = self.log(pool, guest)
        before = log.read_bytes()
        log.unlink()
        log.symlink_to("/etc/passwd")
        try:
            with pytest.raises(Refused) as caught:
                pool.driver.get_console_output(guest)
        finally:
            log.unlink()
            log.write_bytes(before)
        assert caught.value.code == "console_log_refused"

    def test_a_guest_that_is_off(self, pool: NodesPool) -> None:
        off = pool.guest(FIRST)
        pool.driver.power_off(off, timeout=0)
        for ask in (pool.driver.get_console_output, pool.driver.get_vnc_console):
            with pytest.raises(Refused) as caught:
                ask(off)
            assert caught.value.code == "instance_not_running"
        told = pool.driver.get_diagnostics(off)
        assert (told.state, told.cpu_usage, told.uptime, told.memory_maximum) == ("shutdown", (), None, 64)


def greeting(screen: VncConsole, token: str) -> tuple[bytes, bytes]:
    """The head of the answer to CONNECT, and what follows it."""
    with socket.create_connection((screen.host, screen.port), 10.0) as sock:
        head = f"CONNECT {screen.internal_access_path} HTTP/1.1\r\nHost: x\r\nCookie: session_id={token}\r\n\r\n"
        sock.sendall(head.encode())
        received = b""
        while b"\r\n\r\n" not in received or (b" 200 " in received and not received.endswith(b"\n")):
            piece = sock.recv(4096)
            if not piece:
                break
            received += piece
        answer, _, rest = received.partition(b"\r\n\r\n")
        while b" 200 " in answer and len(rest) < 12:
            rest += sock.recv(4096)
        return answer, rest


class TestScreen:
    def test_it_leads_to_rfb(self, pool: NodesPool, guest: Wanted) -> None:
        screen = pool.driver.get_vnc_console(guest)
        answer, banner = greeting(screen, screen.token)
        assert b" 200 " in answer.splitlines()[0]
        assert banner.startswith(b"RFB 003.")
        assert screen.token not in repr(screen)
        (url,) = [it.plain_url for it in pool.simulator.hosts if it.name == SECOND]
        assert url == f"http://{screen.host}:{screen.port}" and not screen.tls

    def test_only_with_its_token(self, pool: NodesPool, guest: Wanted) -> None:
        screen = pool.driver.get_vnc_console(guest)
        answer, _ = greeting(screen, "OpaqueRef:00000000-0000-0000-0000-000000000000")
        assert b" 200 " not in answer

    def test_tokens_end_and_are_few(self, pool: NodesPool, guest: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
        screens = console.Screens(XenServer(pool.driver._server.connection))
        vm = vms.find(pool.driver._server, guest)
        monkeypatch.setattr(console, "MAX_TOKENS", 2)
        tokens = [screens.open(vm).token for _ in range(3)]
        assert [self.is_good(pool, token) for token in tokens] == [False, True, True]
        screens.close()
        assert [self.is_good(pool, token) for token in tokens] == [False] * 3
        first = screens.open(vm).token
        assert self.is_good(pool, first)
        monkeypatch.setattr(console, "TOKEN_LIFE", -1.0)
        screens.close()
        assert not self.is_good(pool, screens.open(vm).token)
        screens.close()

    def is_good(self, pool: NodesPool, token: str) -> bool:
        session = XenAPI.Session(pool.simulator.url)
        answer = session._ServerProxy__request("pool.get_all", (token,))
        return bool(answer["Status"] == "Success")


class TestDiagnostics:
    def test_of_a_running_guest(self, pool: NodesPool, guest: Wanted) -> None:
        told = pool.driver.get_diagnostics(guest)
        assert told.state == "running"
        assert len(told.cpu_usage) == guest.vcpus and all(0 <= share <= 1 for share in told.cpu_usage)
        assert told.memory_maximum == 64
        assert [disk.device for disk in told.disks] == ["xvda"]
        assert [nic.device for nic in told.nics] == ["0"]
        assert told.uptime is not None and told.uptime >= 0

    def test_the_latest_that_is_known(self) -> None:
        legend = [f"AVERAGE:vm:{VM}:cpu0", f"AVERAGE:vm:{VM}:memory", "AVERAGE:host:x:cpu0", f"MAX:vm:{VM}:cpu1"]
        rows = [{"t": "10", "values": ["0.25", "1e6", "1", "1"]}, {"t": 15, "values": [float("nan"), 2e6, 1, 1]}]
        export = json.dumps({"meta": {"legend": legend}, "data": rows}).encode()
        assert parse_updates(export, VM) == {"cpu0": 0.25, "memory": 2e6}

    @given(
        st.binary()
        | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(lambda it: json.dumps(it).encode())
    )
    def test_nonsense_is_a_value_error_or_nothing(self, body: bytes) -> None:
        try:
            assert parse_updates(body, VM) == {}
        except ValueError:
            pass


class TestHandShake:
    @pytest.fixture(autouse=True)
    def plugin(self, pool: NodesPool) -> Iterator[None]:
        content = pool.plugin.read_bytes()
        yield
        pool.plugin.write_bytes(content)
        pool.plugin.chmod(0o755)
        self.forget(pool)

    def forget(self, pool: NodesPool) -> None:
        for ref in pool.server.call("host.get_all"):
            pool.driver._versions.forget(ref)

    def says(self, pool: NodesPool, status: str, name: str, value: str) -> None:
        pool.plugin.write_text(OTHER_PLUGIN.format(status=status, name=name, value=value))
        pool.plugin.chmod(0o755)
        self.forget(pool)

    def tells(self, pool: NodesPool, **told: object) -> None:
        text = json.dumps(told).replace('"', "&quot;")
        self.says(pool, "Success", "Value", f"<value>{text}</value>")

    def state(self, pool: NodesPool) -> tuple[Outcome, str]:
        state = pool.driver.check_node(SECOND)
        return state.helper, state.code

    def error(self, pool: NodesPool, guest: Wanted) -> Unsuccessful:
        with pytest.raises(Unsuccessful) as caught:
            pool.driver.set_admin_password(guest, Password("Correct-Horse-9"))
        return caught.value

    def test_ours_is_good(self, pool: NodesPool) -> None:
        assert self.state(pool) == (Outcome.SUCCEEDED, "")

    def test_missing(self, pool: NodesPool, guest: Wanted, caplog: pytest.LogCaptureFixture) -> None:
        pool.plugin.unlink()
        self.forget(pool)
        assert self.state(pool) == (Outcome.UNSUPPORTED, "plugin_missing")
        error = self.error(pool, guest)
        assert (error.outcome, error.code) == (Outcome.UNSUPPORTED, "plugin_missing")
        assert "install-plugin" in error.message
        with caplog.at_level(logging.ERROR):
            pool.driver.init_host("compute-1")
        assert [SECOND in record.getMessage() for record in caplog.records].count(True) == 1

    def test_older_than_the_hand_shake(self, pool: NodesPool, guest: Wanted) -> None:
        values = "<value>UNKNOWN_XENAPI_PLUGIN_FUNCTION</value><value>version</value>"
        self.says(pool, "Failure", "ErrorDescription", f"<value><array><data>{values}</data></array></value>")
        assert self.state(pool) == (Outcome.UNSUPPORTED, "plugin_too_old")
        assert self.error(pool, guest).code == "plugin_too_old"

    def test_too_old(self, pool: NodesPool, guest: Wanted) -> None:
        self.tells(pool, version="0.0.9", protocol=PROTOCOL - 1, functions=sorted(FUNCTIONS))
        assert self.state(pool) == (Outcome.UNSUPPORTED, "plugin_too_old")
        assert "0.0.9" in self.error(pool, guest).message
        self.tells(pool, version="0.0.9", protocol=PROTOCOL, functions=sorted(FUNCTIONS)[1:])
        assert self.state(pool) == (Outcome.UNSUPPORTED, "plugin_too_old")

    def test_a_newer_one_is_fine(self, pool: NodesPool) -> None:
        self.tells(pool, version="9.9", protocol=PROTOCOL + 7, functions=[*sorted(FUNCTIONS), "more"])
        state = pool.driver.check_node(SECOND)
        assert (state.helper, state.helper_version) == (Outcome.SUCCEEDED, "9.9")

    def test_one_that_dies_was_given_no_order(self, pool: NodesPool, guest: Wanted) -> None:
        pool.plugin.write_text("#!/bin/sh\nexit 3\n")
        self.forget(pool)
        assert self.error(pool, guest).outcome is Outcome.UNREACHABLE

    def test_it_is_asked_once_until_its_host_was_down(self, pool: NodesPool, guest: Wanted) -> None:
        ref = pool.host(SECOND)
        versions = pool.driver._versions
        self.forget(pool)
        pool.simulator.control.log_calls()

        def asked() -> int:
            calls = pool.simulator.control.read_calls()
            return sum(call.name == "host.call_plugin" for call in calls)

        for _ in range(3):
            versions.require(ref)
        assert asked() == 1
        metrics = pool.server.call("host.get_metrics", ref)
        assert ref in versions._good
        row = pool.driver._server.events.record("host_metrics", metrics)
        versions._changed(Change("host_metrics", metrics, row, row))
        assert ref in versions._good
        versions._changed(Change("host_metrics", metrics, row, {**row, "live": False}))
        assert ref not in versions._good
        versions.require(ref)
        versions._changed(Change("host", ref, row, None))
        assert ref not in versions._good

    @given(st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
    def test_any_other_answer_is_unreachable(self, text: str) -> None:
        with pytest.raises(Unreachable):
            PluginVersion.parse(text)


def test_an_answer_that_is_no_base64() -> None:
    class Plugin:
        def console_log(self, vm: object, *, timeout: float) -> dict[str, str]:
            return {"log": "read", "data": "!" + base64.b64encode(b"x").decode()}

    with pytest.raises(Unsuccessful) as caught:
        console.output(Plugin(), None)  # type: ignore[arg-type]
    assert caught.value.code == "bad_plugin_answer"
