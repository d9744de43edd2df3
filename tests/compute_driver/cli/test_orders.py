"""Each order of the command: what it asks of the service, waited for or not, sent again, and asked for afterwards."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agent_protocol.outcomes import Outcome, Refused, Unknown, Unreachable
from compute_driver.cli import main as cli
from compute_driver.cli.base import EXIT_STATUS
from compute_driver.cli.recorded import ORDER_TIMEOUT, RecordedOrder

from .service import INSTANCE, Service, run, shown

WEB = {"target": "web"}
VDI = "1b1c5e6a-0000-4000-8000-000000000001"
ORDERS: list[tuple[str, str, dict[str, Any]]] = [
    ("server delete web", "terminate_instance", WEB),
    ("server start web", "start_instance", WEB),
    ("server stop web", "stop_instance", WEB),
    ("server stop web --timeout 0", "stop_instance", {**WEB, "timeout": 0.0}),
    ("server reboot web", "reboot_instance", {**WEB, "reboot_type": "SOFT"}),
    ("server reboot web --hard", "reboot_instance", {**WEB, "reboot_type": "HARD"}),
    ("server pause web", "pause_instance", WEB),
    ("server unpause web", "unpause_instance", WEB),
    ("server suspend web", "suspend_instance", WEB),
    ("server resume web", "resume_instance", WEB),
    ("server rescue web --image fix --no-password", "rescue_instance", {**WEB, "image_ref": "fix"}),
    ("server unrescue web", "unrescue_instance", WEB),
    ("server rebuild web --image deb --no-password", "rebuild_instance", {**WEB, "image_ref": "deb"}),
    (
        "server resize web --memory 64 --vcpus 2 --disk 3",
        "resize_instance",
        {**WEB, "memory_mb": 64, "vcpus": 2, "root_gb": 3},
    ),
    ("server resize confirm web", "confirm_resize", WEB),
    ("server resize revert web", "revert_resize", WEB),
    ("server migrate web --node xen-2", "migrate_instance", {**WEB, "node": "xen-2"}),
    ("server migrate live web --node xen-2", "live_migrate_instance", {**WEB, "node": "xen-2"}),
    ("server image create web --name copy", "snapshot_instance", {**WEB, "name": "copy", "disk_format": "vhd"}),
    (
        "server image create web --name copy --disk-format raw",
        "snapshot_instance",
        {**WEB, "name": "copy", "disk_format": "raw"},
    ),
    ("server freeze web", "quiesce_instance", {**WEB, "timeout": 60.0}),
    ("server freeze web --timeout 5", "quiesce_instance", {**WEB, "timeout": 5.0}),
    ("server thaw web", "unquiesce_instance", WEB),
    ("server remove volume web data", "detach_volume", {**WEB, "volume_id": "data"}),
    ("server remove network web port-1", "detach_interface", {**WEB, "interface_id": "port-1"}),
    ("server network apply web", "inject_network_info", WEB),
    ("server network reset web", "reset_network", WEB),
    (
        "server set web --property a=b --property c=d=e",
        "change_instance_metadata",
        {**WEB, "diff": {"a": ["+", "b"], "c": ["+", "d=e"]}},
    ),
    (
        "server unset web --property a --property c",
        "change_instance_metadata",
        {**WEB, "diff": {"a": ["-"], "c": ["-"]}},
    ),
    ("agent trust web", "trust_agent", WEB),
]
ELSEWHERE = {"server create", "server add volume", "server add network"}
"""Recorded orders that have tests of their own."""

IMAGE = {"id": "image-1", "name": "copy", "disk_format": "vhd", "size": 5, "sha256": "ab"}
ACTION = {
    "id": 7,
    "order_id": "order-1",
    "action": "start",
    "step": None,
    "target": "web",
    "instance_uuid": "uuid-web",
    "request_id": "req-1",
    "user": "ada",
    "host": "here",
    "epoch": 3,
    "started_at": "2026-03-01T12:00:00.000000+00:00",
    "finished_at": None,
    "seconds": None,
    "outcome": None,
    "code": "",
    "message": "",
}


@pytest.fixture(autouse=True)
def answers(service: Service) -> None:
    service.answers["snapshot_instance"] = IMAGE
    service.answers["trust_agent"] = {"fingerprint": "SHA256:x", "version": "2.0"}


def test_the_table_has_every_recorded_order() -> None:
    tried = {name for name in cli.COMMANDS for line, _, _ in ORDERS if line.startswith(f"{name} ")}
    assert tried | ELSEWHERE >= {name for name, it in cli.COMMANDS.items() if issubclass(it, RecordedOrder)}


@pytest.mark.parametrize(("line", "method", "arguments"), ORDERS, ids=[line for line, _, _ in ORDERS])
def test_an_order_is_asked_for_and_shown(
    service: Service, capsys: pytest.CaptureFixture[str], line: str, method: str, arguments: dict[str, Any]
) -> None:
    assert run(*line.split(), "-f", "json") == 0
    fields = shown(capsys)
    assert service.calls == [(method, arguments)]
    (context,) = service.contexts
    assert fields["outcome"] == "succeeded"
    assert (fields["request_id"], fields["order_id"]) == (context.request_id, context.order_id)
    assert service.left == []


@pytest.mark.parametrize(("line", "method", "arguments"), ORDERS, ids=[line for line, _, _ in ORDERS])
def test_an_order_can_be_left_to_itself_under_an_id(
    service: Service, capsys: pytest.CaptureFixture[str], line: str, method: str, arguments: dict[str, Any]
) -> None:
    service.answer = None
    assert run(*line.split(), "--no-wait", "--order-id", "order-1", "-f", "json") == 0
    fields = shown(capsys)
    assert (service.calls, service.left) == ([(method, arguments)], [method])
    assert fields == {
        "outcome": "accepted",
        "code": "",
        "message": "",
        "request_id": service.contexts[0].request_id,
        "order_id": "order-1",
    }


def test_orders_have_ids_of_their_own_and_an_end(service: Service) -> None:
    before = time.time()
    assert run("server", "start", "web") == run("server", "start", "web", "--order-id", "again") == 0
    assert run("server", "start", "web", "--no-wait") == 0
    waited, again, left = service.contexts
    assert (again.order_id, len({waited.order_id, again.order_id, left.order_id})) == ("again", 3)
    for context, lifetime in ((waited, ORDER_TIMEOUT), (again, ORDER_TIMEOUT), (left, 600.0)):
        assert context.expires is not None
        assert before + lifetime <= context.expires <= time.time() + lifetime


def test_the_answer_of_an_order_is_shown(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("server", "image", "create", "web", "--name", "copy", "-f", "json") == 0
    assert IMAGE.items() <= shown(capsys).items()
    service.answers["change_instance_metadata"] = {"a": "b"}
    assert run("server", "set", "web", "--property", "a=b", "-f", "json") == 0
    assert shown(capsys)["properties"] == {"a": "b"}


def test_nothing_is_left_to_a_bus_that_ends_with_the_command(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.is_embedded = True
    assert run("server", "start", "web", "--no-wait", "-f", "json") == EXIT_STATUS[Outcome.REFUSED]
    fields = shown(capsys)
    assert (fields["outcome"], fields["code"]) == ("refused", "bus_embedded")
    assert service.calls == []
    assert run("server", "start", "web") == 0


def test_a_bus_that_is_away_takes_no_order(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.errors["start_instance"] = Unreachable("bus_unreachable", "it is away")
    assert run("server", "start", "web", "--no-wait", "-f", "json") == EXIT_STATUS[Outcome.UNREACHABLE]
    assert shown(capsys)["outcome"] == "unreachable"


def test_an_unknown_end_tells_how_to_ask_for_it(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    for method in ("start_instance", "set_admin_password"):
        service.errors[method] = Unknown("service_no_answer", "silence")
    assert run("server", "start", "web", "--order-id", "order-1", "-f", "json") == 8
    told = capsys.readouterr()
    assert '"order_id": "order-1"' in told.out
    assert told.err == "xenward: it may or may not have happened; ask: xenward order show order-1 --wait 60\n"
    # A password may take several orders: the request has them all.
    assert run("server", "password", "set", "web", "--generate", "-f", "json") == 8
    request = service.contexts[-1].request_id
    assert f"ask: xenward action list --request {request}\n" in capsys.readouterr().err
    # Any other end is one.
    service.errors["start_instance"] = Refused("order_succeeded", "the order was carried out before, and succeeded")
    assert run("server", "start", "web", "--order-id", "order-1", "-f", "json") == 3
    assert capsys.readouterr().err == ""


def test_who_interrupts_a_wait_is_told_how_to_ask(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.errors["stop_instance"] = KeyboardInterrupt()
    assert run("server", "stop", "web", "--order-id", "order-1") == 130
    assert "ask: xenward order show order-1" in capsys.readouterr().err


def test_a_resize_keeps_the_sizes_that_are_not_named(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.answers["get_instance"] = {**INSTANCE, "agent": None}
    assert run("server", "resize", "web", "--memory", "1024", "--node", "xen-2") == 0
    assert service.calls == [
        ("get_instance", WEB),
        ("resize_instance", {"target": "uuid-web", "memory_mb": 1024, "vcpus": 1, "root_gb": 4, "node": "xen-2"}),
    ]
    assert service.contexts[0].order_id is None
    capsys.readouterr()
    assert run("server", "resize", "web", "--node", "xen-2", "-f", "json") == 3
    assert shown(capsys)["code"] == "bad_size"
    assert len(service.calls) == 2


@pytest.mark.parametrize("argument", ["a", "=b", ""])
def test_properties_are_pairs(service: Service, capsys: pytest.CaptureFixture[str], argument: str) -> None:
    assert run("server", "set", "web", f"--property={argument}", "-f", "json") == 3
    assert shown(capsys)["code"] == "bad_property"
    assert service.calls == []


# What became of it


@pytest.mark.parametrize("outcome", list(Outcome), ids=str)
def test_an_order_is_shown_with_its_outcome_and_exit_status(
    service: Service, capsys: pytest.CaptureFixture[str], outcome: Outcome
) -> None:
    service.answers["get_order"] = {**ACTION, "outcome": str(outcome), "code": "c", "message": "m", "seconds": 1.5}
    assert run("order", "show", "order-1", "-f", "json") == EXIT_STATUS[outcome]
    fields = shown(capsys)
    assert (fields["outcome"], fields["code"], fields["message"]) == (str(outcome), "c", "m")
    assert (fields["order_id"], fields["instance_uuid"], fields["seconds"]) == ("order-1", "uuid-web", 1.5)
    assert service.calls == [("get_order", {"order_id": "order-1"})]


def test_an_order_that_is_not_over_is_no_success(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.answers["get_order"] = ACTION
    assert run("order", "show", "order-1", "-f", "json") == EXIT_STATUS[Outcome.BUSY]
    fields = shown(capsys)
    assert (fields["outcome"], fields["code"], fields["finished_at"]) == ("busy", "order_in_flight", None)


def test_an_order_can_be_waited_for(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.answers["get_order"] = {**ACTION, "outcome": "failed", "code": "storage_full"}
    assert run("order", "show", "order-1", "--wait", "2.5", "-f", "json") == EXIT_STATUS[Outcome.FAILED]
    assert service.calls[0] == ("result", ("order-1", 2.5))
    assert shown(capsys)["code"] == "storage_full"
    service.errors["get_order"] = Unknown("order_not_ended", "it did not end")
    assert run("order", "show", "order-1", "--wait", "0") == EXIT_STATUS[Outcome.UNKNOWN]
    assert capsys.readouterr().err == "xenward: it did not end (unknown, order_not_ended)\n"


def test_the_audit_trail_is_listed(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.answer = [ACTION]
    for command in (("server", "actions"), ("action", "list")):
        assert run(*command, "-f", "json") == run(*command, "web") == run(*command, "--request", "req-1") == 0
    assert [arguments for _, arguments in service.calls[:3]] == [
        {"target": None},
        WEB,
        {"target": None, "request_id": "req-1"},
    ]
    assert service.calls[:3] == service.calls[3:]
    assert '"order_id": "order-1"' in capsys.readouterr().out
