from __future__ import annotations

import pytest

from agent_protocol.outcomes import Refused
from guest_agent.system.base import check_account_name


@pytest.mark.parametrize("name", ["root", "x", "ann@example.org", "DOMAIN\\ann", "ä" * 128])
def test_names_that_pass(name: str) -> None:
    assert check_account_name(name) == name


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "a\0", "ä" * 129, "\ud800"])
def test_names_that_would_break_a_file_are_refused(name: str) -> None:
    with pytest.raises(Refused) as caught:
        check_account_name(name)
    assert caught.value.code == "bad_user_name"
