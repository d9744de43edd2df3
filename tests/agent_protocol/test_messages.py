"""Requests, replies and adverts: what is accepted, what is refused, and that everything fits a XenStore node."""

from __future__ import annotations

import json
import unicodedata
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol import messages
from agent_protocol.messages import Advert, MessageError, Password, Reply, Request
from agent_protocol.outcomes import Failed, Outcome, Refused, Unknown, Unsuccessful, Unsupported, unsuccessful


def as_json_holds_it(text: str) -> str:
    """Two surrogates that make a pair become the character that they stand for."""
    return str(json.loads(json.dumps(text)))


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=200).map(as_json_holds_it)
"""Including astral characters and lone surrogates, which JSON can spell."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NO_OBJECTS = [
    b"",
    b"{",
    b"[]",
    b'"text"',
    b"1",
    b"null",
    b"\xff\xfe",
    b'{"name":"x"}\0',
    b"[" * 2000,
    b"\xef\xbb\xbf{}",
]


def dumped(**members: object) -> bytes:
    return json.dumps(members).encode()


class TestRequests:
    def test_the_form_on_the_wire(self) -> None:
        value = messages.encode_request(Request("password", "ä"))
        assert value == b'{"name":"password","value":"\\u00e4"}'
        assert messages.parse_request(value) == Request("password", "ä")

    @given(ANY_TEXT.filter(lambda text: len(text) < 100), ANY_TEXT.filter(lambda text: len(text) < 50))
    def test_what_is_encoded_is_parsed(self, name: str, value: str) -> None:
        encoded = messages.encode_request(Request(name, value))
        assert encoded.isascii() and len(encoded) <= messages.MAX_VALUE
        assert messages.parse_request(encoded) == Request(name, value)

    def test_value_may_be_missing_and_more_may_be_there(self) -> None:
        assert messages.parse_request(b'{"name": "features", "else": [1]}') == Request("features", "")

    @pytest.mark.parametrize("value", NO_OBJECTS)
    def test_no_object(self, value: bytes) -> None:
        with pytest.raises(MessageError):
            messages.parse_request(value)

    @pytest.mark.parametrize("name", [None, 1, True, [], {}])
    def test_name_and_value_are_strings(self, name: object) -> None:
        for value in (dumped(value="x"), dumped(name=name, value="x"), dumped(name="x", value=name)):
            with pytest.raises(MessageError) as caught:
                messages.parse_request(value)
            assert (caught.value.code, caught.value.outcome) == ("bad_request", Outcome.REFUSED)

    def test_the_limit(self) -> None:
        room = messages.MAX_VALUE - len(messages.encode_request(Request("x", "")))
        assert len(messages.encode_request(Request("x", "y" * room))) == messages.MAX_VALUE == 2000
        with pytest.raises(MessageError):
            messages.encode_request(Request("x", "y" * (room + 1)))

    @given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
    def test_anything_is_parsed_or_refused(self, untrusted_value: bytes) -> None:
        for parse in (messages.parse_request, messages.parse_reply, messages.parse_advert):
            try:
                parse(untrusted_value)
            except MessageError as error:
                assert error.code == "bad_request"

    def test_the_argument_stays_out_of_repr_and_errors(self) -> None:
        assert "hunter2" not in repr(Request("password", "hunter2"))
        with pytest.raises(MessageError) as caught:
            messages.encode_request(Request("password", "hunter2" * 400))
        assert "hunter2" not in repr(caught.value) + str(caught.value)
        with pytest.raises(MessageError) as caught:
            messages.parse_request(b'{"name": "password", "value": "hunter2')
        assert caught.value.__suppress_context__ and "hunter2" not in repr(caught.value)

    def test_ids_are_fresh_uuids(self) -> None:
        identity = messages.new_request_id()
        assert str(uuid.UUID(identity)) == identity != messages.new_request_id()


class TestReplies:
    @pytest.mark.parametrize(
        ("returncode", "outcome", "code"),
        [
            ("0", Outcome.SUCCEEDED, ""),
            (0, Outcome.SUCCEEDED, ""),
            ("D0", Outcome.SUCCEEDED, ""),
            ("404", Outcome.UNSUPPORTED, "agent_unsupported"),
            (404, Outcome.UNSUPPORTED, "agent_unsupported"),
            ("500", Outcome.FAILED, "agent_error"),
            (1, Outcome.FAILED, "agent_error"),
            (-1, Outcome.FAILED, "agent_error"),
            ("", Outcome.FAILED, "agent_error"),
            ("00", Outcome.FAILED, "agent_error"),
            ("d0", Outcome.FAILED, "agent_error"),
        ],
    )
    def test_old_agents_tell_by_returncode_only(self, returncode: object, outcome: Outcome, code: str) -> None:
        reply = messages.parse_reply(dumped(returncode=returncode, message="text"))
        assert reply == Reply(str(returncode), "text", outcome, code)

    @pytest.mark.parametrize("ending", ["\\r\\n", "\r\n", "\n", "\r\n\r\n"])
    def test_the_line_break_of_windows_agents_is_dropped(self, ending: str) -> None:
        assert messages.parse_reply(dumped(returncode="0", message="1.0" + ending)).message == "1.0"

    def test_nothing_in_a_message_or_code_steers_a_terminal_or_begins_a_line(self) -> None:
        told = messages.parse_reply(dumped(returncode="500", message="a\nERROR\x1b[2J", code="agent_error"))
        assert told.message == "a ERROR [2J"
        for code in ("a\nb", "A", "a b", "x" * 65, "\x1b"):
            with pytest.raises(MessageError):
                messages.parse_reply(dumped(returncode="500", message="", code=code))

    @pytest.mark.parametrize(
        "value",
        [
            *NO_OBJECTS,
            b"{}",
            dumped(message="x"),
            dumped(returncode=None),
            dumped(returncode=True),
            dumped(returncode=0.0),
            dumped(returncode=["0"]),
            dumped(returncode="0", message=None),
            dumped(returncode="0", message=7),
            dumped(returncode="0", outcome="splendid"),
            dumped(returncode="0", outcome=["succeeded"]),
            dumped(returncode="0", outcome=True),
            dumped(returncode="500", outcome="failed", code=3),
        ],
    )
    def test_no_reply(self, value: bytes) -> None:
        with pytest.raises(MessageError):
            messages.parse_reply(value)

    @pytest.mark.parametrize("outcome", list(Outcome))
    @pytest.mark.parametrize("returncode", ["0", "D0", 0, "404", "500", 1])
    def test_contradictions_are_refused(self, outcome: Outcome, returncode: object) -> None:
        value = dumped(returncode=returncode, message="", outcome=str(outcome), code="a_code")
        if (outcome is Outcome.SUCCEEDED) == (returncode in ("0", "D0", 0)):
            assert messages.parse_reply(value) == Reply(str(returncode), "", outcome, "a_code")
        else:
            with pytest.raises(MessageError, match="contradict"):
                messages.parse_reply(value)

    @pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.SUCCEEDED])
    def test_an_error_travels_whole(self, outcome: Outcome) -> None:
        sent = unsuccessful(outcome, "some_code", "Some reason.")
        reply = messages.parse_reply(messages.encode_reply(messages.reply_to_error(sent)))
        with pytest.raises(type(sent)) as caught:
            reply.raise_unless_successful()
        assert (caught.value.code, caught.value.message, caught.value.outcome) == ("some_code", "Some reason.", outcome)

    def test_old_hosts_see_their_returncodes(self) -> None:
        assert messages.reply_to_error(Unsupported("a", "b")).returncode == "404"
        for error in (Refused("a", "b"), Failed("a", "b"), Unknown("a", "b")):
            assert messages.reply_to_error(error).returncode == "500"

    def test_a_success_raises_nothing_and_a_silent_failure_has_words(self) -> None:
        messages.parse_reply(dumped(returncode="0")).raise_unless_successful()
        with pytest.raises(Unsuccessful) as caught:
            messages.parse_reply(dumped(returncode="500", message="")).raise_unless_successful()
        assert (caught.value.code, str(caught.value)) == ("agent_error", "the agent gave no reason")

    @given(
        st.builds(lambda text, times: as_json_holds_it(text * times), ANY_TEXT, st.integers(0, 60)),
        st.sampled_from(["", "some_code"]),
    )
    def test_a_message_is_cut_to_fit(self, message: str, code: str) -> None:
        encoded = messages.encode_reply(Reply("500", message, Outcome.FAILED, code))
        assert len(encoded) <= messages.MAX_VALUE and encoded.isascii()
        members = json.loads(encoded)
        assert message.startswith(members.pop("message"))
        assert members == {"returncode": "500", "outcome": "failed", **({"code": code} if code else {})}

    @pytest.mark.parametrize("character", ["a", '"', "ä", "\U0001f511", "\ud800", "\0"])
    def test_little_more_is_cut_than_needed(self, character: str) -> None:
        encoded = messages.encode_reply(Reply("0", character * 5000, Outcome.SUCCEEDED))
        assert messages.MAX_VALUE - 12 < len(encoded) <= messages.MAX_VALUE
        fitting = json.loads(encoded)["message"]
        assert messages.encode_reply(Reply("0", fitting, Outcome.SUCCEEDED)) == encoded

    def test_what_cannot_fit_is_refused_rather_than_cut_for_ever(self) -> None:
        with pytest.raises(MessageError):
            messages.encode_reply(Reply("500", "text", Outcome.FAILED, "x" * 2000))

    @given(ANY_TEXT.filter(lambda text: len(text) < 100 and not text.endswith(("\r", "\n", "\\r\\n"))))
    def test_what_is_encoded_is_parsed(self, message: str) -> None:
        reply = Reply("0", message, Outcome.SUCCEEDED)
        shown = "".join(" " if unicodedata.category(character) == "Cc" else character for character in message)
        assert messages.parse_reply(messages.encode_reply(reply)) == Reply("0", shown, Outcome.SUCCEEDED)


class TestAdverts:
    def test_round_trip(self) -> None:
        advert = Advert("1.2", "boot", ("version", "password"))
        assert messages.parse_advert(messages.encode_advert(advert)) == advert

    @given(ANY_TEXT, ANY_TEXT, st.lists(ANY_TEXT, max_size=5))
    def test_it_fits_or_is_refused(self, version: str, boot_id: str, features: list[str]) -> None:
        advert = Advert(version, boot_id, tuple(features))
        try:
            encoded = messages.encode_advert(advert)
        except MessageError:
            assert len(json.dumps([version, boot_id, features])) > 1900
        else:
            assert len(encoded) <= messages.MAX_VALUE and encoded.isascii()
            assert messages.parse_advert(encoded) == advert

    @pytest.mark.parametrize(
        "value",
        [
            *NO_OBJECTS,
            b"{}",
            dumped(version="1", boot_id="b"),
            dumped(version=1, boot_id="b", features=[]),
            dumped(version="1", boot_id=None, features=[]),
            dumped(version="1", boot_id="b", features="password"),
            dumped(version="1", boot_id="b", features={"a": 1}),
            dumped(version="1", boot_id="b", features=["a", 1]),
        ],
    )
    def test_no_advert(self, value: bytes) -> None:
        with pytest.raises(MessageError):
            messages.parse_advert(value)


class TestPassword:
    @pytest.mark.parametrize("value", ["x", "x" * 256, "ä" * 128, "\U0001f511" * 64, " ", "a b", "'\"\\$`", "\u2028"])
    def test_allowed(self, value: str) -> None:
        assert Password(value).value == value

    @pytest.mark.parametrize(
        "value", ["", "x" * 257, "ä" * 128 + "x", "a\n", "\n", "a\rb", "a\0", "\x1b", "\x7f", "\x85", "\t", "\ud800x"]
    )
    def test_refused(self, value: str) -> None:
        with pytest.raises(Refused) as caught:
            Password(value)
        assert caught.value.code == "bad_password"

    def test_it_shows_nowhere(self) -> None:
        password = Password("hunter2")
        assert "hunter2" not in repr(password) + str(password) + f"{password}" + repr([password])
        for bad in ("hunter2\n", "hunter2" * 50, "hunter2\ud800"):
            with pytest.raises(Refused) as caught:
                Password(bad)
            assert "hunter2" not in repr(caught.value) + str(caught.value)
            assert caught.value.__cause__ is None and (
                caught.value.__context__ is None or caught.value.__suppress_context__
            )

    @given(ANY_TEXT)
    def test_any_text_is_a_password_or_refused(self, value: str) -> None:
        try:
            password = Password(value)
        except Refused:
            return
        assert 1 <= len(password.value.encode()) <= 256
        assert not messages.has_control_characters(value)


@pytest.mark.parametrize(("text", "expected"), [("", False), ("aä\u200b\u2029", False), ("a\x9f", True), ("\r", True)])
def test_control_characters(text: str, expected: bool) -> None:
    assert messages.has_control_characters(text) is expected
