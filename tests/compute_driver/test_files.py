from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from compute_driver.files import InjectedFile

FILES = st.builds(
    InjectedFile,
    path=st.text(),
    content=st.binary(max_size=300),
    mode=st.none() | st.integers(0, 0o7777),
    owner=st.none() | st.text(),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(FILES)
def test_a_file_crosses_a_bus_of_plain_data(file: InjectedFile) -> None:
    assert InjectedFile.from_dict(json.loads(json.dumps(file.to_dict()))) == file


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("path", "content", "mode", "owner", "more"), JSON)))
def test_anything_else_is_refused(untrusted: dict[str, Any]) -> None:
    try:
        file = InjectedFile.from_dict(untrusted)
    except Refused as error:
        assert error.code == "bad_file"
    else:
        assert isinstance(file.content, bytes)


@pytest.mark.parametrize("mode", [-1, 0o10000, True, "0644", 1.0])
def test_a_mode_is_a_number_of_four_octal_digits(mode: Any) -> None:
    with pytest.raises(Refused):
        InjectedFile.from_dict({"path": "/a", "content": "", "mode": mode})


def test_missing_mode_and_owner_are_left_to_the_guest() -> None:
    assert InjectedFile.from_dict({"path": "/a", "content": ""}) == InjectedFile("/a", b"")


def test_the_content_does_not_show() -> None:
    assert "hunter2" not in repr(InjectedFile("/etc/motd", b"hunter2"))
    assert "/etc/motd" in repr(InjectedFile("/etc/motd", b"hunter2"))
