"""Subtitles and their difficult cases: each word once, at its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import av
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.errors import UsageError
from streamer.events import TEXT, Transcript
from streamer.feeds import replay
from streamer.feeds.replay import speech
from streamer.feeds.replay.speech import Cue, cue, markup
from streamer.feeds.replay.speech.markup import Shown
from streamer.feeds.replay.speech.once import once
from tests.recordings import SUBTITLE_STYLES, by_row, events, film, spans, texts, wav

S_US = 1_000_000
MS_US = 1000


def words_of(*paths: Path) -> list[tuple[str, float, float]]:
    """Word, start and end in seconds, of every word that is sent with a time."""
    found = []
    for event, (start, _) in zip(said := by_row(events(*paths))[TEXT], spans(said), strict=True):
        assert isinstance(event.body, Transcript)
        found += [(w.text, round(start + w.start, 3), round(start + w.end, 3)) for w in event.body.words]
    return found


# markup and pieces


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
    assert markup.plain(marked) == plain


def test_subtitle_files_are_sent_alone_too(tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text("WEBVTT\n\nNOTE x\n\n00:01.000 --> 00:02.000 align:start\n<v Ann>hello\n")
    (tmp_path / "b.srt").write_bytes("\ufeff1\r\n00:00:01,000 --> 00:00:02,000\r\nhëllo\r\n".encode())
    assert texts(by_row(events(tmp_path / "a.vtt"))[TEXT]) == ["hello"]
    assert texts(by_row(events(tmp_path / "b.srt"))[TEXT]) == ["hëllo"]


def test_a_long_subtitle_is_cut_into_pieces_that_tile_it_and_keep_every_word() -> None:
    text = "the quick brown fox jumps over the lazy dog and runs away from a very old bear"
    found = list(cue.pieces(Cue(S_US, 9 * S_US, text)))
    assert " ".join(piece.text for piece in found) == text
    assert (found[0].start_us, found[-1].end_us) == (S_US, 9 * S_US)
    assert all(a.end_us == b.start_us for a, b in pairwise(found))
    assert max(piece.end_us - piece.start_us for piece in found) <= cue.LONGEST_US
    assert not any(piece.words for piece in found)  # an estimate is no measurement


def test_a_single_word_that_stands_long_is_repeated_as_long_as_it_stands() -> None:
    found = list(cue.pieces(Cue(0, 90 * S_US, "[music]")))
    assert {piece.text for piece in found} == {"[music]"}
    assert len(found) == 60


def test_subtitles_that_overlap_are_sent_as_they_end() -> None:
    cues = [Cue(0, 1_400_000, "long"), Cue(200_000, 500_000, "short"), Cue(1_000_000, 1_200_000, "middle")]
    sent = [msgspec.json.decode(r.payload, type=Transcript).text for r in speech.transcripts(cues, 2 * S_US)]
    assert sent == ["short", "middle", "long"]


def test_subtitles_end_with_the_recording() -> None:
    (sent,) = speech.transcripts([Cue(0, S_US, "in"), Cue(3 * S_US, 4 * S_US, "after")], 500_000)
    assert (sent.time_us, sent.due_us) == (0, 500_000)


# files


NBSP = "\N{NO-BREAK SPACE}"  # of a line that is still empty
ROLLING = f"""WEBVTT
Kind: captions
Language: en

00:00:01.000 --> 00:00:02.490 align:start position:0%
{NBSP}
please<00:00:01.400><c> turn</c><00:00:01.900><c> left</c>

00:00:02.490 --> 00:00:02.500 align:start position:0%
please turn left
{NBSP}

00:00:02.500 --> 00:00:04.000 align:start position:0%
please turn left
then<00:00:02.900><c> stop</c><00:00:03.400><c> here</c>

