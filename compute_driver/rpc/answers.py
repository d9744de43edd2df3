"""How a method of the manager is offered on the bus: arguments are checked, errors travel as data.

An honest error crosses the bus as plain data, not as an exception, so no traceback and no argument travels with it.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from agent_protocol.messages import Password
from agent_protocol.outcomes import Busy, Outcome, Refused, Unsuccessful, unsuccessful

from ..context import RequestContext
from ..db.records import Action
from ..errors import OrderKnown
from ..files import InjectedFile
from ..manager import ComputeManager
from ..observing.logs import about
from ..sealing import SealedFailure

LOG = logging.getLogger(__name__)

_Method = TypeVar("_Method", bound=Callable[..., Any])


class Endpoint:
    """What every group of methods builds upon."""

    def __init__(self, manager: ComputeManager) -> None:
        self._manager = manager


def answered(method: _Method) -> _Method:
    """Sends the method's result as {"result": …} and an honest error as {"error": {outcome, code, message}}."""

    signature = inspect.signature(method)

    @functools.wraps(method)
    def answer(self: object, context: Mapping[str, object], **arguments: Any) -> dict[str, Any]:
        try:
            asked = RequestContext.from_dict(context)
            try:
                signature.bind(self, asked, **arguments)
            except TypeError:
                raise Refused("bad_argument", f"{method.__name__} has other arguments than these") from None
            with about(request_id=asked.request_id, action=method.__name__):
                return {"result": method(self, asked, **arguments)}
        except SealedFailure as error:
            return {"sealed": error.answer.to_dict()}
        except OrderKnown as known:
            return {"error": _told(_repeated(known.action))}
        except Unsuccessful as error:
            return {"error": _told(error)}
        except Exception as error:
            # The text of an unforeseen error may hold an argument; its kind is enough for the log.
            LOG.error("%s: internal error: %s", method.__name__, type(error).__name__)
            return {"error": {"outcome": "unknown", "code": "internal_error", "message": "internal error, see the log"}}

    return cast(_Method, answer)


def _told(error: Unsuccessful) -> dict[str, str]:
    return {"outcome": str(error.outcome), "code": error.code, "message": error.message}


def _repeated(action: Action) -> Unsuccessful:
    """What to answer to an order that was given before."""
    if action.outcome is None:
        return Busy("order_in_flight", "the order is being carried out already")
    if action.outcome is Outcome.SUCCEEDED:
        # Not an answer as of the first time: what that held is not kept.
        return Refused("order_succeeded", "the order was carried out before, and succeeded")
    return unsuccessful(action.outcome, action.code, action.message)


def a_string(name: str, untrusted: object) -> str:
    """`untrusted` itself, when it is a string; Refused otherwise. Likewise below."""
    if not isinstance(untrusted, str):
        raise Refused("bad_argument", f"{name} must be a string")
    return untrusted


def a_string_or_none(name: str, untrusted: object) -> str | None:
    return None if untrusted is None else a_string(name, untrusted)


def strings(name: str, untrusted: object) -> list[str]:
    if not isinstance(untrusted, list) or not all(isinstance(item, str) for item in untrusted):
        raise Refused("bad_argument", f"{name} must be a list of strings")
    return untrusted


def a_flag(name: str, untrusted: object) -> bool:
    if not isinstance(untrusted, bool):
        raise Refused("bad_argument", f"{name} must be true or false")
    return untrusted


def a_list(name: str, untrusted: object) -> list[Any]:
    if not isinstance(untrusted, list):
        raise Refused("bad_argument", f"{name} must be a list")
    return untrusted


def a_file(untrusted: object) -> InjectedFile:
    if not isinstance(untrusted, dict):
        raise Refused("bad_argument", "a file must be described by its members")
    return InjectedFile.from_dict(untrusted)


def files(untrusted: object) -> list[InjectedFile]:
    return [] if untrusted is None else [a_file(it) for it in a_list("injected_files", untrusted)]


def string_map(name: str, untrusted: object) -> dict[str, str]:
    if not isinstance(untrusted, dict) or not all(isinstance(it, str) for pair in untrusted.items() for it in pair):
        raise Refused("bad_argument", f"{name} must map strings to strings")
    return untrusted


def seconds(name: str, untrusted: object) -> float:
    if isinstance(untrusted, bool) or not isinstance(untrusted, (int, float)) or not 0 <= untrusted <= 86400:
        raise Refused("bad_argument", f"{name} must be a number of seconds, at most a day")
    return float(untrusted)


def seconds_or_none(name: str, untrusted: object) -> float | None:
    return None if untrusted is None else seconds(name, untrusted)


def a_password_or_none(untrusted: object) -> Password | None:
    return None if untrusted is None else a_password(untrusted)


def a_password(untrusted: object) -> Password:
    if not isinstance(untrusted, str):
        raise Refused("bad_argument", "a password must be a string")
    return Password(untrusted)
