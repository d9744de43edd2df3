"""The XML between xapi and the plugin; xmlrpc.client reads it as an independent party."""

from __future__ import annotations

import io
import json
import sys
import xmlrpc.client
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_plugins import __main__ as main
from dom0_plugins.xapi import Function, PluginFailure, dispatch, respond
from tools.simulator.xenstore.server import XenStoreServer

XML_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\t\n\r<>&'\"]"))
"""What an XML document can hold."""

ANY_TEXT = st.text(st.characters(exclude_categories=()))


def call(name: str, members: str) -> str:
    """A call in xapi's own words: no declaration, the session first, bare values."""
    return (
        f"<methodCall><methodName>{name}</methodName><params>"
        "<param><value>OpaqueRef:session</value></param>"
        f"<param><value><struct>{members}</struct></value></param></params></methodCall>"
    )


def member(name: str, value: str) -> str:
    return f"<member><name>{name}</name>{value}</member>"


def read(response: str) -> dict[str, Any]:
    (answer,), method = xmlrpc.client.loads(response)
    assert method is None and isinstance(answer, dict)
    return answer


def arguments_of(document: str) -> dict[str, str]:
    """The arguments that a function would get."""
    seen: list[Mapping[str, str]] = []

    def function(arguments: Mapping[str, str]) -> str:
        seen.append(arguments)
        return ""

    assert read(respond(["xenward", document], {"f": function})) == {"Status": "Success", "Value": ""}
    return dict(seen[0])


def failure_of(error: Exception) -> list[str]:
    """The error's description as the caller gets it."""

    def function(arguments: Mapping[str, str]) -> str:
        raise error

    answer = read(respond(["xenward", call("f", "")], {"f": function}))
    assert answer["Status"] == "Failure"
    return list(answer["ErrorDescription"])


class TestCalls:
    def test_the_forms_of_a_value(self) -> None:
        members = member("bare", "<value>text</value>") + member("typed", "<value><string>text</string></value>")
        members += member("empty", "<value/>") + member("none", "<value></value>")
        members += member("void", "<value><string/></value>") + member("blank", "<value>  a \n</value>")
        assert arguments_of(call("f", members)) == {
            "bare": "text",
            "typed": "text",
            "empty": "",
            "none": "",
            "void": "",
            "blank": "  a \n",
        }

    def test_what_is_no_argument_is_passed_over(self) -> None:
        members = member("a", "<other>x</other><value> <string>y</string> </value>") + "<member><name>b</name></member>"
        members += "<member><value>z</value></member><name>c</name>"
        assert arguments_of(call("f", members)) == {"a": "y", "": "z"}

    def test_entities(self) -> None:
        value = "<value>&lt;&amp;&gt;&quot;&apos;&#10;&#xdf;&amp;lt;</value>"
        assert arguments_of(call("f", member("a&amp;b", value))) == {"a&b": "<&>\"'\nß&lt;"}

    def test_no_arguments(self) -> None:
        assert arguments_of(call("f", "")) == {}

    @given(st.dictionaries(XML_TEXT, XML_TEXT, max_size=4))
    def test_what_another_library_writes(self, arguments: dict[str, str]) -> None:
        escaped = {name.replace("\r", "\n"): value.replace("\r", "\n") for name, value in arguments.items()}
        document = xmlrpc.client.dumps(("OpaqueRef:session", escaped), "f", allow_none=False)
        assert arguments_of(document) == escaped

    def test_arguments_that_are_no_strings(self) -> None:
        for value in (
            "<value><int>1</int></value>",
            "<value><array><data/></array></value>",
            "<value><string>a<b/></string></value>",
        ):
            answer = read(respond(["xenward", call("f", member("a", value))], {"f": lambda arguments: ""}))
            assert answer["ErrorDescription"][0] == "XENWARD_BAD_CALL"

    @pytest.mark.parametrize("arguments", [[], ["xenward"], ["xenward", "a", "b"]])
    def test_a_wrong_number_of_arguments(self, arguments: list[str]) -> None:
        assert read(respond(arguments, {}))["ErrorDescription"][0] == "XENWARD_BAD_CALL"

    def test_an_unknown_function(self) -> None:
        for name in ("g", "", "__class__", "a&amp;b"):
            answer = read(respond(["xenward", call(name, "")], {"f": lambda arguments: ""}))
            expected = ["UNKNOWN_XENAPI_PLUGIN_FUNCTION", name.replace("&amp;", "&")]
            assert answer == {"Status": "Failure", "ErrorDescription": expected}

    @given(ANY_TEXT | XML_TEXT.map(lambda text: call(text, "")))
    def test_any_document_gets_a_response(self, document: str) -> None:
        answer = read(respond(["xenward", document], {}))
        assert answer["Status"] == "Failure" and answer["ErrorDescription"]

    def test_arguments_in_a_locale_that_knows_ascii_only(self) -> None:
        # dom0's 3.6 without a locale hands every other byte over as half a surrogate pair.
        document = call("f", member("a", "<value>ß密</value>"))
        misread = document.encode("utf-8").decode("ascii", "surrogateescape")
        assert arguments_of(misread) == {"a": "ß密"}


