"""What a request is answered with, and how it comes to that: whatever goes wrong on the way becomes an answer too."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass, field
from typing import Callable, TypeVar

from agent_protocol.messages import Reply, Request, encode_reply, reply_to_error
from agent_protocol.outcomes import Failed, Outcome, Unknown, Unsuccessful, Unsupported
from agent_protocol.sealed import EncodedMessage
from agent_protocol.xenstore import StoreError, XenStoreError

from .commands import Command, Commands, Context
from .transfer import Progress, TransferEnded

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass
class Answer:
    """A reply on its way.

    name: of the command, for the log; `-` when none was found. framed: whether the request announced frames, which may
    stand there still when it was answered early. written: whether the store has its node already; progress: and how
    many of its frames. delivered: whether only the request and what belongs to it remain to be cleared away.
    """

    message: EncodedMessage
    outcome: Outcome
    code: str = ""
    name: str = "-"
    framed: bool = False
    written: bool = False
    progress: Progress = field(default_factory=Progress)
    delivered: bool = False

    def start_over(self) -> None:
        """Nothing of it stands in the store any more."""
        self.written = self.delivered = False
        self.progress = Progress()


def attempt(request_id: str, work: Callable[[], _T]) -> _T | Unsuccessful:
    """What `work` returns, or the error that the request is to be answered with.

    Only what ends the conversation itself comes through: TransferEnded. A store that is lost meanwhile is the next
    step's to notice; the work gets its answer, which may be that nobody can tell how far it came.
    """
    try:
        return work()
    except Unsuccessful as error:
        return error
    except TransferEnded:
        raise
    except StoreError as error:
        return Failed("store_refused", f"XenStore refused what the command needs of it: {error.code}")
    except XenStoreError:
        return Unknown("store_lost", "XenStore was lost in the middle; it may or may not have been carried out")
    except BaseException as error:
        # Really everything: a panic inside `cryptography`, for one, is no Exception. Signals raise nothing here.
        _log.error("request %s: %s", request_id, _where(error))
        return Failed("internal_error", "the agent met an error of its own; its log tells where")


def find(commands: Commands, untrusted_name: str) -> Command:
    """The command of that name. Unsupported (`unknown_command`) when there is none."""
    command = commands.get(untrusted_name)
    if command is None:
        raise Unsupported("unknown_command", "this agent does not have that command")
    return command


def answer_in_the_clear(request_id: str, request: Request, commands: Commands, context: Context) -> Answer:
    """Carry a request out that stands in the store as it is."""
    command = attempt(request_id, lambda: find(commands, request.name))
    if isinstance(command, Unsuccessful):
        return error_in_the_clear(command)
    result = attempt(request_id, lambda: command(context, request.value))
    if isinstance(result, Unsuccessful):
        return error_in_the_clear(result, command.name)
    reply = Reply(command.returncode, result.message, Outcome.SUCCEEDED)
    return Answer(EncodedMessage(encode_reply(reply)), reply.outcome, name=command.name)


def error_in_the_clear(error: Unsuccessful, name: str = "-") -> Answer:
    """The answer that an error makes."""
    return Answer(EncodedMessage(encode_reply(reply_to_error(error))), error.outcome, error.code, name)


def _where(error: BaseException) -> str:
    """The error's type and the lines it passed through; not its text, which can hold what must not be logged."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(frames)]
    return " < ".join([type(error).__name__, *places])
