"""What recognisers and linguists write, in the forms that their own documentation shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamer.errors import UsageError
from streamer.events import TEXT, Transcript
from streamer.feeds import replay
from streamer.feeds.replay.speech import Cue, recognised
from tests.recordings import by_row, events

S_US = 1_000_000
TURN_LEFT = [("Turn", 0.2, 0.6), ("left.", 0.6, 1.0)]


def found(document: Any) -> list[Cue]:
    cues = recognised.cues(document if isinstance(document, str) else json.dumps(document))
    assert cues is not None
    return cues


def words(cues: list[Cue]) -> list[tuple[str, float, float]]:
    return [(word.text, word.start_us / S_US, word.end_us / S_US) for cue in cues for word in cue.words]


def said(cues: list[Cue]) -> list[tuple[str | None, str]]:
    return [(cue.speaker, cue.text) for cue in cues]


# on one's own machine

WHISPER_SEGMENT = {
    "id": 0,
    "seek": 0,
    "start": 0.2,
    "end": 1.0,
    "text": " Turn left.",
    "tokens": [50364, 7956, 1411, 13, 50414],
    "temperature": 0.0,
    "avg_logprob": -0.3,
    "compression_ratio": 0.6,
    "no_speech_prob": 0.01,
    "words": [
        {"word": " Turn", "start": 0.2, "end": 0.6, "probability": 0.9},
        {"word": " left.", "start": 0.6, "end": 1.0, "probability": 0.9},
    ],
}
VOSK = {
    "result": [
        {"conf": 1.0, "end": 0.6, "start": 0.2, "word": "turn"},
        {"conf": 0.9, "end": 1.0, "start": 0.6, "word": "left"},
    ],
    "text": "turn left",
}
LOWER = [("turn", 0.2, 0.6), ("left", 0.6, 1.0)]


@pytest.mark.parametrize(
    "document",
    [
        {"text": " Turn left.", "segments": [WHISPER_SEGMENT], "language": "en"},
        [WHISPER_SEGMENT],
        WHISPER_SEGMENT | {"segments": [WHISPER_SEGMENT]},
        {
            "task": "transcribe",
            "language": "english",
            "duration": 1.2,
            "text": "Turn left.",
            "words": [{"word": "Turn", "start": 0.2, "end": 0.6}, {"word": "left", "start": 0.6, "end": 1.0}],
        },
    ],
    ids=["whisper", "faster-whisper", "with more fields", "with words at the top"],
)
def test_whisper_and_its_relatives(document: Any) -> None:
    assert words(found(document)) == TURN_LEFT
    assert said(found(document)) == [(None, "Turn left.")]


def test_only_a_language_tag_becomes_the_language() -> None:
    assert [found({"segments": [WHISPER_SEGMENT], "language": name})[0].language for name in ("en", "english")] == [
        "en",
        None,
    ]


def test_whisper_without_word_times_gives_its_segments() -> None:
    (cue,) = found({"segments": [WHISPER_SEGMENT | {"words": None}]})
    assert cue == Cue(200_000, S_US, "Turn left.")


def test_words_of_languages_without_spaces_are_joined_as_they_were() -> None:
    segment = {"start": 0.0, "end": 4.0, "text": "今日は晴れ。"}
    parts = [{"word": "今日", "start": 0.0, "end": 1.0}, {"word": "は", "start": 1.0, "end": 2.0}]
    parts += [{"word": "晴れ。", "start": 2.0, "end": 4.0}]
    assert [word.space for word in found([segment | {"words": parts}])[0].words] == [True, False, False]


def test_whisperx_keeps_its_speakers_and_words_without_times() -> None:
    turn: list[dict[str, Any]] = [
        {"word": "It's", "start": 0.0, "end": 0.3, "score": 0.9, "speaker": "SPEAKER_00"},
        {"word": "15", "speaker": "SPEAKER_00"},
        {"word": "now.", "start": 0.9, "end": 1.2, "score": 0.8, "speaker": "SPEAKER_00"},
        {"word": "Yes.", "start": 1.3, "end": 1.6, "score": 0.8, "speaker": "SPEAKER_01"},
    ]
    segment = {"start": 0.0, "end": 1.6, "text": " It's 15 now. Yes.", "words": turn, "speaker": "SPEAKER_00"}
    cues = found({"segments": [segment], "word_segments": turn, "language": "en"})
    assert said(cues) == [("SPEAKER_00", "It's 15 now."), ("SPEAKER_01", "Yes.")]
    assert words(cues) == [("It's", 0.0, 0.3), ("15", 0.3, 0.9), ("now.", 0.9, 1.2), ("Yes.", 1.3, 1.6)]


def cpp(text: str, begin: int, end: int, **more: Any) -> dict[str, Any]:
    return {
        "text": text,
        "timestamps": {"from": "00:00:00,200", "to": "00:00:01,000"},
        "offsets": {"from": begin, "to": end},
        **more,
    }


def test_whisper_cpp_in_its_short_and_its_full_form() -> None:
    tokens = [cpp("[_BEG_]", 0, 0, id=50363), cpp(" T", 200, 300, id=1), cpp("urn", 300, 600, id=2)]
    tokens += [cpp(" left", 600, 900, id=3), cpp(".", 900, 1000, id=13), cpp("[_TT_50]", 1000, 1000, id=50413)]
    document: dict[str, Any] = {
        "systeminfo": "AVX = 1",
        "model": {"type": "base"},
        "params": {"language": "en"},
        "result": {"language": "en"},
        "transcription": [cpp(" Turn left.", 200, 1000)],
    }
    assert found(document) == [Cue(200_000, S_US, "Turn left.", (), "en")]
    document["transcription"] = [cpp(" Turn left.", 200, 1000, tokens=tokens, speaker="1")]
    assert words(found(document)) == TURN_LEFT
    assert said(found(document)) == [("1", "Turn left.")]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(VOSK),
        json.dumps([VOSK, {"text": ""}]),
        json.dumps({"partial": "turn"}) + "\n" + json.dumps(VOSK, indent=2) + "\n" + json.dumps({"text": ""}, indent=2),
        json.dumps({"alternatives": [{"confidence": 200.0, **VOSK}, {"confidence": 100.0, "text": "turned"}]}),
        json.dumps(VOSK["result"]),
    ],
    ids=["one result", "a list", "one after the other", "alternatives", "its words alone"],
)
def test_vosk(text: str) -> None:
    assert words(found(text)) == LOWER


# services


def amazon_item(content: str, start: str | None, end: str | None, **more: Any) -> dict[str, Any]:
    times = {} if start is None else {"start_time": start, "end_time": end}
    kind = "punctuation" if start is None else "pronunciation"
    return {**times, "alternatives": [{"confidence": "0.99", "content": content}], "type": kind, **more}


AMAZON_ITEMS = [amazon_item("Turn", "0.2", "0.6"), amazon_item("left", "0.6", "1.0"), amazon_item(".", None, None)]
AMAZON_ITEMS += [amazon_item("Why", "1.5", "1.9"), amazon_item("?", None, None)]


def amazon(**results: Any) -> dict[str, Any]:
    transcripts = [{"transcript": "Turn left. Why?"}]
    return {
        "jobName": "j",
        "accountId": "1",
        "status": "COMPLETED",
        "results": {"transcripts": transcripts, "items": AMAZON_ITEMS, **results},
    }


def test_amazon_transcribe() -> None:
    cues = found(amazon(language_code="en-US"))
    assert words(cues) == [*TURN_LEFT, ("Why?", 1.5, 1.9)]
    assert cues[0].language == "en-US"


@pytest.mark.parametrize("place", ["at the words", "apart"])
def test_speakers_of_amazon_transcribe(place: str) -> None:
    labels = ["spk_0", "spk_0", None, "spk_1", None]
    if place == "at the words":
        document = amazon(
            items=[i | ({"speaker_label": s} if s else {}) for i, s in zip(AMAZON_ITEMS, labels, strict=True)]
        )
    else:
        turns = [
            {"start_time": "0.2", "end_time": "1.0", "speaker_label": "spk_0", "items": [
                {"start_time": "0.2", "speaker_label": "spk_0", "end_time": "0.6"},
                {"start_time": "0.6", "speaker_label": "spk_0", "end_time": "1.0"},
            ]},
            {"start_time": "1.5", "end_time": "1.9", "speaker_label": "spk_1", "items": [
                {"start_time": "1.5", "speaker_label": "spk_1", "end_time": "1.9"},
            ]},
        ]  # fmt: skip
        document = amazon(speaker_labels={"speakers": 2, "segments": turns})
    assert said(found(document)) == [("spk_0", "Turn left."), ("spk_1", "Why?")]


def test_channels_of_amazon_transcribe_are_its_speakers() -> None:
    channels = [
        {"channel_label": "ch_0", "items": AMAZON_ITEMS[:3]},
        {"channel_label": "ch_1", "items": AMAZON_ITEMS[3:]},
    ]
    document = amazon(channel_labels={"channels": channels, "number_of_channels": 2})
    assert said(found(document)) == [("ch_0", "Turn left."), ("ch_1", "Why?")]


GOOGLE_1 = {
    "alternatives": [
        {
            "transcript": "Turn left.",
            "confidence": 0.9,
            "words": [
                {"startTime": "0.200s", "endTime": "0.600s", "word": "Turn"},
                {"startTime": "0.600s", "endTime": "1s", "word": "left."},
            ],
        },
        {"transcript": "Turned left."},
    ],
    "resultEndTime": "1.200s",
    "languageCode": "en-us",
}


@pytest.mark.parametrize(
    "document",
    [
        {"results": [GOOGLE_1], "totalBilledTime": "15s"},
        {"name": "1", "done": True, "response": {"@type": "type.googleapis.com/…", "results": [GOOGLE_1]}},
        [
            {"results": [{"alternatives": [{"transcript": "turn"}], "stability": 0.1}]},
            {"results": [GOOGLE_1 | {"isFinal": True}]},
        ],
    ],
    ids=["an answer", "an operation", "a stream"],
)
def test_google_v1(document: Any) -> None:
    assert words(found(document)) == TURN_LEFT
    assert said(found(document)) == [(None, "Turn left.")]


@pytest.mark.parametrize("names", ["startOffset endOffset speakerLabel", "start_offset end_offset speaker_label"])
def test_google_v2_with_its_names_in_both_cases(names: str) -> None:
    start, end, speaker = names.split()
    timed = [{end: "0.600s", "word": "Turn", speaker: "1"}, {start: "0.600s", end: "1s", "word": "left.", speaker: "2"}]
    results = {"results": [{"alternatives": [{"transcript": "Turn left.", "words": timed}]}]}
    for document in (results, {"results": {"gs://bucket/a.wav": {"inlineResult": {"transcript": results}}}}):
        assert words(found(document)) == [("Turn", 0.0, 0.6), ("left.", 0.6, 1.0)]
        assert said(found(document)) == [("1", "Turn"), ("2", "left.")]


def test_google_says_all_words_again_with_their_speakers_at_the_end() -> None:
    again = [
        {"startTime": {"nanos": 200_000_000}, "endTime": {"seconds": "1"}, "word": "hi", "speakerTag": 1},
        {
            "startTime": {"seconds": 1},
            "endTime": {"seconds": 1, "nanos": 500_000_000},
            "word": "there",
            "speakerTag": 2,
        },
    ]
    first = [{key: value for key, value in word.items() if key != "speakerTag"} for word in again]
    document = {"results": [
        {"alternatives": [{"transcript": "hi there", "words": first}]},
        {"alternatives": [{"words": again}]},
    ]}  # fmt: skip
    assert said(found(document)) == [("1", "hi"), ("2", "there")]
    assert words(found(document)) == [("hi", 0.2, 1.0), ("there", 1.0, 1.5)]


def test_google_without_words_spans_from_the_result_before() -> None:
    results = [
        {"alternatives": [{"transcript": text}], "resultEndTime": end}
        for text, end in (("one", "4.500s"), ("two", "9s"))
    ]
    assert found({"results": results}) == [Cue(0, 4_500_000, "one"), Cue(4_500_000, 9_000_000, "two")]


AZURE_BEST = {
    "confidence": 0.9,
    "lexical": "turn left",
    "itn": "turn left",
    "maskedITN": "turn left",
    "display": "Turn left.",
}


def azure_words(form: str) -> list[dict[str, Any]]:
    spans = [("turn", 0.2, 0.4), ("left", 0.6, 0.4)]
    if form == "batch":
        return [
            {
                "word": text,
                "offset": f"PT{at}S",
                "duration": f"PT{long}S",
                "offsetInTicks": at * 1e7,
                "durationInTicks": long * 1e7,
            }
            for text, at, long in spans
        ]
    if form == "iso":
        return [{"word": text, "offset": f"PT{at}S", "duration": f"PT{long}S"} for text, at, long in spans]
    return [{"Word": text, "Offset": round(at * 1e7), "Duration": round(long * 1e7)} for text, at, long in spans]


@pytest.mark.parametrize("form", ["batch", "iso"])
def test_azure_batch(form: str) -> None:
    phrase = {
        "recognitionStatus": "Success",
        "channel": 0,
        "speaker": 1,
        "offset": "PT0.2S",
        "duration": "PT0.8S",
        "offsetInTicks": 2000000.0,
        "durationInTicks": 8000000.0,
        "nBest": [AZURE_BEST | {"words": azure_words(form)}],
    }
    document = {
        "source": "https://x/a.wav",
        "combinedRecognizedPhrases": [{"channel": 0, "display": "Turn left."}],
        "recognizedPhrases": [phrase],
    }
    assert words(found(document)) == TURN_LEFT
    assert said(found(document)) == [("1", "Turn left.")]


def test_azure_results_of_the_sdk_one_after_the_other() -> None:
    best = {key[:1].upper() + key[1:]: value for key, value in AZURE_BEST.items()} | {"Words": azure_words("sdk")}
    one = {
        "Id": "1",
        "RecognitionStatus": "Success",
        "DisplayText": "Turn left.",
        "Offset": 2000000,
        "Duration": 8000000,
        "Channel": 0,
        "NBest": [best],
    }
    silence = {"Id": "2", "RecognitionStatus": "InitialSilenceTimeout", "Offset": 12000000, "Duration": 0}
    guest = one | {"SpeakerId": "Guest-1"}
    assert words(found(f"{json.dumps(one)}\n{json.dumps(silence)}")) == TURN_LEFT
    assert said(found([guest])) == [("Guest-1", "Turn left.")]
    assert found(one | {"NBest": []}) == [Cue(200_000, S_US, "Turn left.")]


def test_azure_fast_transcription() -> None:
    phrase = {
        "channel": 0,
        "speaker": 0,
        "offsetMilliseconds": 200,
        "durationMilliseconds": 800,
        "text": "Turn left.",
        "locale": "en-US",
        "words": [
            {"text": "Turn", "offsetMilliseconds": 200, "durationMilliseconds": 400},
            {"text": "left.", "offsetMilliseconds": 600, "durationMilliseconds": 400},
        ],
    }
    document = {"durationMilliseconds": 1200, "combinedPhrases": [{"text": "Turn left."}], "phrases": [phrase]}
    assert words(found(document)) == TURN_LEFT
    assert [(cue.speaker, cue.language) for cue in found(document)] == [("0", "en-US")]


def deepgram(speakers: tuple[int, int] | None) -> dict[str, Any]:
    timed: list[dict[str, Any]] = [
        {"word": "turn", "start": 0.2, "end": 0.6, "confidence": 0.9, "punctuated_word": "Turn"},
        {"word": "left", "start": 0.6, "end": 1.0, "confidence": 0.9, "punctuated_word": "left."},
    ]
    for word, speaker in zip(timed, speakers or (), strict=False):
        word |= {"speaker": speaker, "speaker_confidence": 0.8}
    return {"alternatives": [{"transcript": "Turn left.", "confidence": 0.9, "words": timed}]}


def test_deepgram() -> None:
    document = {"metadata": {"channels": 1}, "results": {"channels": [deepgram((0, 1))], "utterances": []}}
    assert words(found(document)) == TURN_LEFT
    assert said(found(document)) == [("0", "Turn"), ("1", "left.")]
    document = {"metadata": {"channels": 2}, "results": {"channels": [deepgram(None), deepgram(None)]}}
    assert said(found(document)) == [("channel 0", "Turn left."), ("channel 1", "Turn left.")]


def test_of_a_stream_of_deepgram_what_is_final() -> None:
    message = {"type": "Results", "channel_index": [0, 1], "duration": 1.2, "start": 0.0, "channel": deepgram(None)}
    messages = [message | {"is_final": False}, message | {"is_final": True}, {"type": "Metadata", "request_id": "x"}]
    assert words(found("\n".join(map(json.dumps, messages)))) == TURN_LEFT


# what is none of these


@pytest.mark.parametrize("text", ['{"words": 3}', "[]", "{}", "3", '"text"', "[1, 2]", '{"results": {}}', "null"])
def test_json_of_another_kind_is_told_from_a_broken_one(text: str) -> None:
    assert recognised.cues(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        '{"segments": [{"start": "x", "end": 1, "text": ""}]}',
        '[{"b": 1.0, "d": -0.5, "t": "x"}]',
    ],
)
def test_a_broken_file_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UsageError) as refused:
        replay.open_all([tmp_path / "a.json"])
    assert str(tmp_path / "a.json") in str(refused.value)
    assert "\n" not in str(refused.value)


# CTM and TextGrid


def sent(path: Path) -> list[tuple[str | None, str]]:
    bodies = [event.body for event in by_row(events(path))[TEXT]]
    return [(body.speaker, body.text) for body in bodies if isinstance(body, Transcript)]


def test_ctm_gives_the_words_of_the_recording_that_it_is_called_like(tmp_path: Path) -> None:
    (tmp_path / "talk.ctm").write_text(
        ";; a comment\nother A 0.0 0.5 no 1.0\ntalk A 0.20 0.40 turn 0.98 lex\ntalk A 0.60 0.40 left\n"
        "talk A * * <ALT_BEGIN>\ntalk A 1.1 0.2 now\ntalk A * * <ALT>\ntalk A 1.1 0.2 know\ntalk A * * <ALT_END>\n"
        "talk A 1.4 0.2 <eps>\n"
    )
    recording = replay.open_all([tmp_path / "talk.ctm"])
    (said,) = by_row(events(recording=recording))[TEXT]
    assert isinstance(said.body, Transcript)
    assert [(w.text, w.start, w.end) for w in said.body.words] == [
        ("turn", 0.0, 0.4),
        ("left", 0.4, 0.8),
        ("now", 0.9, 1.1),
    ]
    assert recording.notes == [f"{tmp_path / 'talk.ctm'}: it has words of 2 recordings; those of talk are sent"]


def test_channels_and_speakers_of_ctm_are_kept(tmp_path: Path) -> None:
    (tmp_path / "talk.ctm").write_text("talk A 0.2 0.4 hi\ntalk B 1.0 0.4 you\n")
    assert sent(tmp_path / "talk.ctm") == [("A", "hi"), ("B", "you")]
    (tmp_path / "talk.ctm").write_text("talk 1 0.2 0.4 hi 0.9 lex ann\ntalk 1 1.0 0.4 you 0.9 lex bob\n")
    assert sent(tmp_path / "talk.ctm") == [("ann", "hi"), ("bob", "you")]


def grid(path: Path, form: str, **tiers: list[tuple[float, float, str]]) -> Path:
    from praatio import textgrid

    made = textgrid.Textgrid(0, 3)
    for name, entries in tiers.items():
        made.addTier(textgrid.IntervalTier(name.replace("_", " "), entries, 0, 3))
    made.save(str(path), form, includeBlankSpaces=True)
    return path


@pytest.mark.parametrize("form", ["long_textgrid", "short_textgrid"])
def test_textgrid_gives_its_words_and_notes_its_other_tiers(form: str, tmp_path: Path) -> None:
    said = [(0.2, 0.6, "turn"), (0.6, 1.0, "left"), (1.0, 1.2, "sil")]
    path = grid(tmp_path / "talk.TextGrid", form, words=said, phones=[(0.2, 0.4, "T")])
    recording = replay.open_all([path])
    (event,) = by_row(events(recording=recording))[TEXT]
    assert isinstance(event.body, Transcript)
    assert [(w.text, w.start, w.end) for w in event.body.words] == [("turn", 0.0, 0.4), ("left", 0.4, 0.8)]
    assert recording.notes == [f"{path}: tiers that are not sent: phones"]


def test_tiers_of_several_speakers_are_kept_apart(tmp_path: Path) -> None:
    aligned = {"ann - words": [(0.2, 0.6, "hi")], "ann - phones": [(0.2, 0.4, "h")], "bob - words": [(1.0, 1.4, "you")]}
    assert sent(grid(tmp_path / "a.TextGrid", "long_textgrid", **aligned)) == [("ann", "hi"), ("bob", "you")]
    phrases = {"Ann": [(0.2, 0.6, "hi there")], "Bob": [(1.0, 1.4, "you too")]}
    assert sent(grid(tmp_path / "b.TextGrid", "short_textgrid", **phrases)) == [("Ann", "hi there"), ("Bob", "you too")]


@pytest.mark.parametrize("name", ["a.ctm", "a.TextGrid"])
@pytest.mark.parametrize(
    "content",
    ["", "nothing of use\n", 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n3\n<exists>\n1\n"Int'],
)
def test_what_is_neither_is_refused_in_one_line(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError) as refused:
        replay.open_all([tmp_path / name])
    assert str(tmp_path / name) in str(refused.value)
    assert "\n" not in str(refused.value)
