from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from guest_agent.configuration import DEFAULT_STORE, Configuration, parse_configuration, read_configuration

from .standin_system import StandinSystem


def test_none_means_the_defaults() -> None:
    assert read_configuration(StandinSystem()) == Configuration() == parse_configuration(b"")
    assert Configuration().store == DEFAULT_STORE == "xenbus"


def test_it_is_the_systems() -> None:
    system = StandinSystem()
    system.configuration = b"[agent]\r\nstore = wmi\r\nblock = ping,\r\n  file_put\r\n"
    assert read_configuration(system) == Configuration("wmi", frozenset({"ping", "file_put"}))


def test_the_mark_that_editors_of_windows_put_in_front() -> None:
    assert parse_configuration(b"\xef\xbb\xbf[agent]\nstore = wmi\n").store == "wmi"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[agnet]\n", "there is no section [agnet]"),
        (b"[agent]\nx = 1\n", "[agent] has no option x"),
        (b"\xff", "it is not UTF-8"),
        (b"\xff\xfe[\0a\0", "it is not UTF-8"),
        (b"[network]\nstack = x\n", "[network] stack must be one of auto, netplan"),
        (b"[cloud-init]\nssh_keys = x\n", "[cloud-init] ssh_keys must be one of share, refuse"),
        (b"[update]\nkey = !\n", "[update] key is not base64"),
        (b"[update]\nkey = AAAA\n", "[update] key must have 32 bytes"),
    ],
)
def test_what_is_wrong_is_told_with_the_files_name(content: bytes, words: str) -> None:
    system = StandinSystem()
    system.configuration = content
    with pytest.raises(Refused) as raised:
        read_configuration(system)
    assert raised.value.code == "bad_configuration"
    assert str(raised.value).startswith(f"{system.configuration_name}: {words}")


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_anything_is_understood_or_refused(content: bytes) -> None:
    try:
        parse_configuration(content, "name")
    except Refused as error:
        assert error.code == "bad_configuration"