class TestResponses:
    @given(XML_TEXT)
    def test_a_value_comes_back_as_it_was(self, value: str) -> None:
        response = respond(["xenward", call("f", "")], {"f": lambda arguments: value})
        assert read(response) == {"Status": "Success", "Value": value}
        assert response.isascii()

    @given(ANY_TEXT, st.lists(ANY_TEXT, max_size=3))
    def test_whatever_a_failure_holds_can_be_read(self, code: str, parameters: list[str]) -> None:
        description = failure_of(PluginFailure(code, *parameters))
        assert len(description) == 1 + len(parameters)

    @given(XML_TEXT, st.lists(XML_TEXT, max_size=3))
    def test_a_failure_comes_back_as_it_was(self, code: str, parameters: list[str]) -> None:
        assert failure_of(PluginFailure(code, *parameters)) == [code, *parameters]

    def test_an_unforeseen_error_tells_its_class_only(self) -> None:
        for error in (ValueError("hunter2"), KeyError("hunter2"), UnicodeDecodeError("utf-8", b"hunter2", 0, 1, "x")):
            assert failure_of(error) == ["XENAPI_PLUGIN_FAILURE", "xenward", type(error).__name__, ""]

    def test_a_document_that_is_none_is_not_repeated(self) -> None:
        answer = read(respond(["xenward", "<methodCall>hunter2"], {}))
        assert answer["ErrorDescription"] == ["XENAPI_PLUGIN_FAILURE", "xenward", "ParseError", ""]

    def test_an_unforeseen_error_in_the_arguments_is_answered(self) -> None:
        document = call("f", member("a", "<value>x</value>"))
        functions: dict[str, Function] = {"f": lambda arguments: arguments["b"]}
        assert read(respond(["xenward", document], functions))["ErrorDescription"][2] == "KeyError"


class TestProcess:
    def test_dispatch_prints_one_response(self, monkeypatch: pytest.MonkeyPatch) -> None:
        printed = io.StringIO()
        monkeypatch.setattr(sys, "argv", ["xenward", call("f", member("a", "<value>b</value>"))])
        monkeypatch.setattr(sys, "stdout", printed)
        dispatch({"f": lambda arguments: arguments["a"] * 2})
        assert read(printed.getvalue()) == {"Status": "Success", "Value": "bb"}

    def test_a_store_that_is_not_there(self, server: XenStoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XENSTORED_PATH", str(server.socket))
        assert json.loads(main.exchange({"requests": "[]", "timeout": "0"})) == []
        server.stop()
        with pytest.raises(PluginFailure) as caught:
            main.exchange({"requests": "[]", "timeout": "0"})
        assert caught.value.description[0] == "XENWARD_XENSTORE"
