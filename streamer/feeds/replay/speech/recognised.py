"""What speech recognisers write as JSON: which it is follows from its fields.

Whisper           https://github.com/openai/whisper, whisper/utils.py WriteJSON; the same with ``words`` at the top:
                  https://platform.openai.com/docs/api-reference/audio (verbose_json)
faster-whisper    https://github.com/SYSTRAN/faster-whisper, transcribe.py Segment, Word; as a list
WhisperX          https://github.com/m-bain/whisperX, whisperx/types.py: words may have no times; speakers
whisper.cpp       https://github.com/ggml-org/whisper.cpp, examples/cli/cli.cpp output_json: -oj, -ojf; milliseconds
Vosk              https://alphacephei.com/vosk, src/recognizer.cc: results one after the other, or as a list
Amazon Transcribe https://docs.aws.amazon.com/transcribe/latest/dg/how-input.html: seconds as text; punctuation apart
Google            https://cloud.google.com/speech-to-text/docs/reference/rest: v1 startTime, v2 startOffset, "1.300s"
Azure             https://learn.microsoft.com/azure/ai-services/speech-service: batch (recognizedPhrases), detailed
                  results of the SDK (NBest), fast transcription (phrases); ticks of 100 ns
Deepgram          https://developers.deepgram.com/reference: a file's results, or a stream's, one after the other
PocketSphinx      https://pocketsphinx.readthedocs.io, the program's output: b, d, t, w
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from streamer.feeds.replay.speech import cloud, local
from streamer.feeds.replay.speech.cue import Cue, by_time

READERS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Iterator[Cue]]], ...] = (
    (local.is_pocketsphinx, local.pocketsphinx),
    (local.is_whisper_cpp, local.whisper_cpp),
    (local.is_whisper, local.whisper),
    (local.is_word_list, local.word_list),
    (cloud.is_amazon, cloud.amazon_transcribe),
    (cloud.is_deepgram, cloud.deepgram),
    (cloud.is_azure, cloud.azure),
    (cloud.is_google, cloud.google),
    (local.is_vosk, local.vosk),
)


def cues(text: str) -> list[Cue] | None:
    """The utterances of a recogniser's JSON in order of their start; ``None`` for JSON of another kind.

    Raises:
        ValueError: It is no JSON, or is one's whose fields are not as they should be.
    """
    documents = _documents(text)
    whole = documents[0] if len(documents) == 1 else documents
    try:
        for known, read in READERS:
            if whole and known(whole):
                return sorted(read(whole), key=by_time)
    except msgspec.ValidationError as error:
        raise ValueError(f"as JSON of {read.__name__.replace('_', ' ')}: {error}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return None


def _documents(text: str) -> list[Any]:
    """JSON documents, one after the other, as recognisers print them."""
    decoder = json.JSONDecoder()
    found, place = [], 0
    text = text.strip()
    try:
        while place < len(text):
            document, place = decoder.raw_decode(text, place)
            found.append(document)
            while place < len(text) and text[place] in " \t\n,":
                place += 1
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if not found:
        raise ValueError("it is empty")
    return found