00:00:04.000 --> 00:00:04.010 align:start position:0%
then stop here
{NBSP}
"""


def test_rolling_captions_give_each_word_once_at_its_time(tmp_path: Path) -> None:
    (tmp_path / "rolling.vtt").write_text(ROLLING)
    assert words_of(tmp_path / "rolling.vtt") == [
        ("please", 1.0, 1.4),
        ("turn", 1.4, 1.9),
        ("left", 1.9, 2.49),
        ("then", 2.5, 2.9),
        ("stop", 2.9, 3.4),
        ("here", 3.4, 4.0),
    ]


def test_rolling_captions_without_times_of_words_give_each_phrase_once(tmp_path: Path) -> None:
    (tmp_path / "rolling.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,490\nplease turn left\n\n"
        "2\n00:00:02,490 --> 00:00:02,500\nplease turn left\n\n"
        "3\n00:00:02,500 --> 00:00:04,000\nplease turn left\nthen stop here\n\n"
        "4\n00:00:04,000 --> 00:00:04,010\nthen stop here\n"
    )
    said = by_row(events(tmp_path / "rolling.srt"))[TEXT]
    assert texts(said) == ["please turn left", "then stop here"]
    assert spans(said) == [(1.0, 2.49), (2.5, 4.0)]


@pytest.mark.parametrize("ending", ["srt", "vtt"])
def test_the_highlighted_word_is_said_while_it_is_highlighted(ending: str, tmp_path: Path) -> None:
    times = [(1.0, 1.5, "<u>no</u> no left"), (1.5, 1.8, "no no left"), (1.8, 2.0, "no <u>no</u> left")]
    times += [(2.0, 2.4, "no no <u>left</u>")]
    header, sign = ("WEBVTT\n\n", ".") if ending == "vtt" else ("", ",")
    shown = [f"00:00:{a:06.3f} --> 00:00:{b:06.3f}".replace(".", sign) + f"\n{text}\n" for a, b, text in times]
    (tmp_path / f"talk.{ending}").write_text(header + "\n".join(shown))
    assert words_of(tmp_path / f"talk.{ending}") == [("no", 1.0, 1.5), ("no", 1.8, 2.0), ("left", 2.0, 2.4)]
    assert texts(by_row(events(tmp_path / f"talk.{ending}"))[TEXT]) == ["no no left"]


def test_words_beside_a_sound_file_are_read_from_the_richest_file_alone(tmp_path: Path) -> None:
    wav(tmp_path / "talk.wav", seconds=3)
    word = '{"word": "%s", "start": %s, "end": %s}'
    words = ", ".join([word % (" Turn", 0.2, 0.6), word % (" left.", 0.6, 1.0)])
    (tmp_path / "talk.json").write_text(
        f'{{"segments": [{{"start": 0.2, "end": 1.0, "text": " Turn left.", "words": [{words}]}}], "language": "en"}}'
    )
    (tmp_path / "talk.srt").write_text("1\n00:00:00,200 --> 00:00:01,000\nTurn left.\n")
    expected = [("Turn", 0.2, 0.6), ("left.", 0.6, 1.0)]
    assert words_of(tmp_path / "talk.wav") == expected
    assert words_of(tmp_path / "talk.json") == expected
    assert words_of(*sorted(tmp_path.iterdir())) == expected
    assert "talk.srt is not sent, since talk.json is" in replay.open_all([tmp_path / "talk.wav"]).notes[0]


def test_json_of_another_kind_is_passed_over_for_the_subtitles_beside_it(tmp_path: Path) -> None:
    wav(tmp_path / "talk.wav", seconds=3)
    (tmp_path / "talk.json").write_text('{"camera": "front", "takes": [1, 2]}')
    (tmp_path / "talk.srt").write_text("1\n00:00:00,200 --> 00:00:01,000\nTurn left.\n")
    recording = replay.open_all([tmp_path / "talk.wav"])
    assert texts(by_row(events(recording=recording))[TEXT]) == ["Turn left."]
    assert recording.notes == [
        f"{tmp_path / 'talk.json'}: it is JSON of no recogniser that is known; it is passed over"
    ]
    with pytest.raises(UsageError, match="holds no words"):
        replay.open_all([tmp_path / "talk.json"])


@pytest.mark.parametrize("name", ["film.srt", "film.SRT", "film.en.srt", "film.en-US.forced.vtt", "film.mp4.srt"])
def test_subtitles_are_found_under_the_names_that_players_use(name: str, tmp_path: Path) -> None:
    film(tmp_path / "film.mp4")
    header = "WEBVTT\n\n" if name.endswith("vtt") else ""
    (tmp_path / name).write_text(f"{header}00:00:00.500 --> 00:00:01.000\nhello\n")
    (said,) = by_row(events(tmp_path / "film.mp4"))[TEXT]
    assert isinstance(said.body, Transcript)
    assert said.body.text == "hello"
    assert said.body.language == {"film.en.srt": "en", "film.en-US.forced.vtt": "en-us"}.get(name)


def test_of_subtitles_in_several_languages_the_ones_that_were_named_are_sent(tmp_path: Path) -> None:
    film(tmp_path / "film.mp4")
    for language, text in (("de", "hallo"), ("en", "hello")):
        (tmp_path / f"film.{language}.srt").write_text(f"1\n00:00:00,500 --> 00:00:01,000\n{text}\n")
    assert texts(by_row(events(tmp_path / "film.mp4"))[TEXT]) == ["hallo"]
    assert texts(by_row(events(tmp_path / "film.mp4", tmp_path / "film.en.srt"))[TEXT]) == ["hello"]


# the same words in every style of captions


class Word(NamedTuple):
    text: str
    start_ms: int
    end_ms: int


@st.composite
def scripts(draw: st.DrawFn) -> list[list[Word]]:
    """Phrases of words that follow on each other; each phrase begins a while after the one before. Words repeat."""
    at_ms, phrases = draw(st.integers(0, 2000)), []
    for said in draw(st.lists(st.lists(st.sampled_from(["no", "go", "left"]), min_size=2, max_size=5), min_size=1)):
        phrase = []
        for text in said:
            length_ms = draw(st.integers(120, 900))
            phrase.append(Word(text, at_ms, at_ms + length_ms))
            at_ms += length_ms
        phrases.append(phrase)
        at_ms += draw(st.sampled_from([10, 500, 3000]))
    return phrases


def shown(start_ms: int, end_ms: int, text: str, ass: bool = False) -> Shown:
    return Shown(start_ms * MS_US, end_ms * MS_US, text, ass)


def stamp(at_ms: int) -> str:
    return f"<00:{at_ms // 60000:02d}:{at_ms // 1000 % 60:02d}.{at_ms % 1000:03d}>"


def rolling(phrases: list[list[Word]]) -> Iterator[Shown]:
    """As YouTube's recogniser: the line before above, then a moment with the new line alone."""
    before = " "
    for number, phrase in enumerate(phrases):
        first, *others = phrase
        line = first.text + "".join(f"{stamp(word.start_ms)}<c> {word.text}</c>" for word in others)
        yield shown(first.start_ms, phrase[-1].end_ms, f"{before}\n{line}")
        before = " ".join(word.text for word in phrase)
        yield shown(phrase[-1].end_ms, phrase[-1].end_ms + 10, f"{before}\n ")
        if number + 1 < len(phrases) and phrases[number + 1][0].start_ms > phrase[-1].end_ms + 10:
            before = " "


