"""``streamer transcribe`` beside its recogniser alone: cost, words, delay, memory.

    python -m bench.transcribe --data ../shared/data               # the recogniser that is there
    STREAMER_SENSES__SPEECH=whisper-tiny-en STREAMER_SENSES_DIR=… python -m bench.transcribe
    python -m bench.transcribe --minutes 60                        # an hour of sound through one process

*Cost*: CPU seconds (user and system, of all threads) that a process needs for a sound that is sent as fast as it can be
read, beside those of the recogniser alone for the same utterances, cut beforehand; in turns, on one core. *Words*:
error rate (words wrong, missing or too many ÷ words said) of what came through Kafka, of the recogniser given the same
utterances, and of the recogniser given each recording whole.
*Delay*: the sound is sent in real time, in chunks of 100 ms; from the end of an utterance's voice until the broker has
appended its words. *Memory*: resident, each minute of a sound that is read as fast as it can be; one sentence in 30 s.

Recordings: two sentences of LibriVox, five of GRID (no dictionary helps there: "bin blue at f two now"), twenty digits
of the Free Spoken Digit Dataset at 8 kHz; a second of silence between them.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from kafka import TopicPartition
from numpy.typing import NDArray

from bench import rig
from bench.rig import Figure, Report, Rig, Spread
from streamer.clients import kafka as kafka_clients
from streamer.demo.listening import word_errors
from streamer.events import AUDIO, END_TYPE, TEXT
from streamer.feeds.producer import Outgoing, Producer
from streamer.feeds.replay import media
from streamer.feeds.replay.part import ALL
from streamer.feeds.sound import l16
from streamer.local.program import Program
from streamer.local.worker import WorkerProcess, environment
from streamer.senses import files
from streamer.senses.voice import RATE_HZ, VoiceNetwork
from streamer.senses.wordtimes import WordTimes
from streamer.settings import MIB, Settings
from streamer.transcribe.partition import Key, Partition
from streamer.transcribe.utterances import Rules

S_US = 1_000_000
CHUNK_MS = 100
PAUSE_S = 1.0
GRID_RATE_HZ = 25_000  # of the times in its .align files
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COST_AIM, WORDS_AIM, DELAY_AIM_S = 1.1, 0.005, 1.5
SESSION = "bench"
DONE_WITHIN_S = 3600.0


class Talk(NamedTuple):
    """A recording, mono at 16 kHz, and what is said in it."""

    kind: str
    samples_S: NDArray[np.float32]
    words: str


class Heard(NamedTuple):
    """What one run of the process made of a sound."""

    cpu_s: float
    texts: list[str]
    delays_s: list[float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and report."""
    parser = rig.parser(__doc__, rounds=3)
    parser.add_argument("--data", type=Path, default=rig.ROOT.parent / "shared" / "data", help="folder of recordings")
    parser.add_argument("--minutes", type=int, default=5, help="length of the sound whose memory is measured (5)")
    options = rig.parse(parser, arguments)
    talks = list(recordings(options.data))
    talks = talks[:3] if options.quick else talks
    sound_S = joined(talks)
    with Rig() as bench:
        settings = bench.settings(**chosen())
        cut = utterances(settings, sound_S)
        rig.console.log(f"{len(sound_S) / RATE_HZ:.0f} s of sound, {len(cut)} utterances")
        bare, whole = alone(bench, settings, cut), alone(bench, settings, [talk.samples_S for talk in talks])
        costs: list[tuple[float, float]] = []
        for number in rig.rounds(options):
            found = transcribed(bench, sound_S, len(bare["said"]))
            bare = alone(bench, settings, cut)
            costs.append((found.cpu_s, bare["cpu_s"]))
            rig.console.log(f"round {number}: {found.cpu_s:.2f} s CPU, the recogniser alone {bare['cpu_s']:.2f} s")
        live = transcribed(bench, sound_S, len(bare["said"]), live=True)
        resident = memory(bench, talks[0].samples_S, 1 if options.quick else options.minutes)
    ours, alone_s = zip(*costs, strict=True)
    seconds = len(sound_S) / RATE_HZ
    figures = [
        Figure("transcribe ÷ the recogniser alone, CPU", rig.ratios(ours, alone_s), aim=COST_AIM),
        Figure("CPU ÷ length of the sound", Spread.of([spent_s / seconds for spent_s in ours]), aim=0.5),
        *word_figures(talks, found.texts, bare["texts"], whole["texts"]),
        *time_figures(options.data),
        Figure("delay of the words, live", Spread.of(live.delays_s), "s", aim=DELAY_AIM_S),
        Figure("longest delay", Spread.of([max(live.delays_s)]), "s"),
        Figure("resident after the first minute", Spread.of([resident[0] / MIB]), "MiB"),
        Figure(f"and after {len(resident)} minutes", Spread.of([resident[-1] / MIB]), "MiB"),
    ]
    rig.finish(Report("transcribe", figures, [f"recogniser: {files.find('speech', settings).name}"]), options)


