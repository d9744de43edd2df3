from __future__ import annotations

import pytest

from agent_protocol.outcomes import Refused
from guest_agent.system.accounts import PasswordHash, check_account_name


@pytest.mark.parametrize("name", ["root", "x", "ann@example.org", "DOMAIN\\ann", "ä" * 128])
def test_names_that_pass(name: str) -> None:
    assert check_account_name(name) == name


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "a\0", "ä" * 129, "\ud800"])
def test_names_that_would_break_a_file_are_refused(name: str) -> None:
    with pytest.raises(Refused) as caught:
        check_account_name(name)
    assert caught.value.code == "bad_user_name"


@pytest.mark.parametrize(
    "text",
    [
        "$6$salt$" + "a" * 86,
        "$6$rounds=656000$0123456789abcdef$" + "./" * 43,
        "$5$s$" + "Z" * 43,
        "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$" + "a" * 43,
        "$2b$12$" + "a" * 53,
    ],
)
def test_hashes(text: str) -> None:
    assert PasswordHash(text).value == text
    assert text not in repr(PasswordHash(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "!",
        "*",
        "$6$salt$" + "a" * 85,
        "$6$salt$" + "a" * 86 + "\n",
        "$6$salt$" + "a" * 86 + ":0",
        "!$6$salt$" + "a" * 86,
        "$6$$" + "a" * 86,
        "$6$rounds=1$salt$" + "a" * 86,
        "$1$salt$" + "a" * 22,
        "$2a$12$" + "a" * 53,
        "$2b$99$" + "a" * 53,
        "$y$j9T$" + "a" * 43,
        "$6$sült$" + "a" * 86,
        "$6$s:lt$" + "a" * 86,
    ],
)
def test_what_is_no_hash(text: str) -> None:
    with pytest.raises(Refused) as caught:
        PasswordHash(text)
    assert caught.value.code == "bad_hash"
    assert not text or text not in str(caught.value)
