"""How XAPI calls a plugin: a method call as XML in the one argument, a method response as XML on standard output.

Stands in for XenAPIPlugin.py, whose import of xmlrpc.client takes longer than our whole run; ElementTree would still
take a sixth of it, so the call is read with expat itself. Values are strings, in both directions; whatever is printed
besides the response breaks the call, so nothing else is.
"""

import os
import re
import sys
from typing import Callable, Dict, List, Mapping, Optional
from xml.parsers import expat  # noqa: S407 - the document comes from xapi, which made it itself

Function = Callable[[Mapping[str, str]], str]
"""A function of the plugin: named string arguments in, a string out."""


_NO_XML = "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
"""What no XML document can hold, not even as a reference (XML 1.0, section 2.2)."""

_MEMBER = ["methodCall", "params", "param", "value", "struct", "member"]
"""Where in a call an argument stands: name and value are below it. Another parameter is the caller's session."""


class ParseError(Exception):
    """Raised when a call is no XML document. It does not repeat any of it."""


class PluginFailure(Exception):
    """Raise to let the caller's XenAPI call fail with this code and these parameters."""

    def __init__(self, code: str, *parameters: str) -> None:
        super().__init__(code, *parameters)
        self.description = [code] + list(parameters)


class _CallReader:
    """Takes name and arguments of a call out of the events of the parser."""

    def __init__(self) -> None:
        self.name = ""
        self.arguments: Dict[str, str] = {}
        self._path: List[str] = []
        self._text = ""
        self._member = ""
        self._value: Optional[str] = None

    def start(self, tag: str, _attributes: object) -> None:
        self._path.append(tag)
        self._text = ""
        # <value>text</value>, <value><string>text</string></value>, <value/>
        below = self._path[len(_MEMBER) :]
        if below[:1] == ["value"] and below[1:] not in ([], ["string"]) and self._path[: len(_MEMBER)] == _MEMBER:
            raise PluginFailure("XENWARD_BAD_CALL", "arguments of a plugin are strings")

    def text(self, text: str) -> None:
        self._text += text

    def end(self, _tag: str) -> None:
        if self._path == ["methodCall", "methodName"]:
            self.name = self._text
        elif self._path == _MEMBER:
            if self._value is not None:
                self.arguments[self._member] = self._value
            self._member, self._value = "", None
        elif self._path[:-1] == _MEMBER and self._path[-1] == "name":
            self._member = self._text
        elif self._path[: len(_MEMBER) + 1] == [*_MEMBER, "value"] and self._value is None:
            # The text of the innermost element: what is around a <string> is none.
            self._value = self._text
        self._path.pop()


def _parse(document: str) -> "tuple[str, Dict[str, str]]":
    """Name and arguments of a call. Its first parameter is the caller's session, which we do not use."""
    reader = _CallReader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        # The argument's own bytes, UTF-8: without a locale, which xapi sets none of, 3.6 cannot read them as text.
        parser.Parse(os.fsencode(document), True)
    except expat.ExpatError:
        raise ParseError from None
    return reader.name, reader.arguments


def _escape(text: str) -> str:
    # Printable text holds nothing that XML cannot, and the pattern takes ten milliseconds to compile.
    if not text.isprintable():
        text = re.sub(_NO_XML, "\ufffd", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A bare carriage return would be read as a line feed; and standard output may know ASCII only.
    return text.replace("\r", "&#13;").encode("ascii", "xmlcharrefreplace").decode("ascii")


def _response(status: str, name: str, value: str) -> str:
    members = "<member><name>Status</name><value>%s</value></member><member><name>%s</name>%s</member>"
    struct = members % (status, name, value)
    return (
        "<?xml version='1.0'?><methodResponse><params><param><value><struct>%s</struct></value></param>"
        "</params></methodResponse>" % struct
    )


def _failure(description: List[str]) -> str:
    values = "".join("<value>%s</value>" % _escape(text) for text in description)
    return _response("Failure", "ErrorDescription", "<value><array><data>%s</data></array></value>" % values)


def respond(arguments: List[str], functions: Mapping[str, Function]) -> str:
    """The response to a call whose command line is `arguments` (program, document).

    An unforeseen exception is answered with its class only: its text may hold what a caller sent.
    """
    try:
        if len(arguments) != 2:
            raise PluginFailure("XENWARD_BAD_CALL", "a plugin takes one argument, a method call")
        name, values = _parse(arguments[1])
        if name not in functions:
            raise PluginFailure("UNKNOWN_XENAPI_PLUGIN_FUNCTION", name)
        return _response("Success", "Value", "<value>%s</value>" % _escape(functions[name](values)))
    except PluginFailure as failure:
        return _failure(failure.description)
    except Exception as error:
        return _failure(["XENAPI_PLUGIN_FAILURE", "xenward", type(error).__name__, ""])


def dispatch(functions: Mapping[str, Function]) -> None:
    """Serve the call that this process was started for. The exit status is 0 whatever the answer is."""
    sys.stdout.write(respond(sys.argv, functions))
    sys.stdout.flush()
