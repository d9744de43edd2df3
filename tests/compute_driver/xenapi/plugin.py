"""The dom0 plugin with a guest's agent behind it, as far as XenServer's callers can tell."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable
from typing import Any, Union

from agent_protocol.legacy import AgentExchange

Answer = Union[str, BaseException, Callable[[dict[str, str]], Any]]
"""How one request goes: a delivery word, an error of the call, or a function that makes the plugin's whole answer.

The function gets the request; what it returns is sent as it is when it is text, else as JSON.
"""

FEATURES = "version,features,keyinit,password,file_put,ssh_keys"


class Plugin:
    """Stands for XenServer.call. Answers as a good agent does, unless `say` has told it otherwise.

    requests: name and value of all that arrived, in order. calls: the arguments of all calls.
    """

    def __init__(self, features: str = FEATURES) -> None:
        self.requests: list[tuple[str, str]] = []
        self.calls: list[tuple[Any, ...]] = []
        self.timeouts: list[float] = []
        self.features = features
        self.exchange = AgentExchange()
        self.passwords: list[str] = []
        self._answers: dict[str, collections.deque[Answer]] = collections.defaultdict(collections.deque)

    def say(self, name: str, *answers: Answer) -> None:
        """The next requests of this name go like this, each one once."""
        self._answers[name].extend(answers)

    def names(self) -> list[str]:
        return [name for name, _ in self.requests]

    def call(self, *arguments: Any, timeout: float) -> Any:
        self.calls.append(arguments)
        self.timeouts.append(timeout)
        (request,) = json.loads(arguments[-1]["requests"])
        command = json.loads(request["value"])
        self.requests.append((command["name"], command["value"]))
        answers = self._answers[command["name"]]
        answer: Answer = answers.popleft() if answers else self._good
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, str):
            return json.dumps([{"id": request["id"], "delivery": answer}])
        told = answer(request)
        return told if isinstance(told, str) else json.dumps(told)

    def _good(self, request: dict[str, str]) -> Any:
        command = json.loads(request["value"])
        name, value = command["name"], command["value"]
        if name == "version":
            return replied(request, "0", "1.2.3")
        if name == "features":
            return replied(request, "0", self.features)
        if name == "keyinit":
            return replied(request, "D0", self.exchange.accept(value))
        if name == "password":
            self.passwords.append(self.exchange.open(value))
        return replied(request, "0", "")


def replied(request: dict[str, str], returncode: str, message: str, **more: str) -> list[dict[str, str]]:
    """The plugin's answer when the agent replied."""
    value = json.dumps({"returncode": returncode, "message": message, **more})
    return [{"id": request["id"], "delivery": "answered", "value": value}]


def reply(returncode: str, message: str, **more: str) -> Answer:
    """An agent's reply, for Plugin.say."""
    return lambda request: replied(request, returncode, message, **more)