def highlighted(phrases: list[list[Word]]) -> Iterator[Shown]:
    """As Whisper's --highlight_words."""
    for phrase in phrases:
        for place, word in enumerate(phrase):
            marked = [f"<u>{other.text}</u>" if i == place else other.text for i, other in enumerate(phrase)]
            yield shown(word.start_ms, word.end_ms, " ".join(marked))


def coloured(phrases: list[list[Word]]) -> Iterator[Shown]:
    """As FFmpeg decodes highlighted words."""
    for one in highlighted(phrases):
        yield one._replace(text=one.text.replace("<u>", "{\\c&H00FF00&}").replace("</u>", "{\\c}"), ass=True)


def karaoke(phrases: list[list[Word]]) -> Iterator[Shown]:
    """As Advanced SubStation, on two layers."""
    for phrase in phrases:
        start_ms, end_ms = phrase[0].start_ms, phrase[-1].end_ms
        sung = "".join(f"{{\\kf{(word.end_ms - word.start_ms) / 10}}}{word.text} " for word in phrase)
        yield shown(start_ms, end_ms, "{\\bord3}" + " ".join(word.text for word in phrase), ass=True)
        yield shown(start_ms, end_ms, sung, ass=True)


@pytest.mark.parametrize("style", [rolling, highlighted, coloured, karaoke])
@settings(max_examples=60, deadline=None)
@given(phrases=scripts())
def test_each_word_is_said_once_at_its_time(
    style: Callable[[list[list[Word]]], Iterator[Shown]], phrases: list[list[Word]]
) -> None:
    spoken = [word for phrase in phrases for word in phrase]
    found = [word for cue in once(style(phrases)) for word in cue.words]
    assert [(word.text, word.start_us, word.end_us) for word in found] == [
        (word.text, word.start_ms * MS_US, word.end_ms * MS_US) for word in spoken
    ]


