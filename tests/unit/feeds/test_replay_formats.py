"""Subtitles, GoPro's telemetry, tables and MCAP files, with their difficult cases."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from streamer.events import TEXT, Transcript
from streamer.feeds.replay import speech
from streamer.feeds.replay.speech import Cue
from tests.recordings import by_row, events, texts

S_US = 1_000_000

# subtitles


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("<i>go</i> <b>left</b>", "go left"),
        ("{\\an8}up here", "up here"),
        ("<v Mary>Hello <c.loud>there</c> &amp; you", "Hello there & you"),
        ("two\nlines\\Nand three", "two lines and three"),
        ("one <00:00:01.500>two", "one two"),
        ('<font color="#ff0000">red</font>', "red"),
        ("3 < 5 and 7 > 2", "3 < 5 and 7 > 2"),
        ("{\\p1}m 0 0 l 100 0", ""),
    ],
)
def test_markup_is_taken_out_of_subtitles(marked: str, plain: str) -> None:
    assert speech.plain(marked) == plain


def test_subtitle_files_are_sent_alone_too(tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text("WEBVTT\n\nNOTE x\n\n00:01.000 --> 00:02.000 align:start\n<v Ann>hello\n")
    (tmp_path / "b.srt").write_bytes("\ufeff1\r\n00:00:01,000 --> 00:00:02,000\r\nhëllo\r\n".encode())
    assert texts(by_row(events(tmp_path / "a.vtt"))[TEXT]) == ["hello"]
    assert texts(by_row(events(tmp_path / "b.srt"))[TEXT]) == ["hëllo"]


def test_a_long_subtitle_is_cut_into_pieces_that_tile_it_and_keep_every_word() -> None:
    text = "the quick brown fox jumps over the lazy dog and runs away from a very old bear"
    found = list(speech.pieces(Cue(S_US, 9 * S_US, text)))
    assert " ".join(piece.text for piece in found) == text
    assert (found[0].start_us, found[-1].end_us) == (S_US, 9 * S_US)
    assert all(a.end_us == b.start_us for a, b in pairwise(found))
    assert max(piece.end_us - piece.start_us for piece in found) <= speech.LONGEST_US
    assert not any(piece.words for piece in found)  # an estimate is no measurement


def test_a_single_word_that_stands_long_is_repeated_as_long_as_it_stands() -> None:
    found = list(speech.pieces(Cue(0, 90 * S_US, "[music]")))
    assert {piece.text for piece in found} == {"[music]"}
    assert len(found) == 60


def test_subtitles_that_overlap_are_sent_as_they_end() -> None:
    cues = [Cue(0, 1_400_000, "long"), Cue(200_000, 500_000, "short"), Cue(1_000_000, 1_200_000, "middle")]
    sent = [msgspec.json.decode(r.payload, type=Transcript).text for r in speech.transcripts(cues, 2 * S_US)]
    assert sent == ["short", "middle", "long"]


def test_subtitles_end_with_the_recording() -> None:
    (sent,) = speech.transcripts([Cue(0, S_US, "in"), Cue(3 * S_US, 4 * S_US, "after")], 500_000)
    assert (sent.time_us, sent.due_us) == (0, 500_000)
