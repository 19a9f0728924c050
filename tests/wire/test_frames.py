"""Frames: cut from a stream in whatever pieces it comes, up to the limit and not one octet further."""

from __future__ import annotations

import pytest

from compass.wire.frames import HEADER_LENGTH, FrameReader, FrameTooLong, frame
from tests.wire.link import pieces

LIMIT = 100


def test_a_frame_is_two_integers_in_network_order_and_the_body() -> None:
    """Length, request number, body: opengnsp.md, "Framing"."""
    assert frame(b"abc", 0x01020304) == b"\0\0\0\3\1\2\3\4abc"
    assert frame(b"") == b"\0" * HEADER_LENGTH


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 1000])
def test_frames_are_cut_alike_from_all_pieces(size: int) -> None:
    """Three frames, one of them empty: the same three, whatever the pieces."""
    stream = frame(b"one", 1) + frame(b"", 2) + frame(b"three", 3)
    reader = FrameReader(LIMIT)
    cut = [found for part in pieces(stream, size) for found in reader.feed(part)]
    assert cut == [(1, b"one"), (2, b""), (3, b"three")]
    assert reader.held == 0


def test_a_body_of_the_limit_is_taken_and_one_octet_more_is_not() -> None:
    """n and n + 1; the longer one is refused by its header, before its body has come."""
    reader = FrameReader(LIMIT)
    assert list(reader.feed(frame(b"x" * LIMIT))) == [(0, b"x" * LIMIT)]
    with pytest.raises(FrameTooLong, match="101 octets; at most 100"):
        list(reader.feed(frame(b"x" * (LIMIT + 1))[:HEADER_LENGTH]))


def test_what_came_before_a_frame_too_long_is_not_lost() -> None:
    """The good frame counts even if the bad one comes in the same piece."""
    cut = FrameReader(LIMIT).feed(frame(b"good", 1) + b"\xff" * HEADER_LENGTH)
    assert next(cut) == (1, b"good")
    with pytest.raises(FrameTooLong):
        next(cut)


def test_an_unfinished_frame_is_held_and_told() -> None:
    """At the end of a stream, `held` distinguishes a cut frame from a clean end."""
    reader = FrameReader(LIMIT)
    assert list(reader.feed(frame(b"abc")[:-1])) == []
    assert reader.held == HEADER_LENGTH + 2
