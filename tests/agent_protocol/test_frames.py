"""Texts in frames: what is split is joined, and nothing else comes out whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.frames import FRAME_SIZE, MAX_SIZE, FramesInfo, Joiner, split
from agent_protocol.messages import MessageError
from agent_protocol.outcomes import Refused
from agent_protocol.strict import Members

SUM = "0" * 64


def text_of(size: int) -> str:
    return "".join(chr(33 + (index * 7 + index // 90) % 90) for index in range(size))


TEXTS = (st.integers(1, 4 * FRAME_SIZE) | st.sampled_from([1900, 1901, 3799, 3800, 3801])).map(text_of)


def join(info: FramesInfo, frames: list[str]) -> str:
    joiner = Joiner(info)
    for frame in frames:
        joiner.feed(frame)
    return joiner.text()


@given(TEXTS)
def test_what_is_split_is_joined(text: str) -> None:
    frames, info = split(text), FramesInfo.of(text)
    assert len(frames) == info.count and info.size == len(text)
    assert all(len(frame) == FRAME_SIZE == 1900 for frame in frames[:-1]) and 1 <= len(frames[-1]) <= FRAME_SIZE
    assert FramesInfo.parse(Members(info.members(), "frames")) == info
    assert join(info, frames) == text


def test_the_largest_text() -> None:
    text = "x" * MAX_SIZE
    assert join(FramesInfo.of(text), split(text)) == text
    with pytest.raises(MessageError):
        FramesInfo.of(text + "x")


@given(TEXTS, st.data())
def test_what_was_changed_is_refused(text: str, data: st.DataObject) -> None:
    frames, info = split(text), FramesInfo.of(text)
    number = data.draw(st.integers(0, len(frames) - 1))
    position = data.draw(st.integers(0, len(frames[number]) - 1))
    frame = frames[number]
    changed = data.draw(
        st.sampled_from(
            [
                frame[:position] + " " + frame[position + 1 :],
                frame[:position] + "é" + frame[position + 1 :],
                frame[:position] + "\ud800" + frame[position + 1 :],
                frame[:position] + frame[position + 1 :],
                frame + "x",
                "",
            ]
        )
    )
    with pytest.raises(Refused) as caught:
        join(info, [*frames[:number], changed, *frames[number + 1 :]])
    assert caught.value.code == "frames_corrupt"


def test_order_counts() -> None:
    frames, info = split(text_of(3 * FRAME_SIZE)), FramesInfo.of(text_of(3 * FRAME_SIZE))
    with pytest.raises(Refused, match="announced"):
        join(info, [frames[1], frames[0], frames[2]])


def test_one_frame_missing_and_one_too_many() -> None:
    text = text_of(FRAME_SIZE + 5)
    joiner = Joiner(FramesInfo.of(text))
    joiner.feed(text[:FRAME_SIZE])
    assert (joiner.complete, joiner.next_index) == (False, 1)
    with pytest.raises(Refused) as caught:
        joiner.text()
    assert caught.value.code == "frames_incomplete"
    joiner.feed(text[FRAME_SIZE:])
    assert (joiner.complete, joiner.next_index) == (True, 2)
    with pytest.raises(Refused) as caught:
        joiner.feed("x" * FRAME_SIZE)
    assert caught.value.code == "frames_corrupt"
    assert joiner.text() == text


@pytest.mark.parametrize("lengths", [[1899], [1901], [0], [1900, 4], [1900, 6], [1900, 1900]])
def test_a_wrong_length_is_refused_when_it_comes(lengths: list[int]) -> None:
    joiner = Joiner(FramesInfo.of(text_of(FRAME_SIZE + 5)))
    for length in lengths[:-1]:
        joiner.feed("x" * length)
    with pytest.raises(Refused) as caught:
        joiner.feed("x" * lengths[-1])
    assert caught.value.code == "frames_corrupt"


@pytest.mark.parametrize(
    ("count", "size", "checksum"),
    [
        (0, 0, SUM),
        (1, 0, SUM),
        (2, 1900, SUM),
        (1, 1901, SUM),
        (0, 1, SUM),
        (2208, MAX_SIZE + 1, SUM),
        (1, 1, "0" * 63),
        (1, 1, "0" * 65),
        (1, 1, "A" * 64),
        (1, 1, SUM + "\n"),
        (1, 1, None),
        (1, True, SUM),
        (1.0, 1, SUM),
        ("1", 1, SUM),
        (None, 1, SUM),
        (-1, -1900, SUM),
        (1, 10**19, SUM),
    ],
)
def test_announcements_that_cannot_be(count: object, size: object, checksum: object) -> None:
    with pytest.raises(MessageError):
        FramesInfo.parse(Members({"count": count, "size": size, "sha256": checksum}, "frames"))
