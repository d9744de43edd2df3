"""Trying the agent that this file belongs to, in a process of its own, before it takes another one's place.

Nothing of the guest is changed, and no store is needed.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import re
import time
import uuid

import agent_protocol
import guest_agent
from agent_protocol.agent_keys import AgentKeys
from agent_protocol.identity import Identity
from agent_protocol.legacy import AgentExchange
from agent_protocol.messages import parse_request
from agent_protocol.sealed import (
    encode_sealed_request,
    open_reply,
    parse_sealed_reply,
    seal_request,
    verify_receipt,
)

from .. import VERSION, system
from ..commands import COMMANDS, SEALED_COMMANDS, Context, features
from ..configuration import read_configuration
from ..sealed import SealedRequests

_OF_WINDOWS = re.compile(r"windows|\.xeniface|\.wmi")
"""In the names of modules that Windows alone can load. Updates in this form are for the other systems."""

_SECONDS = 60
"""For how long the request that the agent sends to itself is good."""


def rehearse(root: str) -> None:
    """Load this system's modules, read the guest's configuration, and carry out a sealed request from this agent to
    itself.

    root: the guest's root directory. Raises whatever goes wrong.
    """
    # One line is what there is room for in an answer, and that is the error's.
    logging.disable()
    for package in (agent_protocol, guest_agent):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not _OF_WINDOWS.search(module.name):
                importlib.import_module(module.name)
    guest = system.choose(root)
    context = Context(guest, AgentExchange(), VERSION, features(COMMANDS, SEALED_COMMANDS))
    context.configuration = read_configuration(guest)
    context.vm = str(uuid.uuid4())
    _ask_itself(context)


def _ask_itself(context: Context) -> None:
    identity, keys, request_id = Identity.generate(), AgentKeys(context.vm), str(uuid.uuid4())
    agent = SealedRequests(identity, SEALED_COMMANDS, context, keys)
    agent.advert()
    expires = int(time.time()) + _SECONDS
    box = seal_request(keys.current, context.vm, request_id, "ping", "", expires=expires)
    request = parse_request(encode_sealed_request(box).node)
    answer = agent.answer(request_id, request.value, lambda _: "")
    reply = parse_sealed_reply(answer.message.node)
    receipt = verify_receipt(reply, identity.public, context.vm, request_id)
    open_reply(receipt, box.reply_key, context.vm, request_id, reply.box).raise_unless_successful()
