"""What the hosts of a pool answer that are not its coordinator, and those that have lost it.

Source: ocaml/xapi/api_server.ml (the emergency list, and the header with the coordinator's thumbprint) and
session_check.ml. Over TCP a supporter forwards nothing: it says who the coordinator is.
"""

from __future__ import annotations

from . import errors, exchange, tls
from .calls.session import LOCAL_CALLS, LOCAL_LOGIN
from .machine import Host
from .protocols import Answer
from .rpc import MethodCall, Result
from .state import State

THUMBPRINT_REQUEST = "x-xenapi-request-host-certificate-thumbprint"
"""Asks for the thumbprint of the coordinator's certificate: `sha-256:master` or `sha-1:master`."""

THUMBPRINT_RESPONSE = "x-xenapi-response-host-certificate-thumbprint"

_ALGORITHMS = {"sha-256:master": "sha256", "sha-1:master": "sha1"}


def over_tcp(state: State, host: Host, answer: Answer) -> Answer:
    """Answers a host's TCP clients: as `answer` does if it is the coordinator, and otherwise only local calls.

    ApiError HOST_IS_SLAVE with the coordinator's address from a supporter, HOST_IN_EMERGENCY_MODE from one that has
    lost its coordinator.
    """

    def answer_here(request: MethodCall) -> Result:
        name = request.name.replace("_", ".", 1) if "." not in request.name else request.name
        if host.is_lost:
            if name != LOCAL_LOGIN and name not in LOCAL_CALLS:
                raise errors.ApiError("HOST_IN_EMERGENCY_MODE")
            return answer(request)
        # Of a supporter's local calls only those with a local session are its own affair.
        is_local = name in LOCAL_CALLS and request.parameters and request.parameters[0] in host.local_sessions
        if host.ref != state.coordinator and name != LOCAL_LOGIN and not is_local:
            _tell_thumbprint(state)
            raise errors.ApiError("HOST_IS_SLAVE", state.database.get("host", state.coordinator, "address"))
        return answer(request)

    return answer_here


def _tell_thumbprint(state: State) -> None:
    current = exchange.current()
    algorithm = _ALGORITHMS.get(current.untrusted_header(THUMBPRINT_REQUEST) or "")
    certificates = state.hosts[state.coordinator].certificates
    if algorithm is not None and certificates is not None:
        current.response[THUMBPRINT_RESPONSE] = tls.fingerprint(certificates.shown().pem, algorithm)
