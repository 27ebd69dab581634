"""``streamer demo``: the whole system on this machine, from simulated drives to a summary.

    drives ─ Producer ─► Kafka ─► a worker process ─► Redis ─► live table, then the summary

Everything that was started here is stopped at the end, also after Ctrl-C and errors.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import numpy as np
from kafka import TopicPartition
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from streamer import dashboard
from streamer.broker import topics
from streamer.clients import kafka as kafka_clients
from streamer.demo import listening, summary
from streamer.demo.summary import Expected, Summary
from streamer.errors import Stop
from streamer.events import KINDS, TEXT, TOPIC_DEADLETTER, TOPIC_LATE, moment_us
from streamer.feeds import Outgoing, Producer, aloud, pace, simulate
from streamer.feeds.simulate import Drive
from streamer.feeds.sound import RATE_HZ
from streamer.kinds.text import parse_transcript
from streamer.local import stack
from streamer.local.worker import WorkerProcess
from streamer.result import Result, first, in_words
from streamer.senses import synthesis
from streamer.settings import STATE_DIR, Settings
from streamer.store import results
from streamer.terminal.board import REFRESH_HZ, Board

LOG_FILE = STATE_DIR / "worker.log"
FIRST_SEED = 2000  # training uses much lower seeds: the model has not seen these drives
LEAD_S = 1.0  # until the first record, for the feeds to be set up
PATIENCE_S = 30.0  # without a new result, once the drives have ended
HEARING_S = 60.0  # for what has not been heard when the last window is there
HEADLESS_EVERY_S = 5.0
FEED_STOP_S = 10.0


class Options(msgspec.Struct, frozen=True):
    """Which cars drive, and for how long.

    Attributes:
        headless: Plain lines of progress, no live table.
        keep: Leave Kafka and Redis running if the demo started them.
        page: Serve the live page while the cars drive.
        listen: The cars speak, and `streamer transcribe` hears them; else they come with their words.
    """

    sessions: int = 4
    seconds: int = 45
    seed: int = 1
    headless: bool = False
    keep: bool = False
    page: bool = False
    listen: bool = False


def run(settings: Settings, options: Options, console: Console) -> Summary:
    """Run the demo; returns what it achieved.

    Raises:
        Stop: Something cannot start, or the worker died.
    """
    if options.listen:
        listening.check(settings, ("speech", "voice", "synthesis"), "a demo that listens")
        settings = listening.patient(settings)
    with services(settings, options.keep, console) as settings:
        topics.create(settings)
        with (
            Tail(settings, TOPIC_DEADLETTER, TOPIC_LATE, KINDS[TEXT].topic) as side,
            results.connected(settings) as (client, keys),
        ):
            with ExitStack() as running:
                console.print(f"starting a worker, its log is {LOG_FILE}", highlight=False)
                worker = running.enter_context(WorkerProcess(settings, LOG_FILE))
                programs = [worker]
                if options.listen:
                    log = STATE_DIR / "transcribe.log"
                    programs.append(running.enter_context(WorkerProcess(settings, log, command="transcribe")))
                with console.status("loading the model"):
                    for program in programs:
                        program.wait_ready()
                if options.page:
                    url = running.enter_context(dashboard.running(settings))
                    console.print(f"live page: {url}", highlight=False)
                spoken = _voice(settings) if options.listen else None
                drives = plan(settings, options)
                lines = {} if spoken is None else {drive.session: aloud.lines(drive, spoken) for drive in drives}
                expected = [window for drive in drives for window in windows(drive, settings)]
                screen = (Lines if options.headless else Screen)(console, expected, "driving")
                fresh = results.follow(client, keys, [drive.session for drive in drives])
                outgoing = aloud.merged(drives, lines) if options.listen else simulate.outgoing(drives)
                feed = running.enter_context(Feed(settings, outgoing, drives[0].start_us, "the simulated drives"))
                running.enter_context(screen)
                began_s = time.monotonic()
                found = list(watched(fresh, screen, feed, worker, expected, _patience_s(settings)))
                seconds = time.monotonic() - began_s
                if options.listen:
                    _hear_out(programs[-1])
            came = list(side.records({drive.session for drive in drives}))
    dead_letters, late_events = (
        sum(record.topic == settings.topic(topic) for record in came) for topic in (TOPIC_DEADLETTER, TOPIC_LATE)
    )
    return summary.summarise(
        found,
        expected,
        records=feed.sent,
        dead_letters=dead_letters,
        late_events=late_events,
        seconds=seconds,
        heard=_heard(settings, lines, came) if options.listen else None,
    )


def _voice(settings: Settings) -> aloud.Say:
    """Words -> samples, by the voice that the settings name."""
    voice = synthesis.voice(settings)

    def say(text: str) -> NDArray[np.float32]:
        speech = voice.say(text)
        return synthesis.resampled(speech.samples_S, speech.rate_hz, RATE_HZ)

    return say


def _hear_out(transcribe: WorkerProcess) -> None:
    """Wait until all that was sent has been heard, on a slow machine for long, but not for ever."""
    deadline_s = time.monotonic() + HEARING_S
    behind = ("streamer_transcribe_lag_records", "streamer_transcribe_waiting_seconds", "streamer_transcribe_sounds")
    while any(transcribe.metric(name) for name in behind) and time.monotonic() < deadline_s:
        transcribe.check()
        time.sleep(0.2)


def _patience_s(settings: Settings) -> float:
    return PATIENCE_S + settings.longest_delay_ms / 1000


def _heard(settings: Settings, lines: Mapping[str, Sequence[aloud.Line]], came: Sequence[Any]) -> listening.Heard:
    """What was heard, beside what was said."""
    phrases: dict[str, list[tuple[int, str]]] = {session: [] for session in lines}
    for record in came:
        if record.topic == settings.source_topics[TEXT] and record.value:
            at_us = moment_us(dict(record.headers)["ce_time"].decode())
            phrases[record.key.decode()].append((at_us, parse_transcript(record.value)[0].text))
    heard = [" ".join(text for _, text in sorted(phrases[session])) for session in lines]
    return listening.compared([" ".join(line.text for line in spoken) for spoken in lines.values()], heard)


@contextmanager
def services(settings: Settings, keep: bool, console: Console) -> Iterator[Settings]:
    """Kafka and Redis: running ones, else embedded ones while the context is open."""
    services = stack.status(settings)
    if all(service.answers for service in services):
        yield settings
        return
    were_running = any(service.runs_as.startswith(("embedded", "docker")) for service in services)
    stack.up(settings, progress=lambda line: console.print(line, highlight=False))
    try:
        given = settings.model_dump(exclude_unset=True, exclude={"kafka", "redis"})
        yield Settings.load(**given)  # with the addresses of the new servers
    finally:
        if not keep and not were_running:
            console.print("stopping Kafka and Redis", highlight=False)
            stack.down()


def plan(settings: Settings, options: Options) -> list[Drive]:
    """The drives, under new names; all begin at the next start of a window."""
    first_us = time.time_ns() // 1000 + round(LEAD_S * 1e6)
    start_us = -(-first_us // settings.hop_us) * settings.hop_us
    name = f"demo-{secrets.token_hex(2)}"
    sent = simulate.Options(sensors=simulate.sensors_of(settings, None))
    return simulate.fleet(options.sessions, options.seconds, FIRST_SEED + options.seed, start_us, name, sent)


def windows(drive: Drive, settings: Settings) -> Iterator[Expected]:
    """The windows that are entirely inside a drive, with the true label of each."""
    truth = drive.truth()
    for start_us in range(drive.start_us, drive.end_us - settings.window_us + 1, settings.hop_us):
        stop_us = start_us + settings.window_us
        yield Expected(drive.session, start_us, stop_us, simulate.label_of(truth, start_us, stop_us))


def watched(
    fresh: Iterator[Result | None],
    screen: Screen | Lines,
    feed: Feed,
    worker: WorkerProcess,
    expected: list[Expected],
    patience_s: float = PATIENCE_S,
) -> Iterator[Result]:
    """Results as they come, until all expected ones are there or none has come for long.

    Args:
        patience_s: How long that is, once the feed has ended.

    Raises:
        Stop: The worker or the feed died.
    """
    missing = {(window.session, window.end_us) for window in expected}
    last_s = time.monotonic()
    for result in fresh:
        worker.check()
        feed.check()
        if result is not None:
            missing.discard((result.session, result.end_us))
            last_s = time.monotonic()
            yield result
        screen.show(result, feed.sent)
        if not feed.is_alive() and (not missing or time.monotonic() - last_s > patience_s):
            return


class Feed(threading.Thread):
    """A thread that sends records in real time.

    Args:
        outgoing: In the order in which they are due.
        start_us: When the first is due.
        what: What is sent, for messages.

    Attributes:
        sent: Records sent so far.
    """

    def __init__(self, settings: Settings, outgoing: Iterable[Outgoing], start_us: int, what: str) -> None:
        super().__init__(name="feed", daemon=True)
        self.sent = 0
        self._settings = settings
        self._outgoing = outgoing
        self._start_us = start_us
        self._what = what
        self._stop_asked = threading.Event()
        self._error: BaseException | None = None

    def __enter__(self) -> Feed:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop_asked.set()
        self.join(FEED_STOP_S)

    def run(self) -> None:
        try:
            with Producer(self._settings) as producer:
                # the pace counts from the first record, which must be sent on time
                self._stop_asked.wait(max(0.0, self._start_us / 1e6 - time.time()))
                pace.send(self._records(), producer, speed=1.0)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, see check()
            self._error = error

    def check(self) -> None:
        """Raise what ended the feed early."""
        if self._error is not None:
            raise Stop(f"{self._what} cannot be sent: {self._error}") from self._error

    def _records(self) -> Iterator[Outgoing]:
        for outgoing in self._outgoing:
            if self._stop_asked.is_set():
                return
            yield outgoing
            self.sent += 1


class Tail:
    """What comes to topics while it is open.

    Args:
        topics: As suffixes; they exist.
    """

    def __init__(self, settings: Settings, *topics: str) -> None:
        self._consumer = kafka_clients.consumer(settings)
        self._topics = [settings.topic(topic) for topic in topics]
        self._partitions = [
            TopicPartition(topic, number)
            for topic in self._topics
            for number in sorted(self._consumer.partitions_for_topic(topic) or ())
        ]
        self._begin: dict[TopicPartition, int] = self._consumer.end_offsets(self._partitions)

    def __enter__(self) -> Tail:
        return self

    def __exit__(self, *error: object) -> None:
        self._consumer.close()

    def records(self, sessions: set[str]) -> Iterator[Any]:
        """Kafka's records of these sessions, from the beginning to what is there now."""
        ends = self._consumer.end_offsets(self._partitions)
        grown = [tp for tp in self._partitions if ends[tp] > self._begin[tp]]
        self._consumer.assign(grown)
        for tp in grown:
            self._consumer.seek(tp, self._begin[tp])
        while any(self._consumer.position(tp) < ends[tp] for tp in grown):
            for records in self._consumer.poll(timeout_ms=500).values():
                for record in records:
                    if (record.key or b"").decode("utf-8", "replace") in sessions:
                        yield record


