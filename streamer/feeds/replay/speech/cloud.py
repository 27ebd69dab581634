"""JSON of recognisers that are services."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import msgspec

from streamer.feeds.replay.part import MS_US
from streamer.feeds.replay.speech.cue import Cue
from streamer.feeds.replay.speech.phrase import Number, Timed, converted, has, label, listed, phrase, us

TICKS = 10  # of Azure, a microsecond
ISO_DURATION = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?")
Ticks = Annotated[float, msgspec.Meta(ge=0, le=1e16)]

# Amazon Transcribe


class _AmazonContent(msgspec.Struct):
    content: str


class _AmazonItem(msgspec.Struct):
    type: str
    alternatives: list[_AmazonContent]
    start_time: Number | None = None
    end_time: Number | None = None
    speaker_label: str | None = None
    channel_label: str | None = None


class _AmazonTurnItem(msgspec.Struct):
    start_time: Number
    speaker_label: str | None = None


class _AmazonTurn(msgspec.Struct):
    speaker_label: str
    items: list[_AmazonTurnItem] = []


class _AmazonSpeakers(msgspec.Struct):
    segments: list[_AmazonTurn] = []


class _AmazonChannel(msgspec.Struct):
    channel_label: str
    items: list[_AmazonItem] = []


class _AmazonChannels(msgspec.Struct):
    channels: list[_AmazonChannel] = []


class _AmazonResults(msgspec.Struct):
    items: list[_AmazonItem] = []
    speaker_labels: _AmazonSpeakers = msgspec.field(default_factory=_AmazonSpeakers)
    channel_labels: _AmazonChannels = msgspec.field(default_factory=_AmazonChannels)
    language_code: str | None = None


class _Amazon(msgspec.Struct):
    results: _AmazonResults


def is_amazon(document: Any) -> bool:
    """Whether it is of Amazon Transcribe."""
    return has(document, "results") and (has(document["results"], "items") or has(document["results"], "transcripts"))


def amazon_transcribe(document: Any) -> Iterator[Cue]:
    """Words and punctuation apart; who speaks stands beside each word, or apart, by its time."""
    found = converted(document, _Amazon).results
    speakers = {
        item.start_time: item.speaker_label or turn.speaker_label
        for turn in found.speaker_labels.segments
        for item in turn.items
    }
    for channel in found.channel_labels.channels:
        words = _amazon_words(channel.items, {})
        yield from phrase("", words, language=found.language_code, speaker=channel.channel_label)
    if not found.channel_labels.channels:
        yield from phrase("", _amazon_words(found.items, speakers), language=found.language_code)


def _amazon_words(items: Sequence[_AmazonItem], speakers: dict[float, str]) -> list[Timed]:
    words: list[Timed] = []
    for item in items:
        text = item.alternatives[0].content if item.alternatives else ""
        if item.start_time is None or item.end_time is None:
            if words:  # punctuation
                words[-1] = words[-1]._replace(text=words[-1].text + text)
        else:
            speaker = item.speaker_label or speakers.get(item.start_time) or item.channel_label
            words.append(Timed(text, us(item.start_time), us(item.end_time), speaker))
    return words


# Google and Azure, whose clients write the names of fields in different ways


def _same_case(name: str) -> str:
    return name.replace("_", "").lower()


def _renamed(document: Any) -> Any:
    if isinstance(document, dict):
        return {_same_case(name): _renamed(value) for name, value in document.items()}
    return [_renamed(value) for value in document] if isinstance(document, list) else document


class _Fields(msgspec.Struct, rename=_same_case):
    """Fields called ``start_time``, ``startTime`` or ``StartTime``."""


# Google Speech-to-Text


class _Seconds(_Fields):
    """A protobuf duration as its fields; else it is text, "1.300s"."""

    seconds: Number = 0
    nanos: Number = 0


_Duration = str | _Seconds | None


class _GoogleWord(_Fields):
    word: str
    start_time: _Duration = None  # v1; nothing stands for 0
    end_time: _Duration = None
    start_offset: _Duration = None  # v2
    end_offset: _Duration = None
    speaker_tag: int = 0
    speaker_label: str = ""


class _GoogleAlternative(_Fields):
    transcript: str = ""
    words: list[_GoogleWord] = []


class _GoogleResult(_Fields):
    alternatives: list[_GoogleAlternative] = []
    language_code: str | None = None
    result_end_time: _Duration = None
    result_end_offset: _Duration = None
    channel_tag: int = 0
    is_final: bool = False
    stability: float | None = None  # of a stream's result that may change


def is_google(document: Any) -> bool:
    """Whether it is of Google: an answer, an operation with one, a batch's, or a stream of answers."""
    try:
        results = _google_results(document)
    except ValueError:
        return False
    return any(has(result, "alternatives") for result in results)