def growing(phrases: list[list[Word]]) -> Iterator[Shown]:
    """As live captions: a phrase grows word by word."""
    for phrase in phrases:
        for place, word in enumerate(phrase):
            yield shown(word.start_ms, word.end_ms, " ".join(other.text for other in phrase[: place + 1]))


@settings(max_examples=60, deadline=None)
@given(scripts())
def test_each_word_that_a_caption_grows_by_is_said_once_at_its_time(phrases: list[list[Word]]) -> None:
    apart = [[word._replace(text=f"{word.text}{place}") for word in phrase] for place, phrase in enumerate(phrases)]
    found = [word for cue in once(growing(apart)) for word in cue.words]
    assert [(word.text, word.start_us, word.end_us) for word in found] == [
        (word.text, word.start_ms * MS_US, word.end_ms * MS_US) for phrase in apart for word in phrase
    ]


def rolling_up(phrases: list[list[Word]], rows: int) -> Iterator[Shown]:
    """As teletext: so many rows, the newest at the bottom, no times of words."""
    for place, phrase in enumerate(phrases):
        visible = phrases[max(0, place + 1 - rows) : place + 1]
        text = "\n".join(" ".join(word.text for word in line) for line in visible)
        end_ms = phrases[place + 1][0].start_ms if place + 1 < len(phrases) else phrase[-1].end_ms
        yield shown(phrase[0].start_ms, end_ms, text)


@settings(max_examples=60, deadline=None)
@given(phrases=scripts(), rows=st.integers(2, 4))
def test_each_line_that_rolls_up_is_said_once(phrases: list[list[Word]], rows: int) -> None:
    apart = [[word._replace(text=f"{word.text}{place}") for word in phrase] for place, phrase in enumerate(phrases)]
    found = list(once(rolling_up(apart, rows)))
    assert [cue.text for cue in found] == [" ".join(word.text for word in phrase) for phrase in apart]
    assert [cue.start_us for cue in found] == [phrase[0].start_ms * MS_US for phrase in apart]


@settings(max_examples=60, deadline=None)
@given(phrases=scripts(), layers=st.integers(1, 3))
def test_subtitles_with_pauses_between_them_keep_every_word_and_layers_add_none(
    phrases: list[list[Word]], layers: int
) -> None:
    plain = [
        shown(phrase[0].start_ms + 200 * place, phrase[-1].end_ms + 200 * place, " ".join(word.text for word in phrase))
        for place, phrase in enumerate(phrases)
    ]
    found = list(once(one for one in plain for _ in range(layers)))
    assert [(cue.text, cue.start_us, cue.end_us) for cue in found] == [(s.text, s.start_us, s.end_us) for s in plain]


def test_what_is_said_three_times_stays() -> None:
    three = [shown(0, 900, "no no no"), shown(900, 1500, "No."), shown(1500, 2000, "No."), shown(2000, 2600, "No.")]
    assert [cue.text for cue in once(three)] == ["no no no", "No.", "No.", "No."]


