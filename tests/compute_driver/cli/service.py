"""A compute service that a test plays, and the command run against it in this process."""

from __future__ import annotations

import copy
import io
import json
from inspect import signature
from typing import Any

import pytest

from agent_protocol.outcomes import Outcome
from compute_driver.agents import SEALED, AgentInfo
from compute_driver.cli import main as cli
from compute_driver.context import RequestContext
from compute_driver.sealing import SealedAnswer, SealedFailure, read_receipt

from ..sealed_agent import FEATURES, SealedAgent

SECRET = "hunter2 Pass-word"
INSTANCE = {
    "id": 1,
    "uuid": "uuid-web",
    "display_name": "web",
    "vm_state": "active",
    "task_state": None,
    "power_state": 1,
    "memory_mb": 512,
    "vcpus": 1,
    "root_gb": 4,
    "node": "xen-1",
    "instance_metadata": {"role": "front"},
    "created_at": "2026-03-01T12:00:00.000000+00:00",
    "deleted": 0,
    "deleted_at": None,
    "terminated_at": None,
}


NOTHING: dict[str, list[Any]] = {"volumes": [], "interfaces": []}


class Service:
    """Stands for rpc.ComputeClient. A call that the service's endpoint would not take is an error.

    calls: method and arguments of all but the questions for an agent's key. contexts: of these calls. left: the orders
    among them that nobody waits for. answer: what each gives, or raises; answers: by method, in place of that, and
    errors: what is raised. agent: in the guest, and known; None for one that never was. is_embedded: as the bus is.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.contexts: list[RequestContext] = []
        self.left: list[str] = []
        self.answer: Any = INSTANCE
        self.answers: dict[str, Any] = {"get_devices": NOTHING}
        self.errors: dict[str, BaseException] = {}
        self.agent: SealedAgent | None = None
        self.is_embedded = False

    def cast(self, context: RequestContext, method: str, **arguments: Any) -> str:
        self.left.append(method)
        self.order(context, method, **arguments)
        return str(context.order_id)

    def result(self, context: RequestContext, order_id: str, *, timeout: float) -> Any:
        self.calls.append(("result", (order_id, timeout)))
        return self.order(context, "get_order", order_id=order_id)

    def order(self, context: RequestContext, method: str, **arguments: Any) -> Any:
        assert context.request_id.startswith("req-")
        # Imported late: the fixture decides on concurrency first.
        from compute_driver.rpc import ComputeEndpoint

        signature(getattr(ComputeEndpoint, method)).bind(None, context, **arguments)
        if method != "get_agent":
            self.calls.append((method, arguments))
            self.contexts.append(context)
        if method in self.errors:
            raise self.errors[method]
        if method in self.answers:
            return copy.deepcopy(self.answers[method])
        if isinstance(self.answer, BaseException):
            raise self.answer
        if method in ("get_agent", "trust_agent"):
            return self.known().to_dict() if self.agent else None
        if method == "send_sealed":
            return self.sealed(arguments).to_dict()
        return copy.deepcopy(self.answer)

    ask = order

    def known(self) -> AgentInfo:
        assert self.agent
        agent = self.agent
        return AgentInfo("2.0", FEATURES, SEALED, agent.identity.public, agent.keys.current, 5, agent.vm)

    def sealed(self, arguments: dict[str, Any]) -> SealedAnswer:
        assert self.agent
        reply = self.agent.answer(arguments["request_id"], arguments["value"], arguments["box"])
        receipt = read_receipt(self.agent.identity.public, self.agent.vm, arguments["request_id"], reply.value)
        answer = SealedAnswer(receipt.outcome, receipt.code, reply.value, reply.box)
        if receipt.outcome is not Outcome.SUCCEEDED:
            raise SealedFailure(answer)
        return answer

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.calls]


def run(*arguments: str) -> int:
    """`xenward …`, in this process."""
    try:
        return cli.main(list(arguments))
    except SystemExit as exit_:
        # argparse ends a process whose command line is wrong.
        return int(exit_.code or 0)


def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def types(monkeypatch: pytest.MonkeyPatch, text: str | bytes) -> None:
    """Standard input holds that, and is no terminal."""
    data = text if isinstance(text, bytes) else text.encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
