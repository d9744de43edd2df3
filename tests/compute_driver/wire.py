"""What a caller of the compute service is connected by, and what it does over it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Unsuccessful
from compute_driver.context import RequestContext
from compute_driver.db.repository import Repository
from compute_driver.files import InjectedFile

CONTEXT = RequestContext("req-1", "ada")
SECRET = "hunter2 Pass-word"
CONTENT = b"hunter2 in a file " * 500
FILE = InjectedFile("/etc/motd", CONTENT, 0o640, "ada:users")
KEYS = ["ssh-ed25519 AAAA ada"]
NEW: dict[str, Any] = {"display_name": "web", "memory_mb": 64, "vcpus": 1, "root_gb": 1, "admin_password": None}
HOURS = 5 * 3600


class Wire:
    """Stands between the client and the bus, and keeps all that crosses, in both directions."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.crossed: list[Any] = []
        self.methods: list[str] = []
        self.before: Callable[[str], None] = lambda method: None

    def order(self, context: RequestContext, method: str, **arguments: Any) -> Any:
        return self._call(self.client.order, context, method, arguments)

    def ask(self, context: RequestContext, method: str, **arguments: Any) -> Any:
        return self._call(self.client.ask, context, method, arguments)

    def _call(self, call: Any, context: RequestContext, method: str, arguments: dict[str, Any]) -> Any:
        self.before(method)
        self.methods.append(method)
        self.crossed.append((context.to_dict(), method, arguments))
        try:
            answer = call(context, method, **arguments)
        except Unsuccessful as error:
            self.crossed.append((repr(error), vars(error)))
            raise
        self.crossed.append(answer)
        return answer


class Direct:
    """The bus without its queues, whose polling takes most of a call's time: what crosses is JSON here as well."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def prepare(self, **_: Any) -> Direct:
        return self

    def call(self, context: dict[str, Any], method: str, **arguments: Any) -> Any:
        context, arguments = json.loads(json.dumps([context, arguments]))
        return json.loads(json.dumps(getattr(self._endpoint, method)(context, **arguments)))


def calling(wire: Wire) -> Any:
    from compute_driver.caller import Caller

    client: Any = wire
    return Caller(client, CONTEXT)


OPERATIONS: dict[str, Callable[[Any], object]] = {
    "set_admin_password": lambda caller: caller.set_password("web", Password(SECRET)),
    "inject_file": lambda caller: caller.put_file("web", FILE),
    "add_ssh_keys": lambda caller: caller.add_ssh_keys("web", KEYS),
    "generate_admin_password": lambda caller: caller.generate_password("web"),
}
every_operation = pytest.mark.parametrize("action", OPERATIONS)


def error_of(operation: Callable[[], object]) -> Unsuccessful:
    with pytest.raises(Unsuccessful) as caught:
        operation()
    assert "hunter2" not in repr(caught.value) + str(caught.value) + repr(vars(caught.value))
    return caught.value


def rows(repository: Repository) -> list[tuple[str, str, str]]:
    """Action, outcome and code of everything after the instance's creation."""
    found = [row for row in repository.list_actions() if row.action != "create"]
    return [(row.action, str(row.outcome), row.code) for row in found]