def chosen() -> dict[str, Any]:
    """Which networks are to be used, as the environment of this program says."""
    given = Settings.load()
    return {"senses": given.senses, "senses_dir": given.senses_dir.resolve(), "max_ahead_ms": 10_000_000}


def recordings(data: Path) -> Iterator[Talk]:
    """All of them, each with its kind."""
    for path in sorted((data / "librivox").glob("*.wav")):
        yield Talk("novel", read(path), path.with_suffix(".txt").read_text("utf-8"))
    for speaker in ("jackson", "george"):
        for digit, name in enumerate(DIGITS):
            yield Talk("digit", read(data / "fsdd" / f"{digit}_{speaker}_8.wav"), name)
    for path in aligned_films(data):
        yield Talk("grid", of_film(path), " ".join(word for word, _ in spoken(path)))


def aligned_films(data: Path) -> list[Path]:
    """Clips of GRID whose words have times."""
    return [path for path in sorted((data / "grid").glob("*.mpg")) if path.with_suffix(".align").is_file()]


def spoken(path: Path) -> list[tuple[str, float]]:
    """Its words and when each begins, s."""
    lines = (line.split() for line in path.with_suffix(".align").read_text("utf-8").splitlines())
    return [(word, int(begin) / GRID_RATE_HZ) for begin, _, word in lines if word != "sil"]


def read(path: Path) -> NDArray[np.float32]:
    samples_SN, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return resampled(samples_SN.mean(axis=1), rate_hz)


def of_film(path: Path) -> NDArray[np.float32]:
    sent = [record for record in media.part(path, ALL).records(0) if record.row == AUDIO]
    rate_hz, channels = (int(found) for found in re.findall(r"=(\d+)", sent[0].content_type))
    samples = np.frombuffer(b"".join(record.payload for record in sent), ">i2").reshape(-1, channels)
    return resampled(samples.mean(axis=1).astype(np.float32) / 32768, rate_hz)


