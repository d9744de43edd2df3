"""How XAPI calls a plugin: a method call as XML in the one argument, a method response as XML on standard output.

Stands in for XenAPIPlugin.py, whose import of xmlrpc.client takes longer than our whole run. Values are strings,
in both directions; whatever is printed besides the response breaks the call, so nothing else is.
"""

import os
import re
import sys
from typing import Callable, Dict, List, Mapping
from xml.etree import ElementTree  # noqa: S405 - the document comes from xapi, which made it itself

Function = Callable[[Mapping[str, str]], str]
"""A function of the plugin: named string arguments in, a string out."""


_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML document can hold, not even as a reference (XML 1.0, section 2.2)."""


class PluginFailure(Exception):
    """Raise to let the caller's XenAPI call fail with this code and these parameters."""

    def __init__(self, code: str, *parameters: str) -> None:
        super().__init__(code, *parameters)
        self.description = [code] + list(parameters)


def _text(value: ElementTree.Element) -> str:
    # <value>text</value>, <value><string>text</string></value>, <value/>
    inner = value[0] if len(value) else value
    if inner.tag not in ("value", "string"):
        raise PluginFailure("XENWARD_BAD_CALL", "arguments of a plugin are strings")
    return inner.text or ""


def _parse(document: str) -> "tuple[str, Dict[str, str]]":
    """Name and arguments of a call. Its first parameter is the caller's session, which we do not use."""
    # The argument's own bytes, UTF-8: without a locale, which xapi sets none of, 3.6 cannot read them as text.
    call = ElementTree.fromstring(os.fsencode(document))  # noqa: S314 - see above
    name = call.findtext("methodName") or ""
    arguments: Dict[str, str] = {}
    for member in call.iterfind("./params/param/value/struct/member"):
        value = member.find("value")
        if value is not None:
            arguments[member.findtext("name") or ""] = _text(value)
    return name, arguments


def _escape(text: str) -> str:
    text = _NO_XML.sub("\ufffd", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
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
