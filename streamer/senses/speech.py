"""Speech recognisers: the samples of an utterance -> its words, with times where the recogniser knows them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError, extra, one_line
from streamer.senses.files import Sense

RATE_HZ = 16_000
MIN_SAMPLES = RATE_HZ // 10  # recognisers fail on less, and no word is that short; silence is added

# Moonshine (https://arxiv.org/abs/2410.15608), base
START, END = 1, 2
LAYERS, HEADS, HEAD_DIM = 8, 8, 52
TOKENS_PER_S = 6.5  # the authors' bound: more is a decoder that repeats itself
BYTE_TOKEN = re.compile(rb"<0x([0-9A-F]{2})>")
SPACE = "\u2581".encode()  # stands for a space in pieces


class HeardWord(NamedTuple):
    """A word with its times in seconds from the first sample."""

    text: str
    start_s: float
    end_s: float


class Heard(NamedTuple):
    """What a recogniser makes of an utterance.

    Attributes:
        text: As a person would write it; empty if it heard no words.
        words: Empty where the recogniser knows no times.
        language: ISO 639-1 code; None if it does not say.
        confidence: Probability of a token, as the geometric mean over the tokens; None if it does not say.
    """

    text: str
    words: tuple[HeardWord, ...] = ()
    language: str | None = None
    confidence: float | None = None


class Recogniser(Protocol):
    """Recognises one utterance after the other; equal samples give equal answers.

    Attributes:
        version: Changes with the weights.
    """

    version: str

    def hear(self, samples_S: NDArray[np.float32]) -> Heard:
        """What is said in float32 [S] at 16 kHz, in [-1, 1]."""


def load(sense: Sense, language: str | None = None) -> Recogniser:
    """The recogniser that takes the role ``speech``.

    Args:
        language: ISO 639-1 code of what is spoken, for those that know several; None: they detect it.

    Raises:
        UsageError: Its library is not installed, or it does not load.
    """
    files = sense.files
    if {"encoder", "decoder", "tokenizer"} <= files.keys():
        return Moonshine(files["encoder"], files["decoder"], files["tokenizer"], sense.version)
    if "model" in files:
        return Whisper(str(files["model"].parent), sense.version, language)
    place = str(sense.place)
    if sense.loader == "faster-whisper" or (Path(place) / "model.bin").is_file():
        return Whisper(place, sense.version, language)
    return Transformer(place, sense.version)


class Moonshine:
    """Moonshine base, English: cheap for short utterances, and its cost grows with their length. Knows no times.

    Args:
        encoder: Samples [1, S] -> states [1, T, 416].
        decoder: A token, the states and the keys and values of earlier tokens -> logits [1, 1, 32768] and the new ones.
        tokenizer: The pieces' bytes one after another, each behind its length.
    """

    def __init__(self, encoder: Path, decoder: Path, tokenizer: Path, version: str) -> None:
        with extra("senses", "speech recognition"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # a plan of memory is kept for each length, and hardly two are equal
        self._encoder, self._decoder = (
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for path in (encoder, decoder)
        )
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy
        self._pieces = pieces(tokenizer.read_bytes())
        self.version = version

    def hear(self, samples_S: NDArray[np.float32]) -> Heard:
        """See :class:`Recogniser`."""
        audio_1S = _at_least(samples_S)[None]
        states = self._encoder.run_with_ort_values(None, {"input_values": self._value(audio_1S)})[0]
        tokens, logs = self._decode(states, max(1, round(audio_1S.shape[1] / RATE_HZ * TOKENS_PER_S)))
        known = (self._pieces[token] for token in tokens if token < len(self._pieces))  # those behind are controls
        text = b"".join(known).replace(SPACE, b" ").decode("utf-8", "replace")
        return Heard(text.strip(), language="en", confidence=float(np.exp(np.mean(logs))) if tokens else None)

    def _decode(self, states: Any, most: int) -> tuple[list[int], list[float]]:
        """Greedily: tokens, and the logarithms of their probabilities."""
        empty = self._value(np.zeros((1, HEADS, 0, HEAD_DIM), np.float32))
        past = {
            f"past_key_values.{layer}.{part}.{kind}": empty
            for layer in range(LAYERS)
            for part in ("decoder", "encoder")
            for kind in ("key", "value")
        }
        outputs = ["logits", *(name.replace("past_key_values", "present") for name in past)]
        token, tokens, logs = START, list[int](), list[float]()
        for step in range(most + 1):
            feed = {
                "input_ids": self._value(np.array([[token]], np.int64)),
                "encoder_hidden_states": states,
                "use_cache_branch": self._value(np.array([step > 0])),
            }
            logits, *present = self._decoder.run_with_ort_values(outputs, feed | past)
            for name, value in zip(past, present, strict=True):
                if step == 0 or ".decoder." in name:  # the encoder's stay, and later steps return empty ones
                    past[name] = value
            scores = logits.numpy()[0, -1]
            token = int(scores.argmax())
            if token == END:
                break
            tokens.append(token)
            logs.append(float(scores[token] - scores.max() - np.log(np.exp(scores - scores.max()).sum())))
        return tokens[:most], logs[:most]


class Whisper:
    """Any Whisper in CTranslate2's format, by faster-whisper: knows the words' times, by its cross-attention.

    Its cost is nearly the same for a short utterance as for one of 30 s.

    Args:
        place: A folder; or a name, which the library fetches where there is a network.
        language: ISO 639-1 code; None: detected in each utterance, if the model knows several.
    """

    def __init__(self, place: str, version: str, language: str | None = None) -> None:
        with extra("whisper", "Whisper"):
            import faster_whisper
        try:
            self._model = faster_whisper.WhisperModel(
                place, device="cpu", compute_type="int8", cpu_threads=1, num_workers=1
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(f"Whisper of {place} does not load: {one_line(error)}") from None
        self._language = language
        self.version = version

    def hear(self, samples_S: NDArray[np.float32]) -> Heard:
        """See :class:`Recogniser`."""
        # One temperature: the fallbacks to others draw at random.
        found, about = self._model.transcribe(
            _at_least(samples_S),
            language=self._language,
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
        )
        segments = list(found)
        words = [word for segment in segments for word in segment.words or ()]
        tokens = sum(len(segment.tokens) for segment in segments)
        log = sum(segment.avg_logprob * len(segment.tokens) for segment in segments)
        return Heard(
            " ".join(segment.text.strip() for segment in segments),
            tuple(HeardWord(word.word.strip(), float(word.start), float(word.end)) for word in words),
            about.language,
            float(np.exp(log / tokens)) if tokens else None,
        )


class Transformer:
    """A folder of transformers' wav2vec 2.0 or HuBERT with CTC: letters at 50 a second, so words have times.

    Args:
        place: A folder; or a name, which the library fetches where there is a network.
    """

    def __init__(self, place: str, version: str) -> None:
        with extra("backbones", "a recogniser of transformers"):
            import transformers
        try:
            self._pipeline = transformers.pipeline("automatic-speech-recognition", model=place, device="cpu")
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise UsageError(f"the recogniser of {place} does not load: {one_line(error)}") from None
        if self._pipeline.type not in ("ctc", "ctc_with_lm"):
            raise UsageError(f"the recogniser of {place} is no CTC model; Whisper: convert it for faster-whisper")
        self.version = version

    def hear(self, samples_S: NDArray[np.float32]) -> Heard:
        """See :class:`Recogniser`."""
        found: Any = self._pipeline({"raw": _at_least(samples_S), "sampling_rate": RATE_HZ}, return_timestamps="word")
        words = tuple(HeardWord(chunk["text"], *map(float, chunk["timestamp"])) for chunk in found["chunks"])
        return Heard(str(found["text"]).strip(), words)


def pieces(content: bytes) -> list[bytes]:
    """The pieces of Moonshine's ``tokenizer.bin``: each is its length, in one byte or two (7 bits, then 8), and itself.

    ``<0x41>`` stands for the byte 41; other pieces in angle brackets are controls, which are no text.
    """
    found, at = list[bytes](), 0
    while at < len(content):
        size = content[at]
        at += 1
        if size >= 128:
            size = content[at] * 128 + size - 128
            at += 1
        piece = content[at : at + size]
        at += size
        byte = BYTE_TOKEN.fullmatch(piece)
        if byte:
            piece = bytes([int(byte[1], 16)])
        elif piece.startswith(b"<") and piece.endswith(b">") and len(piece) > 2:
            piece = b""
        found.append(piece)
    return found


def _at_least(samples_S: NDArray[np.float32]) -> NDArray[np.float32]:
    missing = MIN_SAMPLES - len(samples_S)
    return np.pad(samples_S, (0, missing)) if missing > 0 else samples_S