def _google_results(document: Any) -> list[Any]:
    found: list[Any] = []
    for answer in listed(document):
        if has(answer, "response"):
            found += _google_results(answer["response"])
        elif has(answer, "results") and isinstance(answer["results"], list):
            found += answer["results"]
        elif has(answer, "results") and isinstance(answer["results"], dict):
            for file in answer["results"].values():
                inner = file.get("inlineResult", file) if isinstance(file, dict) else file
                if not has(inner, "transcript") or not isinstance(inner["transcript"], dict):
                    raise ValueError("no answer of Google's")
                found += _google_results(inner["transcript"])
        else:
            raise ValueError("no answer of Google's")
    return found


def google(document: Any) -> Iterator[Cue]:
    """Results one after the other; with v1's speakers, the last one has all words once more, with their speakers."""
    results: list[_GoogleResult] = converted(_renamed(_google_results(document)), list[_GoogleResult])
    results = [one for one in results if one.alternatives and (one.is_final or one.stability is None)]
    counts = [len(one.alternatives[0].words) for one in results]
    if (
        len(results) > 1
        and counts[-1] >= sum(counts[:-1])
        and any(w.speaker_tag for w in results[-1].alternatives[0].words)
    ):
        results = results[-1:]
    channels = {one.channel_tag for one in results}
    last_us = 0
    for one in results:
        best = one.alternatives[0]
        words = [_google_word(word) for word in best.words]
        end_us = _google_us(one.result_end_time or one.result_end_offset)
        end_us = max([end_us, *(word.end_us or 0 for word in words)])
        speaker = f"channel {one.channel_tag}" if len(channels) > 1 else None
        yield from phrase(best.transcript, words, (min(last_us, end_us), end_us), one.language_code, speaker)
        last_us = end_us if len(channels) == 1 else 0


def _google_word(word: _GoogleWord) -> Timed:
    start_us, end_us = _google_us(word.start_time or word.start_offset), _google_us(word.end_time or word.end_offset)
    return Timed(word.word, start_us, end_us, word.speaker_label or label(word.speaker_tag or None))


def _google_us(duration: _Duration) -> int:
    if duration is None:
        return 0
    if isinstance(duration, str):
        return us(converted(duration.removesuffix("s"), Number))
    return us(duration.seconds + duration.nanos / 1e9)


# Azure


class _AzureTime(_Fields):
    offset: str | float | None = None  # ISO 8601 in a batch, ticks in the SDK
    duration: str | float | None = None
    offset_in_ticks: Ticks | None = None
    duration_in_ticks: Ticks | None = None
    offset_milliseconds: Number | None = None
    duration_milliseconds: Number | None = None

    def span_us(self) -> tuple[int, int] | None:
        start_us = _azure_us(self.offset, self.offset_in_ticks, self.offset_milliseconds)
        length_us = _azure_us(self.duration, self.duration_in_ticks, self.duration_milliseconds)
        return None if start_us is None else (start_us, start_us + (length_us or 0))


class _AzureWord(_AzureTime):
    word: str = ""
    text: str = ""
    display_text: str = ""


class _AzureBest(_Fields):
    display: str = ""
    lexical: str = ""
    words: list[_AzureWord] = []
    display_words: list[_AzureWord] = []


