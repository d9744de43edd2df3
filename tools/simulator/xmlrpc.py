"""XML-RPC as xapi speaks it (ocaml-rpc's xmlrpc.ml), which differs from other servers' in what a client must bear.

Strings travel without a `<string>` element, and so do ints; errors are values, never a `<fault>`; the names of a
struct's members are not escaped. What comes in is read as ocaml-rpc reads it, which takes no spaces around a number
and knows of one true boolean, `1`; but within limits, and without a document type, whose entities xapi would not
expand either.
"""

from __future__ import annotations

import base64
import binascii
import re
import xml.parsers.expat
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from .model import Model, Type
from .rpc import MAX_DEPTH, DecodeError, Int32, MethodCall, Result, marshal, parse_int64
from .values import Date, text

__all__ = [
    "DecodeError",
    "Fault",
    "decode_call",
    "decode_response",
    "encode_call",
    "encode_failure",
    "encode_result",
    "encode_value",
]

_ENVELOPE = '<?xml version="1.0"?><methodResponse><params><param>{}</param></params></methodResponse>'
_BLANKS = " \n\t"
_DROPPED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_UNCLEAN = re.compile('[&<>"\x00-\x08\x0b\x0c\x0e-\x1f]')
_EMPTY: dict[str, Any] = {"string": "", "array": [], "struct": {}, "nil": None}
"""What an element without any content means; every other element must have some."""
_FLOAT_LENGTH = 40
"""Characters that hold every double. float() of a long text is slow."""


class Fault(NamedTuple):
    """A `<fault>`, which xapi never sends but a dom0 plugin may."""

    code: str
    reason: str


# Encoding


def encode_result(result: Result) -> bytes:
    """The response for a call that ended well."""
    if result.bare:
        return _ENVELOPE.format(_encode(result.value)).encode("utf-8", "replace")
    return _respond("Success", "Value", _encode(result.value))


def encode_failure(description: list[str]) -> bytes:
    """The response for a call that failed; `description` is the code and its parameters."""
    return _respond("Failure", "ErrorDescription", _array([_bare(item) for item in description]))


def _respond(status: str, name: str, value: str) -> bytes:
    return _ENVELOPE.format(_struct({"Status": _bare(status), name: value})).encode("utf-8", "replace")


def encode_value(model: Model, wanted: Type, value: Any) -> str:
    """A `<value>` element for a value of the datamodel."""
    return _encode(marshal(model, wanted, value))


def _encode(tree: Any) -> str:
    # Nearly all of a large answer; Date is another type.
    if type(tree) is str:
        return _bare(tree)
    if tree is None:
        return "<value><nil/></value>"
    if isinstance(tree, bool):
        return f"<value><boolean>{int(tree)}</boolean></value>"
    if isinstance(tree, Int32):
        return f"<value><i4>{int(tree)}</i4></value>"
    if isinstance(tree, float):
        return f"<value><double>{text(tree)}</double></value>"
    if isinstance(tree, Date):
        return f"<value><dateTime.iso8601>{tree}</dateTime.iso8601></value>"
    if isinstance(tree, bytes):
        return f"<value><base64>{base64.b64encode(tree).decode('ascii')}</base64></value>"
    if isinstance(tree, list):
        return _array([_encode(item) for item in tree])
    if isinstance(tree, dict):
        return _struct({name: _encode(item) for name, item in tree.items()})
    return _bare(str(tree))


def encode_call(name: str, session: str, arguments: dict[str, str]) -> str:
    """The document that a dom0 plugin is given: no XML declaration, bare strings, `<value/>` for an empty one."""
    members = _struct({key: _short(value) for key, value in arguments.items()})
    parameters = f"<param>{_short(session)}</param><param>{members}</param>"
    return f"<methodCall><methodName>{_clean(name)}</methodName><params>{parameters}</params></methodCall>"


def _clean(value: str) -> str:
    if _UNCLEAN.search(value) is None:
        return value
    return escape(_DROPPED.sub("", value), {'"': "&quot;"})


def _bare(value: str) -> str:
    return f"<value>{_clean(value)}</value>"


def _short(value: str) -> str:
    return _bare(value) if value else "<value/>"


def _array(values: list[str]) -> str:
    return f"<value><array><data>{''.join(values)}</data></array></value>"


def _struct(members: dict[str, str]) -> str:
    # ocaml-rpc does not escape the names either: a key with `<` breaks the document for every client.
    inside = "".join(f"<member><name>{name}</name>{value}</member>" for name, value in members.items())
    return f"<value><struct>{inside}</struct></value>"


