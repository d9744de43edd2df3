"""XML-RPC as xapi speaks it (ocaml-rpc's xmlrpc.ml), which differs from other servers' in what a client must bear.

Strings travel without a `<string>` element, and so do ints; errors are values, never a `<fault>`; the names of a
struct's members are not escaped. What comes in is decoded tolerantly, but within limits and without entities.
"""

from __future__ import annotations

import re
import xml.parsers.expat
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from .model import Model, Type
from .values import Date, text

MAX_DEPTH = 100
"""How deep arrays and structs may be nested. XenAPI's own types need five; ours keeps recursion bounded."""

_ENVELOPE = '<?xml version="1.0"?><methodResponse><params><param>{}</param></params></methodResponse>'
_DROPPED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_SCALARS = ("string", "int", "i4", "i8", "boolean", "double", "dateTime.iso8601", "nil")


class DecodeError(ValueError):
    """Raised when a document is no XML, or no XML-RPC, or breaks a limit. The message holds none of its content."""


class MethodCall(NamedTuple):
    """A request: the method's name and its parameters, untyped."""

    name: str
    parameters: list[Any]


class Fault(NamedTuple):
    """A `<fault>`, which xapi never sends but a dom0 plugin may."""

    code: str
    reason: str


# Encoding


def encode_success(model: Model, result: Type, value: Any) -> bytes:
    """The response for a call that ended well with `value` of type `result`."""
    return _respond("Success", "Value", encode_value(model, result, value))


def encode_failure(description: list[str]) -> bytes:
    """The response for a call that failed; `description` is the code and its parameters."""
    return _respond("Failure", "ErrorDescription", _array([_bare(item) for item in description]))


def _respond(status: str, name: str, value: str) -> bytes:
    return _ENVELOPE.format(_struct({"Status": _bare(status), name: value})).encode("utf-8", "replace")


def encode_value(model: Model, wanted: Type, value: Any) -> str:
    """A `<value>` element for a value of the datamodel."""
    kind = wanted.kind
    if kind == "void":
        return "<value></value>"
    if kind == "bool":
        return f"<value><boolean>{int(value)}</boolean></value>"
    if kind == "float":
        return f"<value><double>{text(value)}</double></value>"
    if kind == "datetime":
        return f"<value><dateTime.iso8601>{value}</dateTime.iso8601></value>"
    if kind == "set":
        assert wanted.item is not None
        return _array([encode_value(model, wanted.item, item) for item in value])
    if kind == "map":
        assert wanted.item is not None
        return _struct({text(key): encode_value(model, wanted.item, item) for key, item in value.items()})
    if kind == "record":
        fields = model.classes[wanted.name].fields
        return _struct({name: encode_value(model, fields[name].type, item) for name, item in value.items()})
    return _bare(text(value))


def encode_call(name: str, session: str, arguments: dict[str, str]) -> str:
    """The document that a dom0 plugin is given: no XML declaration, bare strings, `<value/>` for an empty one."""
    members = _struct({key: _short(value) for key, value in arguments.items()})
    parameters = f"<param>{_short(session)}</param><param>{members}</param>"
    return f"<methodCall><methodName>{_clean(name)}</methodName><params>{parameters}</params></methodCall>"


def _clean(value: str) -> str:
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

    def only(self, *tags: str) -> _Element:
        """The single child, which must be one of `tags`."""
        if len(self.children) != 1 or (tags and self.children[0].tag not in tags):
            raise DecodeError("unexpected element")
        return self.children[0]


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
    if root.tag != "methodCall" or not root.children or root.children[0].tag != "methodName":
        raise DecodeError("not a methodCall")
    if len(root.children) > 2 or (len(root.children) == 2 and root.children[1].tag != "params"):
        raise DecodeError("not a methodCall")
    parameters = root.children[1].children if len(root.children) == 2 else []
    return MethodCall(root.children[0].text.strip(), [_decode_parameter(parameter) for parameter in parameters])


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
    if not value.children:
        return value.text
    content = value.only(*_SCALARS, "array", "struct")
    if content.tag == "array":
        items = content.only("data").children if content.children else []
        return [_decode_value(_expect(item, "value"), depth + 1) for item in items]
    if content.tag == "struct":
        return dict(_decode_member(_expect(member, "member"), depth + 1) for member in content.children)
    return _decode_scalar(content.tag, content.text)


def _expect(element: _Element, tag: str) -> _Element:
    if element.tag != tag:
        raise DecodeError("unexpected element")
    return element


def _decode_member(member: _Element, depth: int) -> tuple[str, Any]:
    if [child.tag for child in member.children] != ["name", "value"]:
        raise DecodeError("not a member")
    return member.children[0].text, _decode_value(member.children[1], depth)


def _decode_scalar(tag: str, content: str) -> Any:
    if tag == "string":
        return content
    if tag == "nil":
        return None
    stripped = content.strip()
    if tag == "boolean" and stripped in ("0", "1"):
        return stripped == "1"
    if tag == "dateTime.iso8601":
        return Date(stripped)
    # 40 characters hold every number that XenAPI knows; int() of a long text would take quadratic time.
    if tag in ("int", "i4", "i8", "double") and len(stripped) <= 40:
        try:
            return float(stripped) if tag == "double" else int(stripped)
        except ValueError:
            pass
    raise DecodeError(f"malformed {tag}")