def resampled(samples_S: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    found: NDArray[np.float32] = soxr.resample(samples_S.astype(np.float32), rate_hz, RATE_HZ)
    return found


def joined(talks: Sequence[Talk]) -> NDArray[np.float32]:
    """One after another, with silence between them, as a microphone at 16 bits has it."""
    silence_S = np.zeros(round(PAUSE_S * RATE_HZ), np.float32)
    parts = [part for talk in talks for part in (silence_S, talk.samples_S)]
    whole_S = np.round(np.concatenate([*parts, silence_S]) * 32767) / 32768
    return whole_S.astype(np.float32)


def chunks(sound_S: NDArray[np.float32], start_us: int) -> Iterator[Outgoing]:
    """A microphone's records, each due when it is full."""
    step = RATE_HZ * CHUNK_MS // 1000
    for begin in range(0, len(sound_S), step):
        samples_S = sound_S[begin : begin + step]
        at_us = start_us + begin * S_US // RATE_HZ
        value, media_type = l16(np.round(samples_S * 32768).astype(np.int16)), f"audio/L16;rate={RATE_HZ};channels=1"
        yield Outgoing(AUDIO, SESSION, at_us, value, media_type, at_us + len(samples_S) * S_US // RATE_HZ)


def utterances(settings: Settings, sound_S: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What ``streamer transcribe`` gives the recogniser."""
    network = VoiceNetwork(files.find("voice", settings).files["model"])
    rules = Rules.of(settings.transcribe_silence_ms, settings.transcribe_longest_ms)
    cutting = Partition(0, network, rules, settings.transcribe_silence_ms * 1000, S_US, None)
    step = RATE_HZ * CHUNK_MS // 1000
    found = []
    for offset, begin in enumerate(range(0, len(sound_S), step)):
        at_us = begin * S_US // RATE_HZ
        found += cutting.begin(offset, at_us)
        found += cutting.hear(Key(SESSION, "audio"), offset, at_us, RATE_HZ, sound_S[begin : begin + step], 0)
    found += cutting.end(SESSION, offset)
    return [utterance.speech.samples_S for utterance in found]


def alone(bench: Rig, settings: Settings, sounds: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
    """The recogniser's CPU seconds, all it heard, and what of that has words."""
    path = bench.folder / "sounds.npz"
    arrays: dict[str, Any] = {f"{number:04}": sound_S for number, sound_S in enumerate(sounds)}
    np.savez(path, **arrays)
    command = [sys.executable, "-m", "bench.programs.hearing", str(path)]
    with rig.started(command, environment(settings), bench.folder / "hearing.log") as program:
        heard: dict[str, Any] = json.loads(program.wait_end(DONE_WITHIN_S).splitlines()[-1])
    return heard | {"said": [text for text in heard["texts"] if text]}


def process(bench: Rig, settings: Settings) -> WorkerProcess:
    """``streamer transcribe`` on the core for programs, ready."""
    running = WorkerProcess(settings, bench.folder / "transcribe.log", rig.one_thread(), rig.ROOT, command="transcribe")
    rig.pin(running.pid, rig.PROGRAM_CORE)
    running.wait_ready(rig.READY_WITHIN_S)
    return running


def transcribed(bench: Rig, sound_S: NDArray[np.float32], count: int, *, live: bool = False) -> Heard:
    """Send a sound to a fresh process, and wait for its transcripts."""
    settings = bench.settings(**chosen())
    start_us = time.time_ns() // 1000 - (0 if live else len(sound_S) * S_US // RATE_HZ)
    with process(bench, settings) as running:
        before_s = rig.cpu_s(running)
        with Producer(settings) as producer:
            for record in chunks(sound_S, start_us):
                if live:
                    time.sleep(max(0.0, record.due_us / 1e6 - time.time()))
                producer.send(record)
            producer.send(ending())
        running.wait_for(lambda: len(transcripts(settings)) >= count, DONE_WITHIN_S, "hear everything")
        spent_s = rig.cpu_s(running) - before_s
    found = transcripts(settings)
    delays_s = [one.timestamp / 1e3 - ended_s(one) for one in found]
    return Heard(spent_s, [json.loads(one.value)["text"] for one in found], delays_s)


def ending() -> Outgoing:
    now_us = time.time_ns() // 1000
    return Outgoing(AUDIO, SESSION, now_us, b"", "application/json", now_us, ce_type=END_TYPE)


def ended_s(message: Any) -> float:
    """When the words of a transcript had been spoken."""
    headers = dict(message.headers)
    start = np.datetime64(headers["ce_time"].decode().removesuffix("Z"), "us").astype(int)
    return float(start + int(headers["ce_durationus"])) / 1e6


def transcripts(settings: Settings) -> list[Any]:
    """The records of the transcripts topic."""
    topic = settings.source_topics[TEXT]
    consumer = kafka_clients.consumer(settings)
    try:
        tps = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(tps)
        consumer.seek_to_beginning()
        ends, found = consumer.end_offsets(tps), list[Any]()
        while any(consumer.position(tp) < ends[tp] for tp in tps):
            found += [one for batch in consumer.poll(timeout_ms=200).values() for one in batch]
        return found
    finally:
        consumer.close()


def memory(bench: Rig, sentence_S: NDArray[np.float32], minutes: int) -> list[int]:
    """Resident bytes after each minute of a sound with the sentence every half minute."""
    settings = bench.settings(**chosen())
    half_S = np.concatenate([sentence_S, np.zeros(30 * RATE_HZ - len(sentence_S), np.float32)])
    minute_S = np.concatenate([half_S, half_S])
    start_us = time.time_ns() // 1000 - minutes * 60 * S_US
    resident: list[int] = []
    with process(bench, settings) as running, Producer(settings) as producer:
        for minute in range(minutes):
            for record in chunks(minute_S, start_us + minute * 60 * S_US):
                producer.send(record)
            producer.flush()
            wait_heard(running, 2 * minute + 2)
            resident.append(running.family()[0].memory_info().rss)
            rig.console.log(f"minute {minute + 1}: {resident[-1] / MIB:.0f} MiB")
    return resident


def wait_heard(running: Program, count: int) -> None:
    """Wait until so many utterances were heard."""
    assert isinstance(running, WorkerProcess)
    running.wait_for(
        lambda: running.metric("streamer_transcribe_utterances_total") >= count, DONE_WITHIN_S, "hear everything"
    )


def word_figures(
    talks: Sequence[Talk], through: Sequence[str], alone_: Sequence[str], whole: Sequence[str]
) -> list[Figure]:
    """Error rates through Kafka and of the recogniser alone, for each kind of recording and for all."""
    said = plain(" ".join(talk.words for talk in talks))
    ours, same, theirs = (word_errors(said, plain(" ".join(texts))) for texts in (through, alone_, whole))
    figures = [
        Figure("word error rate through Kafka", Spread.of([ours / len(said)])),
        Figure("word error rate of the recogniser, each recording whole", Spread.of([theirs / len(said)])),
        Figure("of the recogniser, the same utterances", Spread.of([same / len(said)])),
        Figure(
            "through Kafka, more than of the same utterances", Spread.of([(ours - same) / len(said)]), aim=WORDS_AIM
        ),
    ]
    for kind in dict.fromkeys(talk.kind for talk in talks):
        pairs = [(plain(talk.words), plain(text)) for talk, text in zip(talks, whole, strict=True) if talk.kind == kind]
        wrong, count = sum(word_errors(*pair) for pair in pairs), sum(len(words) for words, _ in pairs)
        figures.append(Figure(f"of {kind} ({count} words), the recogniser", Spread.of([wrong / count])))
    return figures


def time_figures(data: Path) -> list[Figure]:
    """How far the starts of words that forced alignment finds are from GRID's own, where the words are given."""
    times, off_s, count = WordTimes(), list[float](), 0
    for path in aligned_films(data):
        own = spoken(path)
        found = times.of(" ".join(word for word, _ in own), of_film(path))
        count += len(own)
        off_s += [abs(word.start_s - start_s) for word, (_, start_s) in zip(found, own, strict=False)]
    return [
        Figure(f"forced alignment: error of starts, {len(off_s)} of {count} words", Spread.of(off_s), "s"),
        Figure("the largest of these", Spread.of([max(off_s)]), "s"),
    ]


def plain(text: str) -> list[str]:
    """Words as they are compared: lower case, no punctuation, single digits by name, no abbreviations."""
    words = re.sub(r"[^\w' ]", " ", text.lower().replace("mr.", "mister")).split()
    return [DIGITS[int(word)] if re.fullmatch(r"\d", word) else word for word in words]


if __name__ == "__main__":
    rig.run(main)