def test_a_word_in_italics_is_not_a_highlighted_one() -> None:
    twice = [shown(0, 900, "I <i>never</i> said"), shown(900, 1500, "I <i>never</i> said")]
    assert [(cue.text, cue.words) for cue in once(twice)] == [("I never said", ())] * 2


def test_reading_ahead_is_bounded() -> None:
    read = 0

    def endless() -> Iterator[Shown]:
        nonlocal read
        while True:
            read += 1
            yield shown(read * 2000, read * 2000 + 900, f"line {read}")

    found = once(endless())
    for _ in range(100):
        next(found)
    assert read < 200


# files of Advanced SubStation, and mistakes in files

ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def test_layers_karaoke_speakers_and_remarks_of_advanced_substation(tmp_path: Path) -> None:
    (tmp_path / "a.ass").write_text(
        ASS + "Dialogue: 0,0:00:00.50,0:00:01.00,Default,Mary,0,0,0,,{a remark}Hello, {\\i1}you{\\i0}\n"
        "Dialogue: 1,0:00:00.50,0:00:01.00,Glow,Mary,0,0,0,,{\\blur3}Hello, you\n"
        "Dialogue: 0,0:00:00.50,0:00:01.00,Default,,0,0,0,,{\\p1}m 0 0 l 100 0{\\p0}\n"
        "Comment: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,never shown\n"
        "Comment: 0,0:00:02.00,0:00:03.00,Default,,0,0,0,karaoke,{\\k20}tur{\\k30}ning {\\k50}left\n"
        "Dialogue: 0,0:00:02.00,0:00:02.20,Default,,0,0,0,fx,{\\pos(1,2)}tur\n"
        "Dialogue: 0,0:00:02.00,0:00:02.30,Default,,0,0,0,fx,{\\pos(1,2)}ning\n"
        "Dialogue: 0,0:00:0x.00,0:00:05.00,Default,,0,0,0,,broken\n"
        "Dialogue: 0,0:00:05.00,0:00:04.00,Default,,0,0,0,,backwards\n"
    )
    recording = replay.open_all([tmp_path / "a.ass"])
    said = by_row(events(recording=recording))[TEXT]
    assert texts(said) == ["Hello, you", "turning left"]
    assert [event.body.speaker for event in said if isinstance(event.body, Transcript)] == ["Mary", None]
    assert words_of(tmp_path / "a.ass") == [("turning", 2.0, 2.5), ("left", 2.5, 3.0)]
    assert [note.partition(": ")[2] for note in recording.notes] == [
        "1 lines whose times cannot be read were left out",
        "words were read from its karaoke lines, not from the 2 effects made of them",
        "'backwards' ends before it begins (5000000 to 4000000 µs); left out, like all such subtitles (1)",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_subtitles_come_in_several_encodings(encoding: str, newline: str, tmp_path: Path) -> None:
    text = newline.join(
        ["1", "00:00:01,000 --> 00:00:02,000", "hëllo", "", "2", "00:00:02.5 --> 00:00:03.5", "you", ""]
    )
    (tmp_path / "a.srt").write_bytes(text.encode(encoding))
    said = by_row(events(tmp_path / "a.srt"))[TEXT]
    assert texts(said) == ["hëllo", "you"]


def test_an_encoding_that_a_file_does_not_tell_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_bytes("1\n00:00:01,000 --> 00:00:02,000\nhëllo\n".encode("cp1252"))
    with pytest.raises(UsageError, match="iconv -f WINDOWS-1252 -t UTF-8"):
        replay.open_all([tmp_path / "a.srt"])


def test_what_cannot_be_read_of_a_file_is_left_out_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text(
        "00:00:01,000 --> 00:00:01,400\nno number\n\n7\n00:00:02,000 -> 00:00:03,000\nno arrow\n\n"
        "8\n00:00:03,000 --> 00:00:02,000\nbackwards\n\n9\n00:00:03.500 --> 00:00:04.000\nCount\n3"
    )
    recording = replay.open_all([tmp_path / "a.srt"])
    assert texts(by_row(events(recording=recording))[TEXT]) == ["no number", "Count 3"]
    assert [note.partition(": ")[2] for note in recording.notes] == [
        "what is no SubRip subtitle was left out, 1 times, first in line 4",
        "'backwards' ends before it begins (3000000 to 2000000 µs); left out, like all such subtitles (1)",
    ]


def test_the_blocks_of_webvtt_that_are_no_cues_are_not_said(tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text(
        "WEBVTT - title\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:2700000\n\nSTYLE\n::cue { color: red }\n\n"
        "REGION\nid:fred\n\nNOTE not\nsaid\n\nfirst\n00:01,000 --> 00:02,000 align:start\nhello\n\n"
        "x:01.000 --> 00:02.000\nbroken\n\n100:00:03.000 --> 100:00:04.000\nlate\n"
    )
    recording = replay.open_all([tmp_path / "a.vtt"])
    assert texts(by_row(events(recording=recording))[TEXT]) == ["hello", "late"]
    assert [note.partition(": ")[2] for note in recording.notes] == [
        "1 cues whose times cannot be read were left out",
        "its times are taken as they are; its clock map (LOCAL:00:00:00.000,MPEGTS:2700000) was not applied",
    ]


def test_a_file_is_read_by_what_it_says_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nhello\n")
    (tmp_path / "a.vtt").write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n")
    (tmp_path / "b.srt").write_text(ASS + "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,hello\n")
    for name in ("a.srt", "a.vtt", "b.srt"):
        assert texts(by_row(events(tmp_path / name))[TEXT]) == ["hello"]


@pytest.mark.parametrize("name", ["a.ass", "a.ssa", "a.srt", "a.vtt"])
@pytest.mark.parametrize("content", ["nothing of use\n" * 9, "[Events]\nDialogue: a,b\n", "[Script Info]\n\x00"])
def test_what_holds_no_subtitles_is_refused_in_one_line(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError) as refused:
        replay.open_all([tmp_path / name])
    assert str(tmp_path / name) in str(refused.value)
    assert "\n" not in str(refused.value)


# within a film


def test_rolling_captions_within_a_film_give_each_word_once(tmp_path: Path) -> None:
    rolls = [(0.0, 0.49, "turn left"), (0.49, 0.5, "turn left"), (0.5, 1.0, "turn left\nthen stop")]
    path = film(tmp_path / "a.mp4", cues=[*rolls, (1.0, 1.01, "then stop")])
    said = by_row(events(path))[TEXT]
    assert texts(said) == ["turn left", "then stop"]
    assert spans(said) == [(0.0, 0.49), (0.5, 1.0)]


def muxed(path: Path, codec: Literal["webvtt", "subrip"], cues: list[tuple[int, int, str]]) -> Path:
    """A film with a track of subtitles as they are, times in ms."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream(codec)
        track.codec_context.subtitle_header = SUBTITLE_STYLES
        for _ in range(30):
            container.mux(video.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(video.encode())
        for begin, end, said in cues:
            packet = av.Packet(said.encode())
            packet.stream, packet.time_base = track, Fraction(1, 1000)
            packet.pts = packet.dts = begin
            packet.duration = end - begin
            container.mux(packet)
    return path


def test_times_of_words_are_read_of_a_track_of_webvtt(tmp_path: Path) -> None:
    line = "please<00:00:01.400><c> turn</c><00:00:01.900><c> left</c>"
    path = muxed(tmp_path / "a.mkv", "webvtt", [(1000, 2490, line), (2490, 2500, "please turn left")])
    assert words_of(path) == [("please", 1.0, 1.4), ("turn", 1.4, 1.9), ("left", 1.9, 2.49)]


def test_highlighted_words_are_read_of_a_track_of_subrip(tmp_path: Path) -> None:
    path = muxed(tmp_path / "a.mkv", "subrip", [(500, 900, "<u>no</u> no"), (900, 1500, "no <u>no</u>")])
    assert words_of(path) == [("no", 0.5, 0.9), ("no", 0.9, 1.5)]
