"""Keeping secrets out of text: the last line of defence of what a process logs or answers to anybody.

The first one is that nobody puts a secret into a message. Libraries do not know what is secret here.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

from oslo_config import cfg

MARK = "***"
"""Stands where something was taken out."""

LEAST_LENGTH = 4
"""Characters that a secret must have to be looked for. It is more than MARK has, so that each replacement makes a text
shorter, and replacing comes to an end."""

_ESCAPES = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}

_WORD = (
    r"(?:passw(?:or)?d|passwd|passphrase|pwd|secret|admin_?pass|new_pass|token|api_?key|access_?key|private_?key"
    r"|reply_?key|authorization|credentials?|cookie|session_?id)"
)
_QUOTED = r"""[bBuU]?(?:"(?:[^"\\]|\\.)*(?:"|\Z)|'(?:[^'\\]|\\.)*(?:'|\Z)|\\+".*?(?:\\+"|\Z))"""
_BRACKETED = r"[\[({].*"
"""A value with parts of its own: nobody knows here where it ends, so nothing after it is kept."""

_ASSIGNMENT = re.compile(
    # An operation's own name before a colon, as in `set_admin_password: busy`, is no assignment.
    r"(?!(?:(?<=set_)|(?<=generate_))admin_password:)(?!(?:(?<=set_admin_)|(?<=generate_admin_))password:)"
    rf"(?P<key>{_WORD}[\w.-]{{0,40}}"
    rf"(?:\\*[\"']\s{{0,9}}[:=,]|\s{{0,40}}[:=])[^\S\n]{{0,9}})"
    rf"(?P<value>{_QUOTED}|{_BRACKETED}|(?:(?:basic|bearer|digest|negotiate)[^\S\n]+)?[^\s]+)",
    re.IGNORECASE | re.DOTALL,
)

_PATTERNS = (
    (re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)", re.DOTALL), MARK),
    # What SQLAlchemy shows of a statement that failed: the values of a row.
    (re.compile(r"\[parameters: .*", re.DOTALL), f"[parameters: {MARK}]"),
    # A session's reference is as good as a password, and looks like that of any other object.
    (re.compile(r"(OpaqueRef(?::|%3A))(?!NULL\b)[\w-]+", re.IGNORECASE), rf"\1{MARK}"),
    (_ASSIGNMENT, rf"\g<key>{MARK}"),
    (re.compile(r"\b(Basic|Bearer)(\s+)[A-Za-z0-9+/=._~-]{8,}"), rf"\1\2{MARK}"),
)

_RUN = re.compile(r"\S+")


class Redactor:
    """Takes out the secrets that it was told, however they are quoted or escaped, and whatever looks like one.

    Its methods can be called from any thread.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: frozenset[str] = frozenset()
        self._expression: re.Pattern[str] | None = None
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> int:
        """Look for these as well. Gives how many are too short (LEAST_LENGTH) to be looked for; empty ones are none."""
        wanted = {secret for secret in secrets if secret}
        long_enough = {secret for secret in wanted if len(secret) >= LEAST_LENGTH}
        self._secrets |= long_enough
        # The longest first: one secret may begin with another.
        ordered = sorted(self._secrets, key=lambda secret: (-len(secret), secret))
        self._expression = re.compile("|".join(map(_however_written, ordered))) if ordered else None
        return len(wanted - long_enough)

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        # Before the patterns, which could take a part of a secret and leave the rest unrecognizable.
        text = self.without_known(text)
        if "://" in text:
            text = _RUN.sub(_without_userinfo, text)
        for expression, replacement in _PATTERNS:
            text = expression.sub(replacement, text)
        return self.without_known(text)

    def without_known(self, text: str) -> str:
        """The text without the secrets that were told, whatever else it holds."""
        expression = self._expression
        # Again, because a secret may hold MARK, so that a replacement completes one.
        while expression is not None and expression.search(text):
            text = expression.sub(MARK, text)
        return text


def secrets_of(conf: Any, options: Iterable[tuple[str | None, Iterable[cfg.Opt]]]) -> frozenset[str]:
    """The values of those options of `conf` that are marked as secret; of a URL, its passwords only.

    options: groups and their options, as the `list_opts` functions of oslo.config's users give them. What is not
    registered is passed over.
    """
    found: set[str] = set()
    for group, members in options:
        for option in members:
            if not option.secret:
                continue
            try:
                value = (conf if group in (None, "DEFAULT") else conf[group])[option.dest]
            except (cfg.NoSuchOptError, cfg.NoSuchGroupError, KeyError):
                continue
            is_url = option.dest == "connection" or "url" in option.dest
            for text in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(text, str):
                    found |= _passwords_in(text) if is_url else {text}
    return frozenset(found - {""})


def _passwords_in(url: str) -> set[str]:
    address, _, query = url.partition("://")[2].partition("?")
    # oslo.messaging takes several brokers, user:password@host,user:password@host.
    coded = set(re.findall(r"(?:\A|,)[^:/@,]*:([^@]*)@", address))
    # One that nobody encoded may hold `@`.
    coded |= set(re.findall(r"\A[^:/@,]*:(.*)@", address))
    coded |= set(re.findall(r"(?:\A|&)[^=&]*(?:pass|pwd|secret|token)[^=&]*=([^&]*)", query, re.IGNORECASE))
    return coded | {unquote(it) for it in coded} | {unquote_plus(it) for it in coded}


def _however_written(secret: str) -> str:
    """An expression that matches a secret as it is, as repr() and JSON escape it, and in URLs, HTML and XML."""
    expression = ""
    for character, run in itertools.groupby(secret):
        count = len(list(run))
        if character == "\\":
            # One expression for a run: many in a row would be tried in every combination.
            expression += rf"(?:\\{{{count},{8 * count}}}|(?i:%5c|&\#92;|&\#x5c;){{{count}}})"
        else:
            expression += f"(?:{'|'.join(_ways(character))})" * count
    return expression


def _ways(character: str) -> list[str]:
    code = ord(character)
    encoded = character.encode("utf-8", "surrogatepass")
    coded = {re.escape(quote(encoded, safe="")), "".join(f"%{byte:02X}" for byte in encoded)}
    ways = {re.escape(character), re.escape(html.escape(character)), rf"&\#0*{code};", rf"&\#x0*(?i:{code:x});"}
    ways |= {f"(?i:{it})" for it in coded}
    if character in "\"'":
        # What was quoted may have been quoted again.
        ways.add(r"\\{1,8}" + character)
    if not 32 <= code < 127:
        ways.add(r"\\{1,8}" + rf"U0*(?i:{code:x})")
        if code <= 0xFF:
            ways.add(r"\\{1,8}" + rf"x(?i:{code:02x})")
        if code in range(0x10000):
            ways.add(r"\\{1,8}" + rf"u(?i:{code:04x})")
        else:
            pair = character.encode("utf-16-be")
            high, low = pair[:2].hex(), pair[2:].hex()
            ways.add(r"\\{1,8}" + rf"u(?i:{high})" + r"\\{1,8}" + rf"u(?i:{low})")
        if code > 127:
            ways.add("".join(r"\\{1,8}" + rf"x(?i:{byte:02x})" for byte in encoded))
        if character in _ESCAPES:
            ways.add(r"\\{1,8}" + _ESCAPES[character])
    if character == " ":
        ways.add(r"\+")
    # The longest first: `&` is also the beginning of `&amp;`.
    return sorted(ways, key=lambda way: (-len(way), way))


def _without_userinfo(run: re.Match[str]) -> str:
    # As much as could be a password: one that nobody encoded may hold `/` and `@`.
    text = run[0]
    start = text.find("://")
    end = text.rfind("@")
    colon = text.find(":", start + 3, end) if 0 <= start < end else -1
    return text if colon < 0 else f"{text[: colon + 1]}{MARK}{text[end:]}"


def without_line_breaks(text: str) -> str:
    """The text with everything escaped that does not print: line breaks, terminals' commands, marks of direction."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
