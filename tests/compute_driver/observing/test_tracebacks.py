from __future__ import annotations

import errno
from typing import Any

import pytest

from agent_protocol.outcomes import Busy
from compute_driver.observing import tracebacks
from compute_driver.observing.tracebacks import told


def caught(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def tell(error: BaseException | None) -> list[dict[str, Any]]:
    return told(error, lambda text: text.replace("hunter22", "***"))


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("anything"), "ValueError", ""),
        (Busy("host_held", "held by hunter22"), "agent_protocol.outcomes.Busy", "held by *** (host_held)"),
        (OSError(errno.ECONNREFUSED, "x", "/anything"), "ConnectionRefusedError", "Connection refused"),
        (OSError("anything"), "OSError", ""),
        (UnicodeDecodeError("utf-8", b"anything", 0, 1, "x"), "UnicodeDecodeError", ""),
    ],
)
def test_the_text_is_told_of_harmless_kinds_only(error: Exception, kind: str, message: str) -> None:
    (found,) = tell(caught(error))
    assert (found["type"], found["message"]) == (kind, message)
    assert len(found["frames"]) == 1
    assert found["frames"][0].startswith(__file__)


def test_no_error_is_none() -> None:
    assert tell(None) == []


def test_a_cause_is_told_and_a_suppressed_context_is_not() -> None:
    def fail(suppressed: bool) -> None:
        try:
            raise KeyError("x")
        except KeyError:
            if suppressed:
                raise Busy("a", "b") from None
            raise Busy("a", "b")  # noqa: B904 - what is tested

    for suppressed, kinds in ((True, ["Busy"]), (False, ["Busy", "KeyError"])):
        with pytest.raises(Busy) as error:
            fail(suppressed)
        assert [it["type"].rpartition(".")[2] for it in tell(error.value)] == kinds


def test_a_long_chain_and_a_circle_end() -> None:
    error: Exception = ValueError()
    for _ in range(100):
        outer = ValueError()
        outer.__cause__ = error
        error = outer
    assert len(tell(error)) == tracebacks.MAX_ERRORS
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one
    assert [it["type"] for it in tell(one)] == ["ValueError", "KeyError"]


def test_of_deep_frames_the_innermost_are_told() -> None:
    def dig(depth: int) -> None:
        if depth == 0:
            raise ValueError
        dig(depth - 1)

    with pytest.raises(ValueError) as error:
        dig(200)
    frames = tell(error.value)[0]["frames"]
    assert len(frames) == tracebacks.MAX_FRAMES
    assert all(frame.endswith(" dig") for frame in frames)
