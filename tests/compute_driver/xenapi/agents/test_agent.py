"""The old protocol, as under the policy `legacy`."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Refused, Unknown, Unreachable, Unsuccessful, Unsupported
from compute_driver.agents import AgentsInMemory
from compute_driver.errors import XenServerAnswerLost, XenServerFailure, XenServerUnreachable
from compute_driver.files import InjectedFile
from compute_driver.states import PowerState
from compute_driver.xenapi.agents.agent import GuestAgents
from compute_driver.xenapi.guests.vms import VM

from ..plugin import Answer, Plugin, reply

SECRET = "hunter2 & <Secret>"
CONTENT = b"hunter2 in a file"
VM_RECORD = VM("OpaqueRef:vm", "uuid-of-vm", "uuid-web", PowerState.RUNNING, "OpaqueRef:host", ())
FILE = InjectedFile("/etc/motd", CONTENT)


@pytest.fixture
def plugin() -> Plugin:
    return Plugin()


def agents(plugin: Plugin, timeout: float = 10.0) -> GuestAgents:
    server: Any = plugin
    return GuestAgents(server, AgentsInMemory(), policy="legacy", timeout=timeout, boot_timeout=timeout)


def set_password(plugin: Plugin, timeout: float = 10.0) -> None:
    agents(plugin, timeout).set_password(VM_RECORD, Password(SECRET))


def error_of(plugin: Plugin, timeout: float = 10.0) -> Unsuccessful:
    """The error that setting the password ends with. It never shows the password."""
    with pytest.raises(Unsuccessful) as caught:
        set_password(plugin, timeout)
    told = repr(caught.value) + str(caught.value) + repr(vars(caught.value)) + repr(caught.value.__cause__)
    assert "hunter2" not in told
    return caught.value


# The way there and back


def test_a_password_reaches_the_agent_sealed(plugin: Plugin) -> None:
    set_password(plugin)
    assert plugin.names() == ["keyinit", "password"]
    assert plugin.passwords == [SECRET]
    assert "hunter2" not in str(plugin.calls)
    method, host, name, function, arguments = plugin.calls[0]
    assert (method, host, name, function) == ("host.call_plugin", "OpaqueRef:host", "xenward", "exchange")
    assert json.loads(arguments["requests"])[0]["vm"] == "uuid-of-vm"


def test_each_request_has_an_id_of_its_own_and_what_is_left_of_the_time(plugin: Plugin) -> None:
    set_password(plugin)
    first, second = (json.loads(call[-1]["requests"])[0]["id"] for call in plugin.calls)
    assert first != second
    waits = [float(call[-1]["timeout"]) for call in plugin.calls]
    assert 10 >= waits[0] >= waits[1] > 0
    # XenServer gets more time than the plugin, so that the plugin's own answer arrives.
    assert all(wait < timeout for wait, timeout in zip(waits, plugin.timeouts))


def test_the_introduction_is_what_the_agent_says(plugin: Plugin) -> None:
    plugin.features = " version, password ,,file_put"
    info = agents(plugin).await_boot(VM_RECORD)
    assert (info.version, info.features, info.protocol) == ("1.2.3", ("version", "password", "file_put"), "legacy")


@pytest.mark.parametrize("answer", [reply("404", "what?"), reply("500", "broken")])
def test_an_agent_too_old_to_know_of_features_has_none(plugin: Plugin, answer: Answer) -> None:
    plugin.say("features", answer)
    assert agents(plugin).await_boot(VM_RECORD).features == ()


# What became of a request

DELIVERIES = [
    ("absent", Unreachable, "guest_absent", Unreachable),
    ("withdrawn", Unreachable, "agent_silent", Unreachable),
    ("rejected", Unreachable, "xenstore_refused", Unreachable),
    ("taken", Unreachable, "agent_no_answer", Unknown),
    ("unanswered", Unreachable, "agent_no_answer", Unknown),
    ("lost", Unreachable, "xenstore_lost", Unknown),
    ("something new", Unreachable, "xenstore_lost", Unknown),
]


@pytest.mark.parametrize(("word", "of_question", "code", "of_order"), DELIVERIES)
def test_what_became_of_a_request(
    word: str, of_question: type[Unsuccessful], code: str, of_order: type[Unsuccessful]
) -> None:
    for name, kind in (("keyinit", of_question), ("password", of_order)):
        plugin = Plugin()
        plugin.say(name, word)
        error = error_of(plugin)
        assert (type(error), error.code) == (kind, code)
        assert plugin.passwords == []


CALL_ERRORS: list[tuple[BaseException, type[Unsuccessful], str, type[Unsuccessful]]] = [
    (XenServerFailure(["XENAPI_MISSING_PLUGIN", "xenward"]), Unsupported, "plugin_missing", Unsupported),
    (XenServerFailure(["XENWARD_XENSTORE", "EIO"]), Unreachable, "xenstore_unreachable", Unreachable),
    (XenServerFailure(["XENWARD_BAD_REQUEST", "too many"]), Failed, "plugin_refused", Failed),
    (XenServerFailure(["XENWARD_BAD_REQUEST"]), Failed, "plugin_refused", Failed),
    (
        XenServerFailure(["XENAPI_PLUGIN_FAILURE", "non-zero exit", "", "Traceback: " + SECRET]),
        Unreachable,
        "plugin_died",
        Unknown,
    ),
    (XenServerFailure(["XENAPI_PLUGIN_FAILURE"]), Unreachable, "plugin_died", Unknown),
    (XenServerFailure(["HANDLE_INVALID", "host", "x"]), XenServerFailure, "xenserver_handle_invalid", XenServerFailure),
    (XenServerAnswerLost("host.call_plugin"), Unreachable, "plugin_answer_lost", Unknown),
    (
        XenServerUnreachable("xen-1", "Connection refused"),
        XenServerUnreachable,
        "xenserver_unreachable",
        XenServerUnreachable,
    ),
]


@pytest.mark.parametrize(("error", "of_question", "code", "of_order"), CALL_ERRORS)
def test_what_became_of_the_call(
    error: BaseException, of_question: type[Unsuccessful], code: str, of_order: type[Unsuccessful]
) -> None:
    for name, kind in (("keyinit", of_question), ("password", of_order)):
        plugin = Plugin()
        plugin.say(name, error)
        told = error_of(plugin)
        assert (type(told), told.code) == (kind, code)


def good_value(request: dict[str, str]) -> dict[str, str]:
    return {"id": request["id"], "delivery": "answered", "value": '{"returncode": "0", "message": "5"}'}


JUNK: list[tuple[str, Answer]] = [
    ("bad_plugin_answer", lambda request: "no JSON"),
    ("bad_plugin_answer", lambda request: ""),
    ("bad_plugin_answer", lambda request: "[" * 100_000),
    ("bad_plugin_answer", lambda request: 7),
    ("bad_plugin_answer", lambda request: None),
    ("bad_plugin_answer", lambda request: []),
    ("bad_plugin_answer", lambda request: [7]),
    ("bad_plugin_answer", lambda request: {"id": request["id"]}),
    ("bad_plugin_answer", lambda request: [good_value(request), good_value(request)]),
    ("bad_plugin_answer", lambda request: [{**good_value(request), "id": "another"}]),
    ("bad_plugin_answer", lambda request: [{"delivery": "withdrawn"}]),
    ("xenstore_lost", lambda request: [{"id": request["id"]}]),
    ("xenstore_lost", lambda request: [{"id": request["id"], "delivery": 7}]),
    ("xenstore_lost", lambda request: [{"id": request["id"], "delivery": ["withdrawn"]}]),
    ("bad_reply", lambda request: [{"id": request["id"], "delivery": "answered"}]),
    ("bad_reply", lambda request: [{**good_value(request), "value": 7}]),
    ("bad_reply", lambda request: [{**good_value(request), "value": {"returncode": "0"}}]),
    ("bad_reply", lambda request: [{**good_value(request), "value": "\ud800"}]),
    ("bad_reply", lambda request: [{**good_value(request), "value": "[" * 100_000}]),
    ("bad_reply", lambda request: [{**good_value(request), "value": '{"message": "0"}'}]),
    ("bad_reply", reply("0", "", outcome="failed")),
    ("bad_reply", reply("500", "", outcome="succeeded")),
    ("bad_reply", reply("500", "", outcome="splendid")),
]


@pytest.mark.parametrize(("code", "answer"), JUNK)
def test_junk_is_no_answer(code: str, answer: Answer) -> None:
    for name, kind in (("keyinit", Unreachable), ("password", Unknown)):
        plugin = Plugin()
        plugin.say(name, answer)
        error = error_of(plugin)
        assert (type(error), error.code) == (kind, code)


def test_an_answer_that_is_no_text_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Plugin()
    monkeypatch.setattr(plugin, "call", lambda *_, **__: None)
    assert error_of(plugin).code == "bad_plugin_answer"


@pytest.mark.parametrize("outcome", ["refused", "unsupported", "busy", "failed", "unreachable", "unknown"])
def test_the_agents_own_errors_are_told_as_they_are(plugin: Plugin, outcome: str) -> None:
    plugin.say("password", reply("500", "some words", outcome=outcome, code="some_code"))
    error = error_of(plugin)
    assert (error.outcome, error.code, error.message) == (outcome, "some_code", "some words")


def test_an_agent_that_repeats_the_password_does_not_spread_it(plugin: Plugin) -> None:
    plugin.say("password", reply("500", f"chpasswd: could not set '{SECRET}'"))
    error = error_of(plugin)
    assert error.outcome == "failed"
    assert "chpasswd" in error.message


@pytest.mark.parametrize("public", ["", "0", "1", "x", "-5", str(2**107 - 2), str(2**200)])
def test_a_bad_public_number_is_refused_before_the_password_leaves(plugin: Plugin, public: str) -> None:
    plugin.say("keyinit", reply("D0", public))
    error = error_of(plugin)
    assert (type(error), error.code) == (Refused, "bad_public_number")
    assert plugin.names() == ["keyinit"]


# A guest that restarts


def test_a_restart_during_a_question_begins_again(plugin: Plugin) -> None:
    plugin.say("keyinit", "gone", "gone")
    set_password(plugin)
    assert plugin.names() == ["keyinit", "keyinit", "keyinit", "password"]
    assert plugin.passwords == [SECRET]


def test_a_restart_during_an_order_begins_again_with_a_new_key(plugin: Plugin) -> None:
    plugin.say("password", "gone")
    set_password(plugin)
    assert plugin.names() == ["keyinit", "password"] * 2
    assert plugin.passwords == [SECRET]


AFTER_THE_RESTART: list[tuple[str, Answer, Any]] = [
    ("keyinit", "absent", Unreachable),
    ("keyinit", "withdrawn", Unreachable),
    ("keyinit", reply("500", "no", outcome="refused", code="policy"), Refused),
    ("keyinit", XenServerFailure(["XENAPI_MISSING_PLUGIN", "xenward"]), Unsupported),
    ("password", "withdrawn", Unreachable),
    ("password", reply("500", "no", outcome="refused", code="policy"), Refused),
    ("password", reply("500", "no"), Failed),
    ("password", "unanswered", Unknown),
]


@pytest.mark.parametrize(("name", "answer", "kind"), AFTER_THE_RESTART)
def test_after_a_restart_during_a_question_the_end_is_what_it_is(
    name: str, answer: Answer, kind: type[Unsuccessful]
) -> None:
    plugin = Plugin()
    plugin.say("keyinit", "gone", *([answer] if name == "keyinit" else []))
    plugin.say("password", *([answer] if name == "password" else []))
    assert type(error_of(plugin)) is kind


@pytest.mark.parametrize(("name", "answer", "kind"), AFTER_THE_RESTART)
def test_after_a_restart_during_an_order_no_end_but_success_is_certain(
    name: str, answer: Answer, kind: type[Unsuccessful]
) -> None:
    plugin = Plugin()
    plugin.say("password", "gone", *([answer] if name == "password" else []))
    if name == "keyinit":
        plugin.say("keyinit", plugin._good, answer)
    error = error_of(plugin)
    assert type(error) is Unknown
    assert error.code == ("agent_no_answer" if kind is Unknown else "guest_restarted")


@pytest.mark.parametrize(("name", "kind"), [("keyinit", Unreachable), ("password", Unknown)])
def test_a_guest_that_does_nothing_but_restart_ends_with_the_time(name: str, kind: type[Unsuccessful]) -> None:
    plugin = Plugin()
    plugin.say(name, *["gone"] * 1_000_000)
    error = error_of(plugin, timeout=0.05)
    assert (type(error), error.code) == (kind, "guest_restarted")


# Files and keys


def test_a_file_goes_the_way_that_the_agent_knows_best(plugin: Plugin) -> None:
    agents(plugin).put_file(VM_RECORD, InjectedFile("/etc/ä,b", CONTENT, 0o40, "ada:users"))
    name, value = plugin.requests[-1]
    assert name == "file_put"
    assert json.loads(value) == {
        "path": "/etc/ä,b",
        "content": base64.b64encode(CONTENT).decode(),
        "mode": "0040",
        "owner": "ada:users",
    }


def test_without_mode_and_owner_none_is_sent(plugin: Plugin) -> None:
    agents(plugin).put_file(VM_RECORD, FILE)
    assert set(json.loads(plugin.requests[-1][1])) == {"path", "content"}


def test_a_file_goes_the_old_ways() -> None:
    plugin = Plugin("version,file_inject,injectfile")
    agents(plugin).put_file(VM_RECORD, InjectedFile("/etc/ä,b", CONTENT))
    name, value = plugin.requests[-1]
    assert name == "file_inject"
    decoded = {key: base64.b64decode(text) for key, text in json.loads(value).items()}
    assert decoded == {"b64_path": "/etc/ä,b".encode(), "b64_file": CONTENT}

    plugin = Plugin("version,injectfile")
    agents(plugin).put_file(VM_RECORD, InjectedFile("/etc/ä", b"a,b"))
    name, value = plugin.requests[-1]
    assert (name, base64.b64decode(value)) == ("injectfile", "/etc/ä,a,b".encode())


@pytest.mark.parametrize(
    ("features", "file", "code"),
    [
        ("version", FILE, "file_unsupported"),
        ("", FILE, "file_unsupported"),
        ("injectfile", InjectedFile("/etc/a,b", CONTENT), "file_path_unsupported"),
        ("injectfile", InjectedFile("/etc/a", CONTENT, mode=0o600), "file_mode_unsupported"),
        ("file_inject", InjectedFile("/etc/a", CONTENT, mode=0), "file_mode_unsupported"),
        ("file_inject", InjectedFile("/etc/a", CONTENT, owner="ada"), "file_mode_unsupported"),
    ],
)
def test_what_an_agent_cannot_do_with_a_file_is_unsupported(features: str, file: InjectedFile, code: str) -> None:
    plugin = Plugin(features)
    with pytest.raises(Unsupported) as caught:
        agents(plugin).put_file(VM_RECORD, file)
    assert caught.value.code == code
    assert plugin.names() == ["version", "features"]


@pytest.mark.parametrize("features", ["file_put", "file_inject", "injectfile"])
def test_a_file_that_is_too_large_is_refused_and_never_sent(features: str) -> None:
    plugin = Plugin(features)
    with pytest.raises(Refused) as caught:
        agents(plugin).put_file(VM_RECORD, InjectedFile("/etc/a", bytes(1600)))
    assert caught.value.code == "request_too_large"
    assert "2000" in caught.value.message
    assert plugin.names() == ["version", "features"]


@pytest.mark.parametrize("word", ["taken", "unanswered", "lost"])
def test_a_file_that_may_have_been_put_is_unknown(plugin: Plugin, word: str) -> None:
    plugin.say("file_put", word)
    with pytest.raises(Unknown) as caught:
        agents(plugin).put_file(VM_RECORD, FILE)
    assert CONTENT.decode() not in repr(caught.value)


def test_keys_are_added(plugin: Plugin) -> None:
    agents(plugin).add_ssh_keys(VM_RECORD, ("ssh-ed25519 AAAA", "ssh-rsa BBBB"))
    assert plugin.requests[-1] == ("ssh_keys", '{"add": ["ssh-ed25519 AAAA", "ssh-rsa BBBB"]}')


def test_an_agent_that_knows_no_keys_is_not_asked_to_add_some() -> None:
    plugin = Plugin("version,file_put")
    with pytest.raises(Unsupported) as caught:
        agents(plugin).add_ssh_keys(VM_RECORD, ["ssh-ed25519 AAAA"])
    assert caught.value.code == "ssh_keys_unsupported"
    assert plugin.names() == ["version", "features"]
