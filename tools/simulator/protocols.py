"""Remote calls over HTTP: which wire format is spoken at which path (ocaml/idl/datamodel.ml, http_actions)."""

from __future__ import annotations

from typing import Callable

from . import jsonrpc, xmlrpc
from .errors import ApiError
from .http import Protocol
from .rpc import MethodCall, Result

Answer = Callable[[MethodCall], Result]
"""Performs a call. ApiError when it fails."""


def protocols(answer: Answer) -> dict[str, Protocol]:
    """XML-RPC at `/` and `/RPC2`, JSON-RPC at `/jsonrpc`. A session that one of them made is good for the other."""

    def answer_xmlrpc(untrusted_body: bytes) -> bytes:
        call = xmlrpc.decode_call(untrusted_body)
        try:
            return xmlrpc.encode_result(answer(call))
        except ApiError as error:
            return xmlrpc.encode_failure(error.description)

    def answer_jsonrpc(untrusted_body: bytes) -> bytes:
        request = jsonrpc.decode_request(untrusted_body)
        try:
            return jsonrpc.encode_success(request, answer(request.call).value)
        except ApiError as error:
            return jsonrpc.encode_failure(request, error.description)

    in_xml = Protocol("text/xml", answer_xmlrpc)
    return {"/": in_xml, "/RPC2": in_xml, "/jsonrpc": Protocol("application/json", answer_jsonrpc)}
