from __future__ import annotations

import html
import json
import xmlrpc.client
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from oslo_config import cfg

from compute_driver.observing.redaction import MARK, Redactor, secrets_of, without_line_breaks

SECRETS = st.text(st.sampled_from("&<>\"'\\%+ *=\n\té€😀") | st.characters(), min_size=4, max_size=24)

WRITTEN = {
    "as it is": str,
    "repr": repr,
    "repr of a tuple": lambda text: repr((text, 'a "quoted" word', "it's")),
    "repr within quotes of both kinds": lambda text: repr(f'"it\'s" {text}'),
    "repr of a repr": lambda text: repr(repr(f"it's \"{text}")),
    "ascii": ascii,
    "bytes": lambda text: repr(text.encode("utf-8", "surrogatepass")),
    "JSON": json.dumps,
    "JSON as it is": lambda text: json.dumps({"x": text}, ensure_ascii=False),
    "JSON in JSON": lambda text: json.dumps({"x": json.dumps([text])}),
    "JSON's repr": lambda text: repr(json.dumps([text])),
    "of a URL": lambda text: quote(text.encode("utf-8", "surrogatepass"), safe=""),
    "of a path": lambda text: quote(text.encode("utf-8", "surrogatepass")),
    "of a form": lambda text: quote_plus(text.encode("utf-8", "surrogatepass")),
    "HTML": html.escape,
    "XML": xmlrpc.client.escape,
}


@pytest.mark.parametrize("how", WRITTEN)
@settings(max_examples=25, deadline=None)
@example(secret='it\'s "a" <b> & \\c\\', before="", after="")
@example(secret="zwölf €\n\t😀&", before="", after="")
@given(secret=SECRETS, before=st.text(max_size=20), after=st.text(max_size=20))
def test_a_secret_that_was_told_does_not_come_out_however_it_is_written(
    secret: str, before: str, after: str, how: str
) -> None:
    told = Redactor([secret])(before + WRITTEN[how](secret) + after)
    assert secret not in told
    assert WRITTEN[how](secret) not in told


@settings(deadline=None)
@given(secrets=st.lists(SECRETS, min_size=2, max_size=4), text=st.text(max_size=30))
def test_none_of_several_secrets_comes_out(secrets: list[str], text: str) -> None:
    told = Redactor(secrets)(text.join(secrets))
    assert not [secret for secret in secrets if secret in told]


@pytest.mark.parametrize("secret", ["****", "***x", "x***", "a***b"])
def test_a_secret_that_looks_like_the_mark_comes_to_an_end(secret: str) -> None:
    assert secret not in Redactor([secret])(f"**{secret}**{secret[:2]}{secret}{secret[2:]}")


def test_the_rest_stays() -> None:
    assert Redactor(["hunter22"])("for hunter22 and hunter22: done") == f"for {MARK} and {MARK}: done"
    text = "req-1 create 3f0c: succeeded in 1.250 s, at https://xenserver.example/jsonrpc (set_admin_password)"
    assert Redactor(["hunter22"])(text) == text


def test_one_that_begins_with_another_leaves_no_rest() -> None:
    assert Redactor(["hunter", "hunter-and-more"])("x hunter-and-more y") == f"x {MARK} y"


def test_no_rest_of_an_escape_is_left() -> None:
    assert Redactor(["<&>&"])("x &lt;&amp;&gt;&amp; y") == f"x {MARK} y"


def test_a_secret_is_looked_for_before_what_looks_like_one() -> None:
    assert Redactor(["correct horse battery"])("password=correct horse battery") == f"password={MARK}"


def test_what_is_taken_out_completes_no_secret() -> None:
    assert f"token={MARK}" not in Redactor([f"token={MARK}"])("token=abc")


def test_too_short_ones_are_counted_and_not_looked_for() -> None:
    redactor = Redactor()
    assert redactor.add(["", "abc", "abcd"]) == 1
    assert redactor("abc abcd") == f"abc {MARK}"


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter22",
        "password = 'hunter22'",
        "the PASSWORD: hunter22",
        "set_admin_password: new_pass=hunter22",
        '{"adminPass": "hunter22"}',
        r"{\"adminPass\": \"hunter22\"}",
        "{'admin_pass': 'hunter22', 'x': 1}",
        '{"password": "with \\" in it hunter22"}',
        "{'password': b'hunter22'}",
        "{'password': ['hunter22', 'hunter22']}",
        '{"secret": {"value": "hunter22"}}',
        "[('xenserver_password', 'hunter22')]",
        'set_admin_password({"set_admin_password": "hunter22"})',
        "connection to postgresql://xenward:hunter22@db:5432/xenward refused",
        "rabbit://u:hunter22@one:5672,v:hunter22@two:5672/",
        "amqp://:hunter22@broker/ is away",
        "mysql+pymysql://u:hunter22/@:x@db/x",
        "https://u:p@ss:hunter22@host/",
        "Authorization: Basic aHVudGVyMjI6aHVudGVyMjI=hunter22",
        "{'Authorization': 'Bearer hunter22'}",
        "sent Bearer abc.hunter22 to the host",
        "X-Auth-Token: hunter22",
        "GET /import?session_id=hunter22&x=1",
        "cookie: a=b;hunter22",
        "reply_key=hunter22",
        "INSERT INTO x\n[parameters: {'a': 'b', 'c': 'hunter22'}]\n(see hunter22)",
        "-----BEGIN PRIVATE KEY-----\nhunter22\n-----END PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter22",
    ],
)
def test_what_looks_like_a_secret_does_not_come_out(text: str) -> None:
    told = Redactor()(text)
    assert "hunter22" not in told
    assert MARK in told


