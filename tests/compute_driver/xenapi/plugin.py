"""The dom0 plugin with a guest's agent behind it, as far as XenServer's callers can tell."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable
from typing import Any, Union

from agent_protocol.legacy import AgentExchange

from ..sealed_agent import SealedAgent, Told

Answer = Union[str, BaseException, Callable[[dict[str, Any]], Any]]
"""How one request goes: a delivery word, an error of the call, or a function that makes the plugin's whole answer.

The function gets the request; what it returns is sent as it is when it is text, else as JSON. For adverts it gets the
arguments of the call.
"""

VERSION = {"version": "1.0.0", "protocol": 2, "functions": ["version", "exchange", "adverts", "console_log"]}

FEATURES = "version,features,keyinit,password,file_put,ssh_keys"


class Plugin:
    """Stands for XenServer.call. Answers as a good agent does, unless `say` has told it otherwise.

    agent: speaks the sealed protocol; None for an old one. requests: name and value of all that arrived, in order;
    of frames, with the last of them. functions: of all calls, in order. calls: the arguments of all calls.
    """

    def __init__(self, features: str = FEATURES, agent: SealedAgent | None = None) -> None:
        self.requests: list[tuple[str, str]] = []
        self.functions: list[str] = []
        self.calls: list[tuple[Any, ...]] = []
        self.timeouts: list[float] = []
        self.features = features
        self.agent = agent
        self.forge: Callable[[SealedAgent, str, Told], Told] = lambda agent, request_id, reply: reply
        self.exchange = AgentExchange()
        self.passwords: list[str] = []
        self._answers: dict[str, collections.deque[Answer]] = collections.defaultdict(collections.deque)
        self._frames: dict[str, list[str]] = {}

    def say(self, name: str, *answers: Answer) -> None:
        """The next requests of this name, or calls for `adverts`, go like this, each one once."""
        self._answers[name].extend(answers)

    def names(self) -> list[str]:
        return [name for name, _ in self.requests]

    def call(self, *arguments: Any, timeout: float) -> Any:
        self.calls.append(arguments)
        self.timeouts.append(timeout)
        _, _, _, function, said = arguments
        if function == "version":
            # Asked before a host's first use: no part of any conversation.
            self.calls.pop()
            self.timeouts.pop()
            return json.dumps(VERSION)
        self.functions.append(function)
        if function == "adverts":
            return self._go("adverts", said, self._adverts)
        (request,) = json.loads(said["requests"])
        command = json.loads(request["value"])
        if not self._is_whole(request):
            return self._go("frames", request, lambda it: [{"id": it["id"], "delivery": "continue"}])
        self.requests.append((command["name"], command["value"]))
        return self._go(command["name"], request, self._good)

    def _go(self, name: str, said: dict[str, Any], good: Callable[[dict[str, Any]], Any]) -> Any:
        answers = self._answers[name]
        answer: Answer = answers.popleft() if answers else good
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, str):
            return json.dumps([{"id": said["id"], "delivery": answer}])
        told = answer(said)
        return told if isinstance(told, str) else json.dumps(told)

    def _is_whole(self, request: dict[str, Any]) -> bool:
        """Keep the frames that came; whether the last is there."""
        if "frames" not in request:
            return True
        part = request["frames"]
        if part["first"] == 0:
            self._frames[request["id"]] = []
        kept = self._frames[request["id"]]
        assert part["first"] == len(kept)
        assert part["values"]
        kept.extend(part["values"])
        return bool(part["last"])

    def _adverts(self, arguments: dict[str, str]) -> dict[str, str | None]:
        return {vm: self.agent.advert() if self.agent else None for vm in json.loads(arguments["vms"])}

    def _good(self, request: dict[str, Any]) -> Any:
        command = json.loads(request["value"])
        name, value = command["name"], command["value"]
        if name == "sealed" and self.agent:
            return self._sealed(request, self.agent)
        if name == "version":
            return replied(request, "0", "1.2.3")
        if name == "features":
            return replied(request, "0", self.features)
        if name == "keyinit":
            return replied(request, "D0", self.exchange.accept(value))
        if name == "password":
            self.passwords.append(self.exchange.open(value))
        return replied(request, "0", "")

    def _sealed(self, request: dict[str, Any], agent: SealedAgent) -> list[dict[str, str]]:
        reply = agent.answer(request["id"], request["value"], "".join(self._frames.pop(request["id"], [])))
        reply = self.forge(agent, request["id"], reply)
        return [{"id": request["id"], "delivery": "answered", "value": reply.value, **boxed(reply)}]


def boxed(reply: Told) -> dict[str, str]:
    """The plugin's member `box`, if there are frames."""
    return {"box": reply.box} if reply.box else {}


def replied(request: dict[str, Any], returncode: str, message: str, **more: str) -> list[dict[str, str]]:
    """The plugin's answer when the agent replied."""
    value = json.dumps({"returncode": returncode, "message": message, **more})
    return [{"id": request["id"], "delivery": "answered", "value": value}]


def reply(returncode: str, message: str, **more: str) -> Answer:
    """An agent's reply, for Plugin.say."""
    return lambda request: replied(request, returncode, message, **more)