class Screen:
    """The live table with a progress bar below."""

    def __init__(self, console: Console, expected: Sequence[Expected], doing: str) -> None:
        self._labels = {(window.session, window.end_us): window.label for window in expected}
        self._board = Board(reserved_lines=7)
        self._progress = Progress(
            TextColumn(f"{doing}: windows"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("· {task.fields[sent]:,} records sent ·"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("windows", total=len(expected), sent=0)
        self._live = Live(
            Group("", self._board, "", self._progress, ""), console=console, refresh_per_second=REFRESH_HZ
        )

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, result: Result | None, sent: int) -> None:
        """Show a result, or ``None`` if there was none for a while."""
        if result is not None:
            label = self._labels.get((result.session, result.end_us))
            self._board.update(result, None if label is None else in_words(first(result)) == label)
            self._progress.advance(self._task, (result.session, result.end_us) in self._labels)
        self._progress.update(self._task, sent=sent)


class Lines:
    """Lines of progress, for logs."""

    def __init__(self, console: Console, expected: Sequence[Expected], doing: str) -> None:
        self._doing = doing
        self._console = console
        self._expected = len(expected)
        self._windows = 0
        self._said_s = time.monotonic()

    def __enter__(self) -> Lines:
        self._console.print(f"{self._doing}: {self._expected} windows to come", highlight=False)
        return self

    def __exit__(self, *error: object) -> None:
        self._console.print(f"{self._windows} windows published", highlight=False)

    def show(self, result: Result | None, sent: int) -> None:
        """Show a result, or ``None`` if there was none for a while."""
        self._windows += result is not None
        if time.monotonic() - self._said_s >= HEADLESS_EVERY_S:
            self._said_s = time.monotonic()
            self._console.print(f"{self._windows} of {self._expected} windows, {sent:,} records sent", highlight=False)