# Decoding


class _Element:
    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.children: list[_Element] = []
        self.pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def elements(self) -> list[_Element]:
        """What is inside: elements only, with nothing but blanks between them."""
        if self.text.strip(_BLANKS):
            raise DecodeError("text between elements")
        return self.children

    def only(self, *tags: str) -> _Element:
        """The single element inside, which must be one of `tags`, if there are any."""
        if len(self.elements()) != 1 or (tags and self.children[0].tag not in tags):
            raise DecodeError("unexpected element")
        return self.children[0]

    def content(self) -> str:
        """The text inside, which must be there, and nothing else."""
        if self.children or not self.text:
            raise DecodeError("unexpected element or no text")
        return self.text


def _parse(untrusted_document: bytes) -> _Element:
    parser = xml.parsers.expat.ParserCreate(encoding="utf-8")
    parser.buffer_text = True
    root = _Element("")
    open_elements = [root]

    def start(tag: str, attributes: dict[str, str]) -> None:
        del attributes
        if len(open_elements) > 4 * MAX_DEPTH:
            raise DecodeError("nested too deep")
        element = _Element(tag)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(tag: str) -> None:
        del tag
        open_elements.pop()

    def refuse(*declaration: Any) -> None:
        del declaration
        # Without a document type there are no entities to expand, neither inside nor from elsewhere.
        raise DecodeError("a document type declaration is not allowed")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda data: open_elements[-1].pieces.append(data)
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(untrusted_document, True)
    except xml.parsers.expat.ExpatError as error:
        raise DecodeError(str(error)) from None
    return root.children[0]


def decode_call(untrusted_document: bytes) -> MethodCall:
    """The request in `untrusted_document`. DecodeError when there is none."""
    root = _parse(untrusted_document)
    if root.tag != "methodCall" or [child.tag for child in root.elements()] != ["methodName", "params"]:
        raise DecodeError("not a methodCall")
    name, parameters = root.children
    return MethodCall(name.content(), [_decode_parameter(parameter) for parameter in parameters.elements()])


def decode_response(untrusted_document: bytes) -> Any:
    """The value, or the Fault, in a methodResponse. DecodeError when it is not one."""
    root = _parse(untrusted_document)
    if root.tag != "methodResponse":
        raise DecodeError("not a methodResponse")
    content = root.only("params", "fault")
    if content.tag == "fault":
        fault = _decode_value(content.only("value"), 0)
        if not isinstance(fault, dict) or not {"faultCode", "faultString"} <= set(fault):
            raise DecodeError("not a fault")
        return Fault(text(fault["faultCode"]), text(fault["faultString"]))
    return _decode_parameter(content.only("param"))


def _decode_parameter(parameter: _Element) -> Any:
    if parameter.tag != "param":
        raise DecodeError("unexpected element")
    return _decode_value(parameter.only("value"), 0)


def _decode_value(value: _Element, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise DecodeError("nested too deep")
    if value.tag != "value":
        raise DecodeError("unexpected element")
    if not value.children:
        return value.text
    content = value.only()
    if not content.children and not content.text and content.tag in _EMPTY:
        return _EMPTY[content.tag].copy() if content.tag in ("array", "struct") else _EMPTY[content.tag]
    if content.tag == "array":
        return [_decode_value(item, depth + 1) for item in content.only("data").elements()]
    if content.tag == "struct":
        return _decode_members(content.elements(), depth + 1)
    if content.tag == "nil" and not content.elements():
        return None
    return _decode_scalar(content.tag, content.content())


def _decode_members(members: list[_Element], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for member in members:
        if member.tag != "member" or [child.tag for child in member.elements()] != ["name", "value"]:
            raise DecodeError("not a member")
        name, value = member.children
        # Of members with the same name, the first counts.
        found.setdefault(name.content(), _decode_value(value, depth))
    return found


def _decode_scalar(tag: str, content: str) -> Any:
    if tag == "string":
        return content
    if tag == "boolean":
        return content == "1"
    if tag == "dateTime.iso8601":
        return Date(content)
    if tag in ("int", "i4", "i8"):
        return parse_int64(content)
    try:
        if tag == "double" and len(content) <= _FLOAT_LENGTH and content == content.rstrip() and content.isascii():
            return float(content)
        if tag == "base64":
            return base64.b64decode(content, validate=True)
    except (ValueError, binascii.Error):
        pass
    raise DecodeError(f"malformed {tag}" if tag in ("double", "base64") else "unexpected element")
