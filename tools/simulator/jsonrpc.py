"""JSON-RPC as xapi speaks it at `/jsonrpc` (ocaml-rpc's jsonrpc.ml), in its versions 1.0 and 2.0.

There are no batches and no notifications: an array, or a request without an id, cannot be read. Ints are numbers
here, other than in XML-RPC; dates are strings.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .rpc import MAX_DEPTH, DecodeError, MethodCall, parse_int64

ERROR_CODE = 1
"""The `code` of every error of version 2.0. XenAPI's own code is its `message` (ocaml/xapi/api_server.ml)."""


class Request(NamedTuple):
    """A call with what its answer repeats: the id, and whether it is of version 2.0 or of 1.0."""

    call: MethodCall
    id: int | str
    is_version_2: bool


# Encoding


def encode_success(request: Request, value: Any) -> bytes:
    """The response for a call that ended well with a tree (rpc.py)."""
    if request.is_version_2:
        return _encode({"jsonrpc": "2.0", "result": value, "id": request.id})
    return _encode({"result": value, "error": None, "id": request.id})


def encode_failure(request: Request, description: list[str]) -> bytes:
    """The response for a call that failed; `description` is the code and its parameters."""
    if not request.is_version_2:
        return _encode({"result": None, "error": description, "id": request.id})
    code, *parameters = description
    error = {"code": ERROR_CODE, "message": code, "data": parameters}
    return _encode({"jsonrpc": "2.0", "error": error, "id": request.id})


def _encode(document: dict[str, Any]) -> bytes:
    # NaN and the infinities are written as such, as by Yojson, although JSON has no room for them.
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


# Decoding


def decode_request(untrusted_document: bytes) -> Request:
    """The request in `untrusted_document`. DecodeError when there is none."""
    untrusted_request = _parse(untrusted_document)
    if not isinstance(untrusted_request, dict):
        raise DecodeError("not an object")
    name = untrusted_request.get("method")
    if not isinstance(name, str):
        raise DecodeError("malformed method")
    is_version_2 = "jsonrpc" in untrusted_request
    if is_version_2 and untrusted_request["jsonrpc"] != "2.0":
        raise DecodeError("malformed version")
    identity = untrusted_request.get("id")
    if isinstance(identity, bool) or not isinstance(identity, (int, str)):
        raise DecodeError("malformed id")
    return Request(MethodCall(name, _parameters(untrusted_request.get("params"), is_version_2)), identity, is_version_2)


def _parameters(untrusted_parameters: Any, is_version_2: bool) -> list[Any]:
    if isinstance(untrusted_parameters, list):
        return untrusted_parameters
    if is_version_2 and untrusted_parameters is None:
        return []
    if is_version_2 and isinstance(untrusted_parameters, dict):
        # Names of parameters are not looked at: it is one parameter, a struct.
        return [untrusted_parameters]
    raise DecodeError("malformed params")


def _parse(untrusted_document: bytes) -> Any:
    try:
        value = json.loads(untrusted_document.decode("utf-8"), object_pairs_hook=_first, parse_int=parse_int64)
        _check(value, 0)
    except RecursionError:
        raise DecodeError("nested too deep") from None
    except ValueError as error:
        raise error if isinstance(error, DecodeError) else DecodeError("not JSON") from None
    return value


def _first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of members with the same name, the first counts."""
    members: dict[str, Any] = {}
    for name, value in pairs:
        members.setdefault(name, value)
    return members


def _check(value: Any, depth: int) -> None:
    """DecodeError when `value` is nested too deep, or has a string that is no text (a lone half of a pair)."""
    if depth > MAX_DEPTH:
        raise DecodeError("nested too deep")
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            name.encode("utf-8")
            _check(item, depth + 1)