class _AzurePhrase(_AzureTime):
    n_best: list[_AzureBest] = []
    text: str = ""
    display_text: str = ""
    words: list[_AzureWord] = []
    speaker: str | int | None = None
    speaker_id: str | None = None
    channel: int | None = None
    locale: str | None = None


def is_azure(document: Any) -> bool:
    """Whether it is of Azure: a batch, a fast transcription, or detailed results of the SDK."""
    if has(document, "recognizedPhrases") or has(document, "phrases", "combinedPhrases"):
        return True
    return all(has(one, "RecognitionStatus") or has(one, "NBest", "Offset") for one in listed(document))


def azure(document: Any) -> Iterator[Cue]:
    """The best reading of each phrase; words as they are to be read, where it has those."""
    if isinstance(document, dict):
        document = document.get("recognizedPhrases", document.get("phrases", document))
    phrases: list[_AzurePhrase] = converted(_renamed(listed(document)), list[_AzurePhrase])
    channels = {one.channel for one in phrases} - {None}
    for one in phrases:
        best = one.n_best[0] if one.n_best else _AzureBest(one.display_text or one.text, words=one.words)
        words = [_azure_word(word) for word in best.display_words or best.words]
        speaker = label(one.speaker_id or one.speaker)
        if speaker is None and len(channels) > 1:
            speaker = f"channel {one.channel}"
        text = best.display or one.display_text or best.lexical
        yield from phrase(text, words, one.span_us(), one.locale, speaker)


def _azure_word(word: _AzureWord) -> Timed:
    start_us, end_us = word.span_us() or (None, None)
    return Timed(word.display_text or word.word or word.text, start_us, end_us)


def _azure_us(either: str | float | None, ticks: float | None, milliseconds: float | None) -> int | None:
    if milliseconds is not None:
        return round(milliseconds * MS_US)
    if ticks is None and isinstance(either, str):
        parts = ISO_DURATION.fullmatch(either)
        if parts is None:
            raise ValueError(f"{either[:40]!r} is no ISO 8601 duration")
        hours, minutes, seconds = (float(part or 0) for part in parts.groups())
        return us(hours * 3600 + minutes * 60 + seconds)
    ticks = either if ticks is None and not isinstance(either, str) else ticks
    return None if ticks is None else round(ticks / TICKS)


# Deepgram


class _DeepgramWord(msgspec.Struct):
    word: str
    start: Number
    end: Number
    punctuated_word: str | None = None
    speaker: int | None = None


class _DeepgramAlternative(msgspec.Struct):
    transcript: str = ""
    words: list[_DeepgramWord] = []


class _DeepgramChannel(msgspec.Struct):
    alternatives: list[_DeepgramAlternative] = []
    detected_language: str | None = None


class _DeepgramMessage(msgspec.Struct):
    type: str
    channel: Any = None
    channel_index: tuple[int, ...] = (0, 1)  # which channel, of how many
    is_final: bool = True


def is_deepgram(document: Any) -> bool:
    """Whether it is of Deepgram: a file's results, or messages of a stream."""
    if has(document, "results") and has(document["results"], "channels"):
        return True
    return any(has(one, "type", "channel", "channel_index") for one in listed(document))


def deepgram(document: Any) -> Iterator[Cue]:
    """Channels one after the other; of a stream, what is final."""
    if isinstance(document, dict) and "results" in document:
        channels = converted(document["results"]["channels"], list[_DeepgramChannel])
        heard = [(place, len(channels), channel) for place, channel in enumerate(channels)]
    else:
        messages = converted(listed(document), list[_DeepgramMessage])
        final = [one for one in messages if one.type == "Results" and one.is_final]
        heard = [(*one.channel_index[:2], converted(one.channel, _DeepgramChannel)) for one in final]
    for place, count, channel in heard:
        for best in channel.alternatives[:1]:
            words = [
                Timed(word.punctuated_word or word.word, us(word.start), us(word.end), label(word.speaker))
                for word in best.words
            ]
            speaker = f"channel {place}" if count > 1 else None
            yield from phrase(best.transcript, words, None, channel.detected_language, speaker)
