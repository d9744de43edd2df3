"""What crosses the bus, and how it comes out at the other end."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from agent_protocol.outcomes import Busy, Failed, Outcome, Refused, Unknown, Unreachable, Unsuccessful, Unsupported
from compute_driver.context import RequestContext
from compute_driver.sealing import SealedAnswer, SealedFailure

from ..bench import CONTEXT, PASSWORD, UUID, Bench
from ..bus import Switch
from .methods import NEW, ORDERS, QUESTIONS, WEB

SECRET = "hunter2-in-an-argument"

LIFE = [
    "build_and_run_instance",
    "set_admin_password",
    "inject_file",
    "add_ssh_keys",
    "trust_agent",
    "inject_network_info",
    "reset_network",
    "change_instance_metadata",
    "quiesce_instance",
    "unquiesce_instance",
    "detach_volume",
    "attach_volume",
    "detach_interface",
    "attach_interface",
    "snapshot_instance",
    "stop_instance",
    "start_instance",
    "pause_instance",
    "unpause_instance",
    "suspend_instance",
    "resume_instance",
    "reboot_instance",
    "rescue_instance",
    "unrescue_instance",
    "rebuild_instance",
    "live_migrate_instance",
    "resize_instance",
    "revert_resize",
    "migrate_instance",
    "confirm_resize",
    "terminate_instance",
]
"""Orders in an order in which each can be carried out."""


def test_every_order_crosses_the_bus(client: Any, served: Bench) -> None:
    for method in ("set_host_enabled", "host_maintenance_mode", "host_power_action"):
        assert client.order(CONTEXT, method, **ORDERS[method]) is None
    for method in LIFE:
        answer = client.order(CONTEXT, method, **ORDERS[method])
        if method == "build_and_run_instance":
            assert (answer["uuid"], answer["display_name"], answer["vm_state"]) == (UUID, "web", "active")
        if method == "trust_agent":
            assert answer == client.ask(CONTEXT, "get_agent", target="web", action=None)
        if method == "attach_volume":
            assert answer == "xvdb"
    rows = [row for row in served.repository.list_actions(limit=1000) if row.step is None]
    assert len(rows) == len(LIFE)
    assert {(row.user, row.request_id, row.outcome) for row in rows} == {("ada", "req-1", Outcome.SUCCEEDED)}
    # Each has an id of its own.
    assert len({row.order_id for row in rows} - {None}) == len(LIFE)
    assert set(ORDERS) - set(LIFE) == {"send_sealed", "set_host_enabled", "host_maintenance_mode", "host_power_action"}
    assert served.driver.guests == []


def test_every_question_crosses_the_bus(client: Any, served: Bench) -> None:
    client.order(CONTEXT.for_order("order-1"), "build_and_run_instance", **NEW)
    answers = {method: client.ask(CONTEXT, method, **arguments) for method, arguments in QUESTIONS.items()}
    assert (answers["get_instance"]["uuid"], answers["get_instance"]["power_state"]) == (UUID, "running")
    assert answers["get_instance"]["agent"]["version"] == "fake"
    assert [it["id"] for it in answers["get_devices"]["volumes"]] == ["volume-1"]
    assert answers["get_devices"]["interfaces"] == NEW["interfaces"]
    assert [it["uuid"] for it in answers["list_instances"]] == [UUID]
    assert {row["outcome"] for row in answers["list_actions"]} == {"succeeded"}
    assert (answers["get_order"]["action"], answers["get_order"]["outcome"]) == ("create", "succeeded")
    assert answers["get_vnc_console"]["port"] == 5900
    assert answers["get_diagnostics"]["state"] == "running"
    assert [node["enabled"] for node in answers["check_nodes"]] == [True]


@pytest.mark.parametrize("kind", [Refused, Unsupported, Busy, Failed, Unreachable, Unknown])
def test_each_honest_error_crosses_with_outcome_code_and_message(
    client: Any, served: Bench, kind: type[Unsuccessful]
) -> None:
    served.driver.steering.fail("spawn", kind("some_code", "some words"))
    with pytest.raises(kind) as caught:
        client.order(CONTEXT, "build_and_run_instance", **NEW)
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.message) == ("some_code", "some words")


def sealed(served: Bench) -> dict[str, Any]:
    request = served.seal()
    return {"request_id": request.request_id, "value": request.value, "box": request.box}


def test_what_was_sealed_crosses_unread(client: Any, served: Bench) -> None:
    instance = served.have()
    answer = client.order(CONTEXT, "send_sealed", **WEB, action="set_admin_password", **sealed(served))
    assert SealedAnswer.from_dict(answer).outcome is Outcome.SUCCEEDED
    assert served.driver.opens(instance, PASSWORD.value)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.SUCCEEDED])
def test_what_an_agent_signed_crosses_with_its_answer(
    client: Any, served: Bench, monkeypatch: pytest.MonkeyPatch, outcome: Outcome
) -> None:
    served.have()
    told = SealedAnswer(outcome, "some_code", "the reply", "its box")
    monkeypatch.setattr(served.driver, "send_sealed", lambda *_: told)
    with pytest.raises(SealedFailure) as caught:
        client.order(CONTEXT, "send_sealed", **WEB, action="set_admin_password", **sealed(served))
    assert caught.value.answer == told
    assert (caught.value.outcome, caught.value.code) == (outcome, "some_code")
    assert (served.action().action, served.action().outcome) == ("set_admin_password", outcome)


def test_an_error_of_the_way_there_is_no_answer_of_the_agents(client: Any, served: Bench) -> None:
    served.have()
    request = sealed(served)
    served.driver.steering.fail("send_sealed", Unknown("unsigned_reply", "not signed"))
    with pytest.raises(Unknown) as caught:
        client.order(CONTEXT, "send_sealed", **WEB, action="set_admin_password", **request)
    assert (type(caught.value), caught.value.code) == (Unknown, "unsigned_reply")


def test_a_broken_manager_tells_nothing_of_what_it_held(
    client: Any, bus: tuple[Any, Switch], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    class Broken:
        def list_instances(self) -> None:
            raise RuntimeError(SECRET)

        def set_admin_password(self, *_: object) -> None:
            raise RuntimeError(SECRET)

    bus[1].manager = Broken()
    with pytest.raises(Unreachable) as question:
        client.ask(CONTEXT, "list_instances")
    with pytest.raises(Unknown) as order:
        client.order(CONTEXT, "set_admin_password", target="web", new_pass="a Pass-word 1")
    for caught in (question, order):
        assert caught.value.code == "internal_error"
        assert SECRET not in str(caught.value)
    assert SECRET not in caplog.text
    assert "RuntimeError" in caplog.text


# Orders


def test_an_order_that_is_sent_again_is_carried_out_once(client: Any, served: Bench) -> None:
    served.have()
    order = CONTEXT.for_order("order-1")
    assert client.order(order, "stop_instance", target="web") is None
    with pytest.raises(Refused) as caught:
        client.order(order, "stop_instance", target="web")
    assert caught.value.code == "order_succeeded"
    assert served.asked == ["power_off"]


def test_one_that_failed_is_told_so_again(client: Any, served: Bench) -> None:
    served.have()
    order = CONTEXT.for_order("order-1")
    served.driver.steering.fail("power_off", Failed("broken", "it broke"))
    for _ in range(2):
        with pytest.raises(Failed) as caught:
            client.order(order, "stop_instance", target="web")
        assert (caught.value.code, caught.value.message) == ("broken", "it broke")
    assert served.asked == ["power_off"]


def test_an_order_that_nobody_waits_for_is_found_by_its_id(client: Any, served: Bench) -> None:
    served.have()
    order_id = client.cast(CONTEXT, "stop_instance", target="web")
    action = client.result(CONTEXT, order_id, timeout=10.0)
    assert (action["action"], action["outcome"], action["order_id"]) == ("stop", "succeeded", order_id)
    assert client.cast(CONTEXT.for_order("order-1"), "start_instance", target="nobody") == "order-1"
    assert client.result(CONTEXT, "order-1", timeout=10.0)["code"] == "instance_not_found"


def test_the_end_of_one_that_does_not_end_is_unknown(client: Any, served: Bench) -> None:
    served.have()
    with pytest.raises(Unknown) as caught:
        client.result(CONTEXT, "never-sent", timeout=0.0)
    assert caught.value.code == "order_not_ended"
    with served.driver.steering.blocked("power_off") as gate:
        order_id = client.cast(CONTEXT, "stop_instance", target="web")
        gate.await_arrival(10.0)
        with pytest.raises(Unknown) as caught:
            client.result(CONTEXT, order_id, timeout=0.0)
        assert caught.value.code == "order_not_ended"
        with pytest.raises(Busy) as busy:
            client.order(RequestContext("req-2", "bob", order_id), "stop_instance", target="web")
        assert busy.value.code == "order_in_flight"
    assert client.result(CONTEXT, order_id, timeout=10.0)["outcome"] == "succeeded"


def test_an_order_that_lay_on_the_bus_for_too_long_is_refused(client: Any, served: Bench) -> None:
    served.have()
    with pytest.raises(Refused) as caught:
        client.order(CONTEXT.for_order(seconds=-1.0), "stop_instance", target="web")
    assert caught.value.code == "order_expired"
    assert served.asked == []


# Services that do not answer, or are others


def test_a_service_that_does_not_answer_leaves_orders_unknown_and_questions_unreachable(
    bus: tuple[Any, Switch], served: Bench
) -> None:
    from compute_driver import rpc

    impatient = rpc.ComputeClient(bus[0], "here", timeout=0.05, order_timeout=0.05)
    served.have()
    with served.driver.steering.blocked("power_off"), served.driver.steering.blocked("get_info"):
        with pytest.raises(Unknown) as order:
            impatient.order(CONTEXT, "stop_instance", target="web")
        with pytest.raises(Unreachable) as question:
            impatient.ask(CONTEXT, "get_instance", target="web")
    for caught in (order, question):
        assert caught.value.code == "service_no_answer"
        assert "'here'" in caught.value.message
    assert served.manager.drain(10.0)


@pytest.mark.parametrize("method", ["set_the_house_on_fire", "_manager", "__init__", "reconcile", "drain"])
def test_a_method_that_the_service_does_not_have_is_unsupported(client: Any, served: Bench, method: str) -> None:
    with pytest.raises(Unsupported) as caught:
        client.order(CONTEXT, method, new_pass=SECRET)
    assert caught.value.code == "service_too_old"
    assert SECRET not in str(caught.value)
    assert served.asked == []


@pytest.mark.parametrize("version", ["1.99", "2.99", "3.0"])
def test_a_service_of_another_version_is_unsupported(
    bus: tuple[Any, Switch], served: Bench, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    from compute_driver import rpc

    monkeypatch.setattr("compute_driver.rpc.client.VERSION", version)
    with pytest.raises(Unsupported):
        rpc.ComputeClient(bus[0], "here", order_timeout=10.0).order(CONTEXT, "build_and_run_instance", **NEW)
    assert served.asked == []