@settings(deadline=None)
@given(
    user=st.text("abc.%-", max_size=6),
    password=st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=20),
)
def test_no_password_of_a_url_comes_out(user: str, password: str) -> None:
    assert Redactor()(f"to x://{user}:{password}@host/") == f"to x://{user}:{MARK}@host/"


@pytest.mark.parametrize("key", ["password", "adminPass", "new_pass", "chappassword", "token", "api_key", "secret"])
@settings(deadline=None)
@given(value=st.text())
def test_no_value_of_such_a_key_comes_out(key: str, value: str) -> None:
    assume(value not in ("", MARK))
    for made in (json.dumps({key: value}), repr({key: value}), f"{key}={value!r}"):
        told = Redactor()(made)
        assert told.replace("{", "").lstrip("\"'").startswith(key)
        assert told.partition(MARK)[2] in ("", "}")


def test_a_session_of_xenserver_does_not_come_out() -> None:
    reference = "3ea5c02b-5a2d-40f1-9c8e-0f5d4b3a2c1d"
    for text in (
        f"SESSION_INVALID: OpaqueRef:{reference}",
        f"/export?x=OpaqueRef%3a{reference}",
        f"OPAQUEREF:{reference}",
    ):
        told = Redactor()(text)
        assert reference not in told
        assert reference[-12:] not in told
    assert Redactor()("parent OpaqueRef:NULL") == "parent OpaqueRef:NULL"
    assert Redactor()(f"instance {reference}") == f"instance {reference}"


@pytest.mark.parametrize("action", ["set_admin_password", "generate_admin_password"])
def test_the_name_of_an_operation_is_no_assignment(action: str) -> None:
    for text in (
        f"{action}: internal error: KeyError",
        f"req-1 {action} 3f0c: busy",
        f"{action}/set_admin_password ok",
    ):
        assert Redactor()(text) == text


@pytest.mark.parametrize(
    "piece", ["://", "x://:@", "password", "token ", "secret=", '"', "\\", "OpaqueRef:", "Bearer "]
)
def test_long_texts_take_no_long_time(piece: str) -> None:
    # With the test's own limit of time: what takes quadratic time here takes minutes.
    Redactor(["hunter22", "\\\\\\\\\\\\x", "a'\"b"])(piece * (300_000 // len(piece)))


class TestSecretsOfAConfiguration:
    OPTIONS = [
        (None, [cfg.StrOpt("transport_url", secret=True), cfg.StrOpt("host", default="a-host")]),
        ("database", [cfg.StrOpt("connection", secret=True)]),
        ("xenserver", [cfg.StrOpt("password", secret=True), cfg.StrOpt("url", default="https://x")]),
        ("many", [cfg.ListOpt("tokens", secret=True)]),
    ]

    def configured(self, **values: Any) -> cfg.ConfigOpts:
        conf = cfg.ConfigOpts()
        for group, options in self.OPTIONS:
            conf.register_opts(options, group=group)
        conf([])
        for name, value in values.items():
            group, _, option = name.rpartition("__")
            conf.set_override(option, value, group=group or None)
        return conf

    def test_they_are_the_values_of_secret_options(self) -> None:
        conf = self.configured(xenserver__password="it's one://of mine", many__tokens=["first", "second"])
        assert secrets_of(conf, self.OPTIONS) == {"it's one://of mine", "first", "second"}

    def test_of_a_url_they_are_its_passwords_as_written_and_as_meant(self) -> None:
        conf = self.configured(
            transport_url="rabbit://u:one%2Ftwo@h1:5672,v:three@h2:5672/vhost?ssl_password=four",
            database__connection="mysql+pymysql://u:p@ss+word@db/x",
        )
        found = secrets_of(conf, self.OPTIONS)
        assert {"one%2Ftwo", "one/two", "three", "four", "p@ss+word", "p@ss word"} <= found
        assert not {"u", "v", "h1", "rabbit", "vhost"} & found

    def test_what_is_not_there_is_no_secret(self) -> None:
        assert secrets_of(self.configured(database__connection="sqlite:////x.sqlite"), self.OPTIONS) == frozenset()
        assert secrets_of(cfg.ConfigOpts(), self.OPTIONS) == frozenset()


@settings(deadline=None)
@given(st.text())
def test_one_line_stays_one(text: str) -> None:
    told = without_line_breaks(text)
    assert told.isprintable()
    assert len(told.splitlines()) <= 1
    if text.isprintable():
        assert told == text


def test_what_does_not_print_is_seen() -> None:
    assert without_line_breaks("a\r\nb\x1b[2J\u2028\u202e\x00\x85\ud800") == (
        "a\\r\\nb\\x1b[2J\\u2028\\u202e\\x00\\x85\\ud800"
    )
